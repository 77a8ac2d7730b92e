"""Pictures: the text that is recognised in them."""

from __future__ import annotations

from itertools import accumulate

from crawler import images
from crawler.contracts import Converted, Format, Image, Page, Source
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats import _ocr

_MAX_PIXELS = 150_000_000
"""An A3 page at 600 dots per inch has 70 million; each takes up to 8 bytes while it is read."""
_SUFFIXES = {".png", ".jpg", ".jpeg", ".jfif", ".gif", ".bmp", ".tif", ".tiff", ".webp"}
_PAGE_BREAK = "\n\n"
_BROKEN = "The picture is broken. Open it in an image program, save it again and upload that."
_NO_TEXT = "No text was recognised in the picture. If it has some, upload it sharper or larger."
_OFF = "Text recognition (OCR) is turned off here. Write down what the picture says, and upload that."


class Picture(Format[_ocr.OcrSettings]):
    """PNG, JPEG, TIFF with its pages, WebP, BMP, and of GIF the first picture; told by their first bytes."""

    def accepts(self, source: Source) -> bool:
        if images.media_type(source.content) is None:
            return False
        return images.pixels(source.content) is not None or source.suffix in _SUFFIXES

    def convert(self, source: Source) -> Converted:
        """The text of each page. Where pictures are wanted, it may be empty.

        Raises:
            UnreadableDocument: The picture is broken, or has no text that can be recognised.
            DocumentTooLarge: It has more pixels than can be read.
        """
        from liteparse import ParseError

        kind = images.media_type(source.content) or ""
        parts = images.tiff_frames(source.content) if kind == images.TIFF else iter((source.content,))
        lacking = None if self.settings.ocr == "off" else _ocr.missing(self.settings)
        texts, pictures = [], []
        try:
            for part in parts:
                _check_size(part)
                texts.append(self._text(part, lacking))
                if source.with_images:
                    pictures.append(_picture(part, kind))
        except ParseError as error:
            raise UnreadableDocument(_BROKEN) from error
        if not any(texts) and not pictures:
            raise UnreadableDocument(lacking or (_OFF if self.settings.ocr == "off" else _NO_TEXT))
        return _joined(texts, pictures, lacking, paged=kind == images.TIFF)

    def _text(self, picture: bytes, lacking: str | None) -> str:
        if lacking or self.settings.ocr == "off":
            return ""
        return _ocr.recognise_picture(picture, self.settings)


def _check_size(picture: bytes) -> None:
    width, height = images.pixels(picture) or (0, 0)
    if width * height > _MAX_PIXELS:
        raise DocumentTooLarge(
            f"The picture has {width} by {height} pixels. Make it smaller and upload that."
        )


def _picture(content: bytes, kind: str) -> Image:
    """As models take it: TIFF and BMP as PNG."""
    if kind in {images.TIFF, images.BMP}:
        content, kind = _ocr.drawn(content), images.PNG
    return Image(offset=0, media_type=kind, content=content)


def _joined(texts: list[str], pictures: list[Image], lacking: str | None, *, paged: bool) -> Converted:
    markdown = _PAGE_BREAK.join(filter(None, texts))
    lengths = (len(text) + len(_PAGE_BREAK) if text else 0 for text in texts[:-1])
    starts = [min(start, len(markdown)) for start in accumulate(lengths, initial=0)]
    ends = [start + len(text) for start, text in zip(starts, texts, strict=True)]
    read = ["The text was recognised (OCR) and may have mistakes."] if markdown else []
    return Converted(
        markdown=markdown,
        pages=tuple(Page(number=number, start=start) for number, start in enumerate(starts, 1))
        if paged
        else (),
        metadata={"image_count": len(texts), **({"page_count": len(texts)} if paged else {})},
        warnings=(*read, *([lacking] if lacking else [])),
        images=tuple(
            picture.model_copy(update={"offset": end})
            for picture, end in zip(pictures, ends, strict=bool(pictures))
        ),
    )
