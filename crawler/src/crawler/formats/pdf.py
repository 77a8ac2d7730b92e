"""PDF, page by page."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from crawler.contracts import Converted, Format, Page, Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats import _xberg
from crawler.settings import Settings

_MAX_PAGES = 20_000
"""liteparse stops silently at this many pages, and at 1,000 when not told; more than any limit allows."""
_PAGE_BREAK = "\n\n"


class Pdf(Format[Settings]):
    """PDF with a text layer. Pages without text, such as scans, are named in a warning."""

    def accepts(self, source: Source) -> bool:
        # Readers look for the mark within the first 1,024 bytes (PDF 1.7, appendix H, note 13).
        return b"%PDF-" in source.content[:1024] or source.suffix == ".pdf"

    def convert(self, source: Source) -> Converted:
        """Markdown with the offset of each page.

        Raises:
            UnreadableDocument: Encrypted, broken, or without text.
            DocumentTooLarge: It has more pages than can be read.
        """
        if b"%PDF-" not in source.content[:1024]:
            raise UnreadableDocument("The file is not a PDF, although its name says so. Check the file.")
        from liteparse import ParseError

        metadata: dict[str, Any]
        try:
            texts, metadata = _by_liteparse(source.content)
        except ParseError as error:
            if "password" in str(error).lower():
                raise UnreadableDocument(
                    "The PDF is encrypted. Remove the password and upload it again."
                ) from error
            texts, metadata = _by_xberg(source.content)
        if not any(texts):
            raise UnreadableDocument(
                "The PDF has no text; it is probably scanned. Run text recognition (OCR) and upload that."
            )
        return _joined(texts, metadata)


def _by_liteparse(content: bytes) -> tuple[list[str], dict[str, Any]]:
    from liteparse import LiteParse

    # Text recognition is on by default and would download its model.
    parser = LiteParse(
        ocr_enabled=False,
        output_format="markdown",
        image_mode="off",
        max_pages=_MAX_PAGES,
        num_workers=1,
        extract_document_metadata=True,
        quiet=True,
    )
    result = parser.parse(content)
    if result.total_pages > len(result.pages):
        raise DocumentTooLarge(f"The PDF has {result.total_pages} pages. Split it and upload the parts.")
    # A page without text comes as an empty code block.
    texts = [page.markdown.strip() if page.text.strip() else "" for page in result.pages]
    return texts, _information(content) | _dates(result.doc_meta)


def _by_xberg(content: bytes) -> tuple[list[str], dict[str, Any]]:
    try:
        document = _xberg.extract(content, "application/pdf", "document.pdf", pages=True)
    except UnreadableDocument as error:
        raise UnreadableDocument(
            "The PDF is broken. Open it in a PDF program, save it again and upload that."
        ) from error
    texts = [page.content.strip() for page in document.pages or ()]
    return texts or [document.content.strip()], _xberg.properties(document)


def _joined(texts: list[str], metadata: dict[str, Any]) -> Converted:
    """One markdown; a page without text begins where the next text begins."""
    pages, parts, offset = [], [], 0
    for number, text in enumerate(texts, start=1):
        pages.append(Page(number=number, start=offset))
        if text:
            parts.append(text)
            offset += len(text) + len(_PAGE_BREAK)
    markdown = _PAGE_BREAK.join(parts)
    pages = [
        page if page.start <= len(markdown) else Page(number=page.number, start=len(markdown))
        for page in pages
    ]
    empty = [number for number, text in enumerate(texts, start=1) if not text]
    warnings = (
        (f"No text on {_enumeration(empty)}; if scanned, run text recognition (OCR).",) if empty else ()
    )
    return Converted(
        markdown=markdown,
        pages=tuple(pages),
        metadata={**metadata, "page_count": len(texts)},
        warnings=warnings,
    )


def _enumeration(numbers: list[int]) -> str:
    shown = ", ".join(map(str, numbers[:10])) + (", ..." if len(numbers) > 10 else "")
    return f"page {shown}" if len(numbers) == 1 else f"pages {shown}"


def _dates(found: Any) -> dict[str, Any]:
    """The dates of liteparse's document metadata, from ``D:YYYYMMDDHHmmSS...`` (PDF 1.7, 7.9.4)."""
    dates = {}
    for key, value in (("created_at", found.creation_date), ("modified_at", found.mod_date)) if found else ():
        digits = (value or "").removeprefix("D:")[:8]
        if len(digits) == 8 and digits.isdecimal():
            dates[key] = f"{digits[:4]}-{digits[4:6]}-{digits[6:]}"
    return dates


def _information(content: bytes) -> dict[str, Any]:
    """Title and author of the document information dictionary.

    liteparse does not tell them, but the PDFium that it brings does (``FPDF_GetMetaText``).
    """
    import liteparse

    libraries: Iterable[Path] = Path(liteparse.__file__).parent.glob("*pdfium.*")
    library = next(iter(libraries), None)
    if library is None:
        return {}
    pdfium = ctypes.CDLL(str(library))
    pdfium.FPDF_InitLibrary()
    pdfium.FPDF_LoadMemDocument64.restype = ctypes.c_void_p
    pdfium.FPDF_LoadMemDocument64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    pdfium.FPDF_GetMetaText.restype = ctypes.c_ulong
    pdfium.FPDF_GetMetaText.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_ulong]
    pdfium.FPDF_CloseDocument.argtypes = [ctypes.c_void_p]
    document = pdfium.FPDF_LoadMemDocument64(content, len(content), None)
    if not document:
        return {}
    found = {}
    for key, tag in (("title", b"Title"), ("author", b"Author")):
        buffer = ctypes.create_string_buffer(2048)
        size = pdfium.FPDF_GetMetaText(document, tag, buffer, len(buffer))
        if 2 < size <= len(buffer):
            found[key] = buffer.raw[: size - 2].decode("utf-16-le", errors="replace").strip()
    pdfium.FPDF_CloseDocument(document)
    return {key: value for key, value in found.items() if value}
