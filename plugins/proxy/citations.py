"""Numbers of passages, and what the numbers in an answer point to."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from plugins.core.passages import place
from plugins.core.ports import Passage

CITATION = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]")
OPEN = re.compile(r"\[[\d,\s]{0,40}$")
"""The end of a text that may be the beginning of a citation."""


class Cited(NamedTuple):
    number: int
    start: int
    """Of its brackets in the text, in characters."""
    end: int


class Citations:
    """The passages that the model has seen in this conversation, numbered over all rounds.

    Args:
        base_url: Where people's browsers reach this proxy.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._passages: dict[int, Passage] = {}

    def __contains__(self, number: object) -> bool:
        return number in self._passages

    def number(self, passages: Sequence[Passage]) -> list[int]:
        """Their numbers, in order of first appearance; the same passage keeps its number."""
        numbers = []
        for passage in passages:
            key = (
                passage.collection_id,
                passage.document_id,
                passage.headings,
                passage.page_first,
                passage.page_last,
                passage.text,
            )
            number = self._numbers.setdefault(key, len(self._numbers) + 1)
            self._passages.setdefault(number, passage)
            numbers.append(number)
        return numbers

    def cited(self, text: str) -> Iterator[Cited]:
        """The citations in ``text`` of passages that exist, in their order."""
        for match in CITATION.finditer(text):
            for number in dict.fromkeys(int(part) for part in match[1].split(",")):
                if number in self._passages:
                    yield Cited(number, match.start(), match.end())

    def annotations(self, text: str) -> list[dict[str, Any]]:
        """OpenAI's annotations of type `url_citation`, one for each citation in ``text`` that can be opened.

        https://platform.openai.com/docs/api-reference/chat/object (``message.annotations``)
        """
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": cited.start,
                    "end_index": cited.end,
                    "title": place(self._passages[cited.number]),
                    "url": url,
                },
            }
            for cited in self.cited(text)
            if (url := self.url(self._passages[cited.number])) is not None
        ]

    def search_results(self, text: str) -> list[dict[str, Any]]:
        """The passages that ``text`` cites, by their numbers."""
        return [
            {
                "number": number,
                "id": passage.document_id,
                "collection": passage.collection,
                "filename": passage.filename,
                "title": passage.title,
                "headings": list(passage.headings),
                "page_first": passage.page_first,
                "page_last": passage.page_last,
                "score": passage.score,
                "url": self.url(passage),
                "text": passage.text,
            }
            for number in sorted({cited.number for cited in self.cited(text)})
            for passage in [self._passages[number]]
        ]

    def url(self, passage: Passage) -> str | None:
        """Opens the document at the passage's page; None where there is no document here and its source is
        not an address of the web."""
        if passage.source is not None:
            return passage.source if passage.source.startswith(("https://", "http://")) else None
        collection, document = quote(passage.collection_id, safe=""), quote(passage.document_id, safe="")
        url = f"{self._base_url}/v1/collections/{collection}/documents/{document}/content"
        return url if passage.page_first is None else f"{url}#page={passage.page_first}"

    def source_event(self, number: int) -> dict[str, Any]:
        """A passage as Open WebUI's `source` event.

        Its id is not an address: Open WebUI would show the address and ask a public service for its icon.
        """
        passage = self._passages[number]
        source_id = f"{passage.document_id}#{number}"
        metadata: dict[str, Any] = {"source": source_id, "name": place(passage)}
        if passage.page_first is not None:
            metadata["page"] = passage.page_first - 1
        source = {"id": source_id, "name": place(passage)}
        if (url := self.url(passage)) is not None:
            source["url"] = url
        data = {
            "source": source,
            "document": [passage.text],
            "metadata": [metadata],
            "distances": [passage.score],
        }
        return {"type": "source", "data": data}


class Renumber:
    """Rewrites the numbers of a streamed text to 1, 2, ... in the order in which they are first cited.

    Open WebUI numbers sources by the order of their events, so only thus its ``[n]`` find the sources
    when an answer cites the third passage alone. A number without a passage stays as it is.

    Args:
        known: Whether there is a passage of this number.
    """

    def __init__(self, known: Callable[[int], bool]) -> None:
        self._known = known
        self._held = ""
        self.order: list[int] = []
        """The passages' numbers; the first is ``[1]`` in the rewritten text."""

    def feed(self, text: str) -> str:
        """What can be shown after ``text``; the beginning of a citation is held back."""
        text = self._held + text
        opening = OPEN.search(text)
        self._held = text[opening.start() :] if opening else ""
        return CITATION.sub(self._renumbered, text[: len(text) - len(self._held)])

    def rest(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held

    def _renumbered(self, match: re.Match[str]) -> str:
        numbers = [int(part) for part in match[1].split(",")]
        for number in numbers:
            if self._known(number) and number not in self.order:
                self.order.append(number)
        return "".join(f"[{self.order.index(n) + 1 if n in self.order else n}]" for n in numbers)


def status_event(description: str, *, done: bool) -> dict[str, Any]:
    """A line above the answer in Open WebUI."""
    return {"type": "status", "data": {"description": description, "done": done}}
