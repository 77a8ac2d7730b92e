"""Text recognition: the Tesseract inside liteparse, with the language data that the machine has.

Nothing is downloaded: liteparse would fetch data that is missing, so that it is only asked when all is there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, StringConstraints

from crawler.errors import UnreadableDocument
from crawler.settings import Settings

if TYPE_CHECKING:
    from liteparse import ParsedPage

TESSDATA_PREFIX = "TESSDATA_PREFIX"
"""Tesseract's own environment variable: the folder of its language data, where it is none of those below."""
TESSDATA_FOLDERS = (
    "/usr/share/tesseract-ocr/5/tessdata",
    "/usr/share/tesseract-ocr/4.00/tessdata",
    "/usr/share/tessdata",
    "/usr/share/tesseract/tessdata",
    "/usr/local/share/tessdata",
    "/opt/homebrew/share/tessdata",
)
"""Where Debian and Ubuntu, Alpine and Arch, Fedora, builds from source and Homebrew put it."""
MAX_PAGES = 20_000
"""liteparse stops silently at this many pages, and at 1,000 when not told; more than any limit allows."""

Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_]{1,30}$")]


class OcrSettings(Settings):
    """Whether text in pictures is recognised, and in which languages."""

    ocr: Literal["auto", "off", "force"] = "auto"
    """``auto``: pages without text of their own. ``force``: every page, anew. ``off``: none."""
    ocr_languages: tuple[Language, ...] = Field(default=("eng",), min_length=1, max_length=8)
    """Names of Tesseract's language data, the most frequent language first (``[deu, eng]``)."""


def tessdata() -> Path | None:
    """The folder of Tesseract's language data; None where there is none."""
    given = os.environ.get(TESSDATA_PREFIX)
    folders = (given, f"{given}/tessdata") if given else TESSDATA_FOLDERS
    return next((path for path in map(Path, folders) if any(path.glob("*.traineddata"))), None)


def missing(settings: OcrSettings) -> str | None:
    """What has to be installed before text can be recognised, in words; None when all is there."""
    folder = tessdata()
    lacking = [
        name for name in settings.ocr_languages if not (folder and (folder / f"{name}.traineddata").is_file())
    ]
    if not lacking:
        return None
    packages = " ".join(f"tesseract-ocr-{name.lower().replace('_', '-')}" for name in lacking)
    return (
        f"Text recognition needs Tesseract's data for {', '.join(lacking)} on the server: "
        f"apt-get install tesseract-ocr {packages}. Then upload the file again."
    )


def recognise(content: bytes, settings: OcrSettings, pages: str | None = None) -> list[ParsedPage]:
    """The text of a PDF's pages, or of a picture as one page.

    Args:
        content: PDF, PNG, JPEG, GIF, BMP, WebP or TIFF (its first page).
        settings: Of which the languages are used.
        pages: Which of a PDF's pages, such as ``1,3,7-9``; None = all.

    Raises:
        UnreadableDocument: The language data is missing; the message says what to install.
        liteparse.ParseError: The file is broken.
    """
    from liteparse import LiteParse

    if lacking := missing(settings):
        raise UnreadableDocument(lacking)
    parser = LiteParse(
        ocr_enabled=True,
        ocr_language="+".join(settings.ocr_languages),
        tessdata_path=str(tessdata()),
        output_format="markdown",
        image_mode="off",
        target_pages=pages,
        max_pages=MAX_PAGES,
        num_workers=1,
        quiet=True,
    )
    return list(parser.parse(content).pages)


def recognise_picture(content: bytes, settings: OcrSettings) -> str:
    """The text of a picture; empty where there is none. Raises as :func:`recognise` does."""
    return "\n\n".join(filter(None, map(text_of, recognise(content, settings))))


def drawn(content: bytes) -> bytes:
    """A picture of any kind that :func:`recognise` takes, as PNG.

    Raises:
        liteparse.ParseError: It is broken.
    """
    from liteparse import LiteParse

    parser = LiteParse(ocr_enabled=False, extract_screenshots=True, num_workers=1, quiet=True)
    picture: bytes = parser.parse(content).screenshots[0].image_bytes
    return picture


def text_of(page: ParsedPage) -> str:
    """The page's markdown; empty where it has no text, which comes as an empty code block."""
    return page.markdown.strip() if page.text.strip() else ""
