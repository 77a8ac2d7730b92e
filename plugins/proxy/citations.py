"""Numbers of passages, and what the numbers in an answer point to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from plugins.core.passages import place
from plugins.core.ports import Passage

CITATION = re.compile(r"\[(\d{1,4}(?:\s*,\s*\d{1,4})*)\]")
OPEN = re.compile(r"\[[\d,\s]{0,40}$")
"""The end of a text that may be the beginning of a citation."""


class Span(NamedTuple):
    """A citation in the client's text."""

    number: int
    """As the client sees it, from 1."""
    start: int
    """Of its brackets, in characters."""
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

    def __len__(self) -> int:
        return len(self._passages)

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

    def __getitem__(self, number: int) -> Passage:
        return self._passages[number]

    def annotations(self, cited: Sequence[Passage], spans: Sequence[Span]) -> list[dict[str, Any]]:
        """OpenAI's annotations of type `url_citation`, one for each citation that can be opened.

        https://platform.openai.com/docs/api-reference/chat/object (``message.annotations``)
        """
        return [
            {
                "type": "url_citation",
                "url_citation": {
                    "start_index": span.start,
                    "end_index": span.end,
                    "title": place(cited[span.number - 1]),
                    "url": url,
                },
            }
            for span in spans
            if (url := self.url(cited[span.number - 1])) is not None
        ]

    def search_results(self, cited: Sequence[Passage]) -> list[dict[str, Any]]:
        """The cited passages, by their numbers in the client's text."""
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
            for number, passage in enumerate(cited, 1)
        ]

    def url(self, passage: Passage) -> str | None:
        """Opens the document at the passage's page; None where there is no document here and its source is
        not an address of the web."""
        if passage.source is not None:
            return passage.source if passage.source.startswith(("https://", "http://")) else None
        collection, document = quote(passage.collection_id, safe=""), quote(passage.document_id, safe="")
        url = f"{self._base_url}/v1/collections/{collection}/documents/{document}/content"
        return url if passage.page_first is None else f"{url}#page={passage.page_first}"


class CitedText:
    """The answer's text on its way to the client: its citations are numbered 1, 2, ... in the order of their
    first use, and a number that no passage has is left out.

    Args:
        citations: The passages that the model was given.
    """

    def __init__(self, citations: Citations) -> None:
        self._citations = citations
        self._held = ""
        self._sent = 0
        self._last = ""
        self._order: list[int] = []
        self.spans: list[Span] = []
        """Of the client's text, in characters."""

    @property
    def cited(self) -> tuple[Passage, ...]:
        """What the text cites; the first is ``[1]``."""
        return tuple(self._citations[number] for number in self._order)

    @property
    def ends_in_a_word(self) -> bool:
        """Whether there is text that more text would run into."""
        last = self._held or self._last
        return bool(last) and not last.endswith(("\n", " "))

    def feed(self, text: str) -> str:
        """What can be shown after ``text``; what may be the beginning of a citation is held back."""
        text = self._held + text
        opening = OPEN.search(text)
        self._held = text[opening.start() :] if opening else ""
        return self._rewritten(text[: len(text) - len(self._held)])

    def rest(self) -> str:
        """What was held back, at the end of the text."""
        held, self._held = self._held, ""
        return self._rewritten(held)

    def _rewritten(self, text: str) -> str:
        pieces: list[str] = []
        end = 0
        for match in CITATION.finditer(text):
            pieces.append(self._counted(text[end : match.start()]))
            for number in dict.fromkeys(int(part) for part in match[1].split(",")):
                if number in self._citations:
                    pieces.append(self._cite(number))
            end = match.end()
        pieces.append(self._counted(text[end:]))
        return "".join(pieces)

    def _cite(self, number: int) -> str:
        if number not in self._order:
            self._order.append(number)
        shown = self._order.index(number) + 1
        start = self._sent
        text = self._counted(f"[{shown}]")
        self.spans.append(Span(shown, start, self._sent))
        return text

    def _counted(self, text: str) -> str:
        self._sent += len(text)
        self._last = text or self._last
        return text
