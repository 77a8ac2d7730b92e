"""PDF, page by page."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crawler.contracts import Converted, Format, Image, Page, Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats import _ocr, _xberg

_PAGE_BREAK = "\n\n"
_PLACEHOLDER = re.compile(r"\n*!\[\]\(img_(p\d+_\d+)\.\w+\)")
_MEDIA_TYPES = {"jpg": "image/jpeg", "png": "image/png"}
_TAGS = {"title": b"Title", "author": b"Author", "subject": b"Subject", "keywords": b"Keywords"}
"""Of the document information dictionary (PDF 1.7, 14.3.3)."""
_BATCH = 8
"""Pages that are recognised at once; drawn, each takes some megabytes."""


@dataclass
class _Read:
    """What was read of a PDF."""

    texts: list[str]
    """By page; empty where there is none."""
    metadata: dict[str, Any]
    drawn: tuple[int, ...] = ()
    """Numbers of the pages without text that show something."""
    images: tuple[tuple[int, int, Image], ...] = ()
    """Page number, offset into its text, picture."""
    recognised: list[int] = field(default_factory=list)
    lacking: str | None = None
    """What has to be installed before the drawn pages can be recognised."""


class Pdf(Format[_ocr.OcrSettings]):
    """PDF with its text layer; pages without one, such as scans, by text recognition."""

    def accepts(self, source: Source) -> bool:
        # Readers look for the mark within the first 1,024 bytes (PDF 1.7, appendix H, note 13).
        return b"%PDF-" in source.content[:1024] or source.suffix == ".pdf"

    def convert(self, source: Source) -> Converted:
        """Markdown with the offset of each page.

        Raises:
            UnreadableDocument: Encrypted, broken, or without text that can be read or recognised.
            DocumentTooLarge: It has more pages than can be read.
        """
        if b"%PDF-" not in source.content[:1024]:
            raise UnreadableDocument("The file is not a PDF, although its name says so. Check the file.")
        from liteparse import ParseError

        try:
            count, information = _information(source.content)
            source.report(0, min(count, _ocr.MAX_PAGES))
            read = _by_liteparse(source, information)
        except ParseError as error:
            if "password" in str(error).lower():
                raise UnreadableDocument(
                    "The PDF is encrypted. Remove the password and upload it again."
                ) from error
            read = _by_xberg(source.content)
        else:
            _recognise(source, read, self.settings)
        if not any(read.texts) and not read.images:
            raise UnreadableDocument(_why_empty(read, self.settings))
        return _joined(read, self.settings)


def _by_liteparse(source: Source, information: Mapping[str, str]) -> _Read:
    from liteparse import LiteParse

    # Text recognition is on by default and would download its model.
    parser = LiteParse(
        ocr_enabled=False,
        output_format="markdown",
        image_mode="placeholder" if source.with_images else "off",
        extract_images=source.with_images,
        extract_content_bounds=True,
        max_pages=_ocr.MAX_PAGES,
        num_workers=1,
        extract_document_metadata=True,
        quiet=True,
    )
    result = parser.parse(source.content)
    if result.total_pages > len(result.pages):
        raise DocumentTooLarge(f"The PDF has {result.total_pages} pages. Split it and upload the parts.")
    texts = [_ocr.text_of(page) for page in result.pages]
    drawn = (
        number
        for number, (text, page) in enumerate(zip(texts, result.pages, strict=True), start=1)
        if not text and page.content_bounds
    )
    texts, places = _without_placeholders(texts)
    images = (
        (found.page, places.get(found.id, len(texts[found.page - 1])), _image(found.format, found.bytes))
        for found in result.images
        if found.format in _MEDIA_TYPES
    )
    return _Read(
        texts=texts,
        metadata={**information, **_dates(result.doc_meta)},
        drawn=tuple(drawn),
        images=tuple(sorted(images, key=lambda image: image[:2])),
    )


def _image(kind: str, content: bytes) -> Image:
    return Image(offset=0, media_type=_MEDIA_TYPES[kind], content=content)


def _without_placeholders(texts: Sequence[str]) -> tuple[list[str], dict[str, int]]:
    """The pages without the marks for their pictures, and where in its page each picture's mark stood."""
    cleaned, places = [], {}
    for text in texts:
        parts, done, length = [], 0, 0
        for mark in _PLACEHOLDER.finditer(text):
            parts.append(text[done : mark.start()])
            length += len(parts[-1])
            places[mark[1]] = length
            done = mark.end()
        cleaned.append("".join([*parts, text[done:]]))
    return cleaned, places


def _by_xberg(content: bytes) -> _Read:
    try:
        document = _xberg.extract(content, "application/pdf", "document.pdf", pages=True)
    except UnreadableDocument as error:
        raise UnreadableDocument(
            "The PDF is broken. Open it in a PDF program, save it again and upload that."
        ) from error
    texts = [page.content.strip() for page in document.pages or ()]
    return _Read(texts=texts or [document.content.strip()], metadata=_xberg.properties(document))


