"""Passages as a model reads them: numbered, with their place, fenced as data."""

from __future__ import annotations

import re
from collections.abc import Sequence

from plugins.core.ports import Passage

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")
"""All control characters but newline and tab, those that turn the direction of what follows, and the tags of
Unicode: letters that people do not see and models read."""
_OUR_MARK = re.compile(r"<(?=\s*/?\s*documents\b)", re.IGNORECASE)
"""What stands around passages in front of a question: no passage may close it."""


def printable(text: str) -> str:
    """Without control characters, but for newline and tab: a file's text may hold any, and what shows it may
    obey them."""
    return _CONTROL.sub("", text)


def cleaned(passage: Passage) -> Passage:
    """The passage with all that is shown of it printable."""
    shown = {name: printable(getattr(passage, name)) for name in ("collection", "filename", "title", "text")}
    headings = tuple(printable(heading) for heading in passage.headings)
    return passage.model_copy(update={**shown, "headings": headings})


def place(passage: Passage) -> str:
    """Title, heading path and page: ``Handbook > Leave (page 3)``."""
    headings = [h for h in passage.headings if h != passage.title]
    # In one line: what a file calls itself must not leave the place that we give it.
    text = " > ".join(" ".join(printable(part).split()) for part in (passage.title, *headings))
    if passage.page_first is None:
        return text
    last = passage.page_last or passage.page_first
    pages = (
        f"page {passage.page_first}" if last == passage.page_first else f"pages {passage.page_first}-{last}"
    )
    return f"{text} ({pages})"


def render(passages: Sequence[Passage], numbers: Sequence[int] | None = None) -> str:
    """``[n] place``, the document's id and the passage between fences, for each passage.

    Args:
        passages: What was found, best first.
        numbers: Their numbers in this conversation; 1, 2, ... by default.
    """
    blocks = []
    for number, passage in zip(numbers or range(1, len(passages) + 1), passages, strict=True):
        text = _OUR_MARK.sub("&lt;", printable(passage.text))
        fence = "```"
        while fence in text:
            fence += "`"
        # In one line: a key that was made outside may hold anything.
        key = " ".join(printable(passage.document_id).split())
        opening = f"{fence}passage document_id={key}"
        where = _OUR_MARK.sub("&lt;", place(passage))
        blocks.append(f"[{number}] {where}\n{opening}\n{text}\n{fence}")
    return "\n\n".join(blocks)
