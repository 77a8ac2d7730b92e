"""Small files of every kind, written byte by byte, and a document around them."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crawler.contracts import Document
from tests.unit.crawler.text_samples import TEXT_SAMPLES

Line = tuple[int, int, int, str]
"""Font size, x, y (points from the lower left corner), text."""

REPORT: list[list[Line]] = [
    [
        (24, 72, 720, "Annual report"),
        (11, 72, 690, "Revenue grew by four percent in the year, to 12 million."),
        (11, 72, 676, "The board thanks everybody for their work."),
    ],
    [
        (11, 72, 690, "Region"),
        (11, 200, 690, "2024"),
        (11, 300, 690, "2025"),
        (11, 72, 674, "North"),
        (11, 200, 674, "10"),
        (11, 300, 674, "12"),
        (11, 72, 658, "South"),
        (11, 200, 658, "7"),
        (11, 300, 658, "8"),
    ],
]


def pdf(pages: Sequence[Sequence[Line]] = REPORT, *, info: str = "", bomb_bytes: int = 0) -> bytes:
    """A PDF 1.7; ``info`` is the inside of its information dictionary; the bomb is an inflating stream."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for number, lines in enumerate(pages):
        content = "".join(
            f"BT /F1 {size} Tf {x} {y} Td ({text}) Tj ET\n" for size, x, y, text in lines
        ).encode()
        filters = b""
        if bomb_bytes:
            content, filters = (
                zlib.compress(content + b"0 0 m " * (bomb_bytes // 6), 9),
                b" /Filter /FlateDecode",
            )
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 3 0 R >> >>"
            b" /Contents %d 0 R >>" % (5 + 2 * number)
        )
        objects.append(b"<< /Length %d%s >>\nstream\n%s\nendstream" % (len(content), filters, content))
    objects.append(f"<< {info} >>".encode())
    output, offsets = io.BytesIO(b"%PDF-1.7\n"), []
    output.seek(0, io.SEEK_END)
    for number, content in enumerate(objects, start=1):
        offsets.append(output.tell())
        output.write(b"%d 0 obj\n%s\nendobj\n" % (number, content))
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    return output.getvalue() + (
        b"xref\n0 %d\n0000000000 65535 f \n%strailer\n"
        b"<< /Size %d /Root 1 0 R /Info %d 0 R >>\nstartxref\n%d\n%%%%EOF\n"
        % (size, table, size, size - 1, output.tell())
    )


def encrypted_pdf() -> bytes:
    """A PDF that asks for a password which nobody knows: its check values are made up."""
    encryption = b"/ID [<00> <00>] /Encrypt << /Filter /Standard /V 1 /R 2 /O <%s> /U <%s> /P -4 >>"
    return pdf().replace(b"trailer\n<< ", b"trailer\n<< " + encryption % (b"11" * 32, b"22" * 32) + b" ")


def slow_pdf() -> bytes:
    """Takes many seconds to convert: thousands of pages."""
    return pdf([[(11, 72, 720 - 12 * row, f"line {row} of words " * 4) for row in range(50)]] * 4000)


# --- docx --------------------------------------------------------------------------------------------

_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def paragraph(text: str, style: str = "") -> str:
    properties = f'<w:pPr><w:pStyle w:val="{style}"/></w:pPr>' if style else ""
    return f"<w:p>{properties}<w:r><w:t>{text}</w:t></w:r></w:p>"


def table(rows: Sequence[Sequence[str]]) -> str:
    cells = ("".join(f"<w:tc>{paragraph(cell)}</w:tc>" for cell in row) for row in rows)
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in cells)}</w:tbl>"


HANDBOOK = (
    paragraph("Handbook", "Heading1")
    + paragraph("Working hours are from nine to five.")
    + paragraph("Leave", "Heading2")
    + table([["Kind", "Days"], ["Annual", "30"], ["Parental", "90"]])
)


def docx(body: str = HANDBOOK) -> bytes:
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument'
        '.wordprocessingml.document.main+xml"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{_OFFICE}/officeDocument" Target="word/document.xml"/>'
        f'<Relationship Id="r2" Type="{_PACKAGE}/relationships/metadata/core-properties" '
        'Target="docProps/core.xml"/></Relationships>',
        "docProps/core.xml": f'<cp:coreProperties xmlns:cp="{_PACKAGE}/metadata/core-properties" '
        'xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:dcterms="http://purl.org/dc/terms/">'
        "<dc:title>Staff handbook</dc:title><dc:creator>Ada</dc:creator>"
        "<dcterms:created>2024-01-02T03:04:05Z</dcterms:created></cp:coreProperties>",
        "word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body>{body}</w:body></w:document>',
    }
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in parts.items():
            archive.writestr(name, f'<?xml version="1.0"?>{text}')
    return output.getvalue()


