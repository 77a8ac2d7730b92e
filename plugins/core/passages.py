"""Passages as a model reads them: numbered, with their place, fenced as data."""

from __future__ import annotations

from collections.abc import Sequence

from plugins.core.ports import Passage


def place(passage: Passage) -> str:
    """Title, heading path and page: ``Handbook > Leave (page 3)``."""
    headings = [h for h in passage.headings if h != passage.title]
    # In one line: what a file calls itself must not leave the place that we give it.
    text = " > ".join(" ".join(part.split()) for part in (passage.title, *headings))
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
        fence = "```"
        while fence in passage.text:
            fence += "`"
        opening = f"{fence}passage document_id={passage.document_id}"
        blocks.append(f"[{number}] {place(passage)}\n{opening}\n{passage.text}\n{fence}")
    return "\n\n".join(blocks)
