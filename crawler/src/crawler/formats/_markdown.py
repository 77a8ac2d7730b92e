"""Parts of documents as Markdown, for the formats that we read ourselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crawler.contracts import Converted, Image, Page
from crawler.filenames import printable

_ACTIVE = str.maketrans({mark: f"\\{mark}" for mark in "\\[]<>`|"})
_PASSIVE = ("http://", "https://", "mailto:", "ftp://")
MAX_IMAGES = 200
"""Of one document; more are counted and left out."""


class Writer:
    """Markdown in the making: blocks, and where pages begin and pictures stand."""

    def __init__(self, *, with_images: bool) -> None:
        self._parts: list[str] = []
        self._length = 0
        self._with_images = with_images
        self.pages: list[Page] = []
        self.images: list[Image] = []
        self.image_count = 0
        self.table_count = 0

    @property
    def is_empty(self) -> bool:
        return not self._parts

    def block(self, text: str, *, tight: bool = False) -> int:
        """Add a block and tell its offset; ``tight`` ones stand on the next line, as items of a list do."""
        if not text.strip():
            return self._length
        before = "" if not self._parts else "\n" if tight else "\n\n"
        self._parts += [before, text]
        self._length += len(before) + len(text)
        return self._length - len(text)

    def heading(self, level: int, text: str) -> None:
        text = " ".join(text.split())
        if text:
            self.block(f"{'#' * min(max(level, 1), 6)} {text}")

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table whose first row is its header; rows without any text are left out."""
        texts = ([" ".join(cell.split()) for cell in row] for row in rows)
        kept = [row for row in texts if any(row)]
        if not kept:
            return
        width = max(map(len, kept))
        lines = [table_row([*row, *[""] * (width - len(row))]) for row in kept]
        lines.insert(1, "|" + " --- |" * width)
        self.table_count += 1
        self.block("\n".join(lines))

    def page(self) -> None:
        """The next page begins here: with the next block."""
        start = self._length + 2 if self._parts else 0
        self.pages.append(Page(number=len(self.pages) + 1, start=start))

    def image(self, media_type: str, content: bytes | None, offset: int | None = None) -> None:
        """A picture stands at ``offset``, by default here."""
        self.image_count += 1
        if content and self._with_images and len(self.images) < MAX_IMAGES:
            place = self._length if offset is None else offset
            self.images.append(Image(offset=place, media_type=media_type, content=content))

    def converted(self, properties: Mapping[str, Any], **counts: int) -> Converted:
        """All that was written, with the file's properties and the counts of what it has.

        Pages after the last text begin at its end.
        """
        counts |= {"table_count": self.table_count, "image_count": self.image_count}
        return Converted(
            markdown="".join(self._parts),
            pages=tuple(
                page.model_copy(update={"start": min(page.start, self._length)}) for page in self.pages
            ),
            images=tuple(self.images),
            metadata={**properties, **{key: count for key, count in counts.items() if count}},
        )


def table_row(cells: Iterable[str]) -> str:
    """A line of a table (https://github.github.com/gfm/#tables-extension-), of cells in one line each."""
    escaped = [cell.replace("|", "\\|") if "|" in cell else cell for cell in cells]
    return f"| {' | '.join(escaped)} |"


def as_markdown(text: str) -> str:
    """The text, in one line, as Markdown that shows it and does nothing."""
    return printable(text).translate(_ACTIVE)


def link(text: str, address: str) -> str:
    """A link, where its address is one to a page, a file or a mail box; else its text."""
    label = " ".join(text.split())
    if not label or not address.lower().startswith(_PASSIVE):
        return text
    target = address.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
    return f"[{label}]({target})"