def _recognise(source: Source, read: _Read, settings: _ocr.OcrSettings) -> None:
    """Put what is recognised into ``read``: of the pages that show something but have no text, or of all."""
    if settings.ocr == "off" or not (read.drawn or settings.ocr == "force"):
        return
    read.lacking = _ocr.missing(settings)
    if settings.ocr == "force":
        waiting, found = len(read.texts), _from_pictures(source.content, len(read.texts), settings)
    elif read.lacking:
        return
    else:
        waiting, found = len(read.drawn), _from_pages(source.content, read.drawn, settings)
    source.report(len(read.texts) - waiting, len(read.texts))
    for number, text in found:
        waiting -= 1
        source.report(len(read.texts) - waiting, len(read.texts))
        if text:
            read.texts[number - 1] = text
            read.recognised.append(number)


def _from_pages(
    content: bytes, numbers: Sequence[int], settings: _ocr.OcrSettings
) -> Iterator[tuple[int, str]]:
    from liteparse import ParseError

    for first in range(0, len(numbers), _BATCH):
        batch = ",".join(map(str, numbers[first : first + _BATCH]))
        try:
            pages = _ocr.recognise(content, settings, pages=batch)
        except ParseError:  # the other pages have been read
            continue
        for page in pages:
            yield page.page_num, _ocr.text_of(page)


def _from_pictures(content: bytes, count: int, settings: _ocr.OcrSettings) -> Iterator[tuple[int, str]]:
    """Of pages that have text, which liteparse would take instead of what is seen."""
    from liteparse import LiteParse

    for first in range(1, count + 1, _BATCH):
        last = min(first + _BATCH - 1, count)
        parser = LiteParse(
            ocr_enabled=False,
            extract_screenshots=True,
            target_pages=f"{first}-{last}",
            num_workers=1,
            quiet=True,
        )
        for picture in parser.parse(content).screenshots:
            if not picture.is_solid_fill:
                yield picture.page_num, _ocr.recognise_picture(picture.image_bytes, settings)


def _why_empty(read: _Read, settings: _ocr.OcrSettings) -> str:
    if read.lacking:
        return f"The PDF has no text; it is probably scanned. {read.lacking}"
    if settings.ocr == "off":
        return "The PDF has no text; it is probably scanned. Run text recognition (OCR) and upload that."
    return "The PDF has no text, and text recognition (OCR) found none in its pages. Check the file."


def _joined(read: _Read, settings: _ocr.OcrSettings) -> Converted:
    """One markdown; a page without text begins where the next text begins."""
    starts, parts, offset = [], [], 0
    for text in read.texts:
        starts.append(offset)
        if text:
            parts.append(text)
            offset += len(text) + len(_PAGE_BREAK)
    markdown = _PAGE_BREAK.join(parts)
    starts = [min(start, len(markdown)) for start in starts]
    return Converted(
        markdown=markdown,
        pages=tuple(Page(number=number, start=start) for number, start in enumerate(starts, start=1)),
        metadata={**read.metadata, "page_count": len(read.texts)},
        warnings=tuple(_warnings(read, settings)),
        images=tuple(
            image.model_copy(update={"offset": starts[number - 1] + min(place, len(read.texts[number - 1]))})
            for number, place, image in read.images
        ),
    )


def _warnings(read: _Read, settings: _ocr.OcrSettings) -> Iterator[str]:
    if read.recognised:
        yield f"The text of {_enumeration(read.recognised)} was recognised (OCR) and may have mistakes."
    empty = [number for number, text in enumerate(read.texts, start=1) if not text]
    if empty and read.lacking:
        yield f"No text on {_enumeration(empty)}. {read.lacking}"
    elif empty and settings.ocr == "off":
        yield f"No text on {_enumeration(empty)}; if scanned, run text recognition (OCR)."
    elif empty:
        yield f"No text on {_enumeration(empty)}."


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


def _information(content: bytes) -> tuple[int, dict[str, str]]:
    """The number of pages; title, author, subject and keywords of the document information dictionary.

    liteparse does not tell the one beforehand and the others at all, but the PDFium that it brings does
    (``FPDF_GetPageCount``, ``FPDF_GetMetaText``). Of what it cannot open: 0 and nothing.
    """
    import liteparse

    libraries: Iterable[Path] = Path(liteparse.__file__).parent.glob("*pdfium.*")
    library = next(iter(libraries), None)
    if library is None:
        return 0, {}
    pdfium = ctypes.CDLL(str(library))
    pdfium.FPDF_InitLibrary()
    pdfium.FPDF_LoadMemDocument64.restype = ctypes.c_void_p
    pdfium.FPDF_LoadMemDocument64.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p]
    pdfium.FPDF_GetMetaText.restype = ctypes.c_ulong
    pdfium.FPDF_GetMetaText.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p, ctypes.c_ulong]
    pdfium.FPDF_GetPageCount.argtypes = [ctypes.c_void_p]
    pdfium.FPDF_CloseDocument.argtypes = [ctypes.c_void_p]
    document = pdfium.FPDF_LoadMemDocument64(content, len(content), None)
    if not document:
        return 0, {}
    count = max(0, pdfium.FPDF_GetPageCount(document))
    found = {}
    for key, tag in _TAGS.items():
        buffer = ctypes.create_string_buffer(2048)
        size = pdfium.FPDF_GetMetaText(document, tag, buffer, len(buffer))
        if 2 < size <= len(buffer):
            found[key] = buffer.raw[: size - 2].decode("utf-16-le", errors="replace").strip()
    pdfium.FPDF_CloseDocument(document)
    return count, {key: value for key, value in found.items() if value}