# --- compound files ----------------------------------------------------------------------------------


def compound_file(*names: str) -> bytes:
    """A compound file ([MS-CFB]) with empty streams of these names at its top."""
    none, end = 0xFFFFFFFF, 0xFFFFFFFE
    header = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(16)
    header += struct.pack("<5H6x", 0x3E, 3, 0xFFFE, 9, 6)
    header += struct.pack("<9I", 0, 1, 1, 0, 4096, end, 0, end, 0) + struct.pack("<109I", 0, *[none] * 108)
    entries = [("Root Entry", 5, none, 1)]
    for number, name in enumerate(names, start=1):
        entries.append((name, 2, number + 1 if number < len(names) else none, none))
    directory = b""
    for name, kind, right, child in entries:
        text = name.encode("utf-16-le")
        directory += text.ljust(64, b"\0") + struct.pack("<HBB3I", len(text) + 2, kind, 1, none, right, child)
        directory += bytes(36) + struct.pack("<IQ", end, 0)
    sectors = -(-len(directory) // 512)
    chain = [*range(2, sectors + 1), end]
    table = struct.pack(f"<{sectors + 1}I", 0xFFFFFFFD, *chain).ljust(512, b"\xff")
    return header + table + directory.ljust(512 * sectors, b"\0")


# --- the others --------------------------------------------------------------------------------------

HTML = b"""<!doctype html>
<html lang="en"><head><title>Travel &amp; expenses</title><script>steal()</script><style>p {}</style></head>
<body><h1>Travel</h1><p onclick="steal()">Book <b>early</b>.</p><h2>Rates</h2>
<table><thead><tr><th>City</th><th>Rate</th></tr></thead><tr><td>Berlin</td><td>28</td></tr></table>
<ul><li>train</li><li>bus</li></ul><p><a href="javascript:steal()">press</a></p>
<img src="data:image/png;base64,AAAA" alt="a map"><script>steal()</script></body></html>"""

MARKDOWN = "# Notice\n\nThe notice period is *30* days.\n\n| Years | Days |\n|---|---|\n| 5 | 60 |\n"

REAL = Path(__file__).parents[2] / "fixtures" / "formats"
"""Files that other programs made; see the README there."""


def real(name: str) -> bytes:
    return (REAL / name).read_bytes()


SAMPLES: dict[str, tuple[str, bytes, str]] = {
    "pdf": ("report.pdf", pdf(), "| North | 10 | 12 |"),
    "docx": ("handbook.docx", docx(), "| Annual | 30 |"),
    "html": ("travel.html", HTML, "| Berlin | 28 |"),
    "markdown": ("notice.md", MARKDOWN.encode(), "| 5 | 60 |"),
    "pptx": ("policy.pptx", real("policy.pptx"), "| Lisbon | 32 | 98 |"),
    "xlsx": ("rates.xlsx", real("rates.xlsx"), "| Lisbon | 32 | 98.25 | 2023-07-01 |"),
    "xls": ("rates.xls", real("rates.xls"), "| Lisbon | 32 | 98.25 | 2023-07-01 |"),
    "odt": ("policy.odt", real("policy.odt"), "| Lisbon | 32 | 98 |"),
    "odp": ("policy.odp", real("policy.odp"), "| Lisbon | 32 | 98 |"),
    "ods": ("rates.ods", real("rates.ods"), "| Lisbon | 32 | 98.25 | 2023-07-01 |"),
    "rtf": ("policy.rtf", real("policy.rtf"), "| Lisbon | 32 | 98 |"),
    "epub": ("policy.epub", real("policy.epub"), "| Lisbon | 32 | 98 |"),
    "image": ("note.png", real("note.png"), "closed from 3 to 9 March"),
    "eml": ("mail.eml", real("mail.eml"), "closed from 3 to 9 March"),
    "msg": ("mail.msg", real("mail.msg"), "the **north quay** is closed"),
    "zip": ("archive.zip", real("archive.zip"), "notices/quay.md"),
    "text": ("minutes.txt", b"We met.\nWe parted.\n", "We met.\nWe parted."),
    **TEXT_SAMPLES,
}
"""For each format: file name, bytes, and what must be in its Markdown."""


def document(name: str = "markdown", **fields: Any) -> Document:
    filename, content, _ = SAMPLES[name]
    given = {"collection": "c", "document_id": "d", "revision": "r", "source": filename, "content": content}
    return Document.model_validate({**given, **fields})
