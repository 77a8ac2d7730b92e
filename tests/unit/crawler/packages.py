"""Packages of XML parts with just what a test needs in them."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
_RELATIONSHIPS = "http://schemas.openxmlformats.org/package/2006/relationships"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_PRESENTATION = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"
_ODF = "urn:oasis:names:tc:opendocument:xmlns"


def package(parts: Mapping[str, str | bytes], mimetype: str | None = None) -> bytes:
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", zipfile.ZIP_DEFLATED) as archive:
        if mimetype:
            archive.writestr("mimetype", mimetype, zipfile.ZIP_STORED)
        for name, content in parts.items():
            archive.writestr(name, content)
    return output.getvalue()


def relationships(**targets: str) -> str:
    """``id="kind target"``; a target with a scheme is external."""
    found = []
    for id_, known in targets.items():
        kind, target = known.split(" ")
        mode = ' TargetMode="External"' if ":" in target else ""
        found.append(f'<Relationship Id="{id_}" Type="{_OFFICE}/{kind}" Target="{target}"{mode}/>')
    return f'<Relationships xmlns="{_RELATIONSHIPS}">{"".join(found)}</Relationships>'


def _main(part: str, kind: str) -> dict[str, str | bytes]:
    override = f'<Override PartName="/{part}" ContentType="{kind}"/>'
    return {
        "[Content_Types].xml": f'<Types xmlns="{_TYPES}">{override}</Types>',
        "_rels/.rels": relationships(r1=f"officeDocument {part}"),
    }


def xlsx(*sheets: str) -> bytes:
    """A workbook of sheets ``S1``, ``S2``, ...; each is the inside of its ``worksheet`` element."""
    names = range(1, len(sheets) + 1)
    listed = "".join(f'<sheet name="S{each}" sheetId="{each}" r:id="r{each}"/>' for each in names)
    parts = _main(
        "xl/workbook.xml", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"
    )
    parts["xl/workbook.xml"] = (
        f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>'
    )
    parts["xl/_rels/workbook.xml.rels"] = relationships(
        **{f"r{each}": f"worksheet worksheets/sheet{each}.xml" for each in names}
    )
    for each, inside in zip(names, sheets, strict=True):
        parts[f"xl/worksheets/sheet{each}.xml"] = f'<worksheet xmlns="{_SHEET}">{inside}</worksheet>'
    return package(parts)


def rows(*lines: str) -> str:
    """Rows of text cells, separated by commas, from A1 on."""
    found = []
    for number, line in enumerate(lines, start=1):
        cells = "".join(
            f'<c r="{chr(65 + column)}{number}" t="inlineStr"><is><t>{text}</t></is></c>'
            for column, text in enumerate(line.split(","))
            if text
        )
        found.append(f'<row r="{number}">{cells}</row>')
    return f"<sheetData>{''.join(found)}</sheetData>"


def pptx(*slides: str, known: str | None = None, parts: Mapping[str, str | bytes] | None = None) -> bytes:
    """A presentation; each slide is the inside of its shape tree. ``known``: relationships of the slides."""
    names = range(1, len(slides) + 1)
    found = _main(
        "ppt/presentation.xml",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml",
    )
    listed = "".join(f'<p:sldId id="{255 + each}" r:id="r{each}"/>' for each in names)
    spaces = f'xmlns:p="{_PRESENTATION}" xmlns:a="{_DRAWING}" xmlns:r="{_OFFICE}"'
    found["ppt/presentation.xml"] = (
        f"<p:presentation {spaces}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>"
    )
    found["ppt/_rels/presentation.xml.rels"] = relationships(
        **{f"r{each}": f"slide slides/slide{each}.xml" for each in names}
    )
    for each, inside in zip(names, slides, strict=True):
        tree = f"<p:cSld><p:spTree>{inside}</p:spTree></p:cSld>"
        found[f"ppt/slides/slide{each}.xml"] = f"<p:sld {spaces}>{tree}</p:sld>"
        if known:
            found[f"ppt/slides/_rels/slide{each}.xml.rels"] = known
    return package({**found, **(parts or {})})


def shape(*paragraphs: str, placeholder: str | None = None) -> str:
    """A shape of a slide; a paragraph is the inside of ``a:p``, or plain text."""
    held = "" if placeholder is None else f'<p:ph type="{placeholder}"/>'
    inside = "".join(
        f"<a:p>{text if '<' in text else f'<a:r><a:t>{text}</a:t></a:r>'}</a:p>" for text in paragraphs
    )
    return f"<p:sp><p:nvSpPr><p:nvPr>{held}</p:nvPr></p:nvSpPr><p:txBody>{inside}</p:txBody></p:sp>"


def open_document(kind: str, body: str, *, styles: str = "", meta: str = "", manifest: str = "") -> bytes:
    """An OpenDocument file of ``kind`` (``text``, ``presentation``), its body as inside ``office:<kind>``."""
    prefixes = ("office", "text", "table", "style", "meta", "presentation", "manifest")
    spaces = " ".join(f'xmlns:{prefix}="{_ODF}:{prefix}:1.0"' for prefix in prefixes)
    spaces += f' xmlns:draw="{_ODF}:drawing:1.0" xmlns:fo="{_ODF}:xsl-fo-compatible:1.0"'
    spaces += f' xmlns:svg="{_ODF}:svg-compatible:1.0"'
    spaces += ' xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:dc="http://purl.org/dc/elements/1.1/"'
    content = (
        f"<office:document-content {spaces}><office:automatic-styles>{styles}</office:automatic-styles>"
        f"<office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    )
    parts = {
        "content.xml": content,
        "meta.xml": f"<office:document-meta {spaces}>{meta}</office:document-meta>",
        "META-INF/manifest.xml": f"<manifest:manifest {spaces}>{manifest}</manifest:manifest>",
    }
    return package(parts, f"application/vnd.oasis.opendocument.{kind}")
