"""The one place that knows xberg, which reads several kinds of files.

Bytes only, never an address: given a URI it would fetch it.
"""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

from crawler.contracts import Converted, Image, Page
from crawler.errors import DocumentTooLarge, UnreadableDocument

if TYPE_CHECKING:
    from xberg import ExtractedDocument

_LIMITS = {
    "max_archive_size": 256 * 2**20,
    "max_compression_ratio": 100,
    "max_files_in_archive": 5_000,
    "max_nesting_depth": 256,
    "max_entity_length": 2**20,
    "max_content_size": 64 * 2**20,
    "max_iterations": 10_000_000,
    "max_xml_depth": 256,
    "max_table_cells": 500_000,
}
_ACTIVE_LINK = re.compile(
    r"!?\[([^\[\]\n]{0,2000})\]\(\s*+<?\s*+(?:javascript|vbscript|data):(?:[^()\n]|\([^()\n]*\))*\)",
    re.IGNORECASE,
)
_PLACE_OF_IMAGE = re.compile(r"!\[([^\[\]\n]{0,2000})\]\(image_(\d{1,6})\.\w{1,5}\)")
_NO_ALT_TEXT = re.compile(r"image|picture|\S+\.\w{3,4}", re.IGNORECASE)
"""What programs put where the author gave no alternative text: a word, or the file's name."""
_BLOCKS = (
    "p|h[1-6]|div|table|t[dhr]|thead|tbody|tfoot|[ou]l|li|d[dlt]|pre|blockquote|hr|section|article|main"
    "|body|html"
)
_SPACES = (
    r"\s++|&(?:nbsp|[ne]msp|ensp|thinsp|hairsp|puncsp|numsp"
    r"|#0*(?:9|10|13|32|160|8\d{3})|#x0*(?:9|a|d|20|a0|20[0-9a-f]{2}|3000));"
)
_EMPTY_PARAGRAPH = re.compile(
    rf"(<(?:p|h[1-6])(?:\s[^<>]*)?>)((?:{_SPACES}|<(?!/?(?:{_BLOCKS})\b)[^<>]*>)*+)(?=</?(?:{_BLOCKS})\b|\Z)",
    re.IGNORECASE,
)
_TAG = re.compile(r"<[^<>]*>")
MAX_IMAGES = 200
"""Of one document; more are counted and left out."""


def extract(content: bytes, media_type: str, filename: str, *, pages: bool = False) -> ExtractedDocument:
    """Read the bytes as ``media_type`` into Markdown; no OCR, no cache, no network.

    Raises:
        UnreadableDocument: xberg refuses the file; its own words are the cause.
        DocumentTooLarge: It trips one of xberg's security limits.
    """
    import xberg

    config = xberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,
        output_format="markdown",
        images=xberg.ImageExtractionConfig(
            extract_images=True, inject_placeholders=True, run_ocr_on_images=False
        ),
        html_options=xberg.ConversionOptions(
            extract_metadata=False, inline_data_media="alt_text_only", compact_tables=True
        ),
        pages=xberg.PageConfig(extract_pages=True) if pages else None,
        security_limits=xberg.SecurityLimits(**_LIMITS),
    )
    source = xberg.ExtractInput(kind="bytes", bytes=content, mime_type=media_type, filename=filename)
    try:
        result = asyncio.run(xberg.extract(source, config))
    except (xberg.exceptions.XbergError, RuntimeError) as error:  # the plain one for a broken file
        if "security limit" in str(error).lower():
            raise DocumentTooLarge from error
        raise UnreadableDocument from error
    if not result.results:
        raise UnreadableDocument
    return result.results[0]


def html_to_markdown(text: str) -> str:
    """The body of a web page, without scripts, styles, navigation and active links.

    Raises:
        UnreadableDocument: xberg refuses it.
        DocumentTooLarge: It trips one of xberg's security limits.
    """
    # A paragraph or heading of nothing but white space and pictures makes xberg panic (1.3.9).
    text = _EMPTY_PARAGRAPH.sub(lambda match: match[1] + "".join(_TAG.findall(match[2])), text)
    return active_links_as_text(extract(text.encode(), "text/html", "document.html").content)


def converted(document: ExtractedDocument, *, with_images: bool) -> Converted:
    """The document as Markdown, with its properties and the offsets of its pages, where it has them."""
    markdown, images, count = _without_places(document, with_images)
    metadata = properties(document)
    if count:
        metadata["image_count"] = count
    texts = [_PLACE_OF_IMAGE.sub(_alternative, page.content).strip() for page in document.pages or ()]
    return Converted(markdown=markdown, pages=_pages(markdown, texts), images=images, metadata=metadata)


def _without_places(document: ExtractedDocument, with_images: bool) -> tuple[str, tuple[Image, ...], int]:
    """The Markdown with alternative texts in place of pictures, the pictures, and how many there are."""
    markdown = active_links_as_text(document.content)
    pictures = {image.image_index: image for image in document.images or ()}
    parts: list[str] = []
    images: list[Image] = []
    done = length = count = 0
    for match in _PLACE_OF_IMAGE.finditer(markdown):
        parts += [markdown[done : match.start()], _alternative(match)]
        length += len(parts[-2])
        picture = pictures.get(int(match[2]))
        if with_images and picture and len(images) < MAX_IMAGES:
            images.append(Image(offset=length, media_type=f"image/{picture.format}", content=picture.data))
        length += len(parts[-1])
        done = match.end()
        count += 1
    return "".join([*parts, markdown[done:]]), tuple(images), count


def _alternative(match: re.Match[str]) -> str:
    text = match[1].strip()
    return "" if _NO_ALT_TEXT.fullmatch(text) else text


def _pages(markdown: str, texts: list[str]) -> tuple[Page, ...]:
    """Where each page's text stands in the markdown; none where one is not found, rather than wrong ones."""
    pages: list[Page] = []
    offset = 0
    for number, text in enumerate(texts, start=1):
        start = markdown.find(text, offset)
        offset = start + len(text)
        if start < 0:  # its table or list goes on from the page before: at least its first line
            offset = start = markdown.find(text.partition("\n")[0], pages[-1].start if pages else 0)
        if start < 0:
            return ()
        pages.append(Page(number=number, start=start))
    return tuple(pages)


def active_links_as_text(markdown: str) -> str:
    """Links that run something when clicked, reduced to their text, and data that stands in links left out.

    For reading: what makes links harmless, in every spelling, is :mod:`crawler.links`, whatever the format.
    """
    return _ACTIVE_LINK.sub(r"\1", markdown)


def properties(document: ExtractedDocument) -> dict[str, Any]:
    """The file's own properties, under the names of :class:`crawler.contracts.Converted`."""
    found = document.metadata
    metadata = {
        "title": found.title,
        "author": ", ".join(found.authors or ()),
        "subject": found.subject,
        "keywords": ", ".join(found.keywords or ()),
        "language": found.language,
        "created_at": found.created_at,
        "modified_at": found.modified_at,
    }
    return {key: value for key, value in metadata.items() if value}
