"""Numbers of passages, and what the numbers in an answer point to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from plugins.core.passages import cleaned, place
from plugins.core.ports import Passage
from plugins.proxy.citation_marks import MARK, MAX_HELD, OPENED, Mark, MarkScanner, numbers_of

MAX_FOREIGN = 999
"""Higher numbers in brackets are years and the like: ours do not begin above them."""


class Span(NamedTuple):
    """A citation in the client's text."""

    number: int
    """As the client sees it, from 1."""
    start: int
    """Of its brackets, in characters."""
    end: int


class Citations:
    """The passages that the model has seen in this conversation, numbered over all rounds.

    The numbers begin above those that stand in brackets in the conversation or in the passages themselves: a
    number that the model copies from there is then no number of ours.

    Args:
        base_url: Where people's browsers reach this proxy.
    """

    def __init__(self, base_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._numbers: dict[tuple[Any, ...], int] = {}
        self._passages: dict[int, Passage] = {}
        self._highest = 0
        self._foreign = False

    @property
    def active(self) -> bool:
        """Whether numbers in the answer are citations: the model was given passages, or the conversation
        already had some. Else ``[1]`` may be anything, and stays."""
        return bool(self._passages) or self._foreign

    def begin_above(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Number above what stands in brackets in the client's messages, outside of code and links."""
        highest = max((number for text in _texts(messages) for number in _cited_in(text)), default=0)
        self._foreign = highest > 0
        self._highest = max(self._highest, highest)

    @property
    def titles(self) -> dict[str, str]:
        """Of the documents that the passages are of, by their ids."""
        return {passage.document_id: passage.title for passage in self._passages.values()}

    def __contains__(self, number: object) -> bool:
        return number in self._passages

    def number(self, passages: Sequence[Passage]) -> list[int]:
        """Their numbers, in order of first appearance; the same passage keeps its number."""
        inside = (_highest(numbers_of(mark)) for p in passages for mark in MARK.finditer(p.text))
        self._highest = max(self._highest, *inside, 0)
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
            if key not in self._numbers:
                self._highest += 1
                self._numbers[key] = self._highest
                self._passages[self._highest] = cleaned(passage)
            numbers.append(self._numbers[key])
        return numbers

    @property
    def given(self) -> dict[int, Passage]:
        """All of them, by the numbers that the model saw."""
        return dict(self._passages)

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
    first use, each in brackets of its own, and a number that no passage has is left out.

    Args:
        citations: The passages that the model was given.
    """

    def __init__(self, citations: Citations) -> None:
        self._citations = citations
        self._scanner = MarkScanner()
        self._sent = 0
        self._last = ""
        """The end of what was sent."""
        self._space = ""
        """A space that is held back: what follows may be left out, and it with that."""
        self._left_out = False
        """The last piece was left out."""
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
        last = self._scanner.held or self._space or self._last
        return bool(last) and not last.endswith(("\n", " "))

    def feed(self, text: str) -> str:
        """What can be shown after ``text``; what may be the beginning of a citation is held back."""
        return "".join(self._shown(piece) for piece in self._scanner.feed(text))

    def rest(self) -> str:
        """What was held back, at the end of the text."""
        held = "".join(self._shown(piece) for piece in self._scanner.feed("", last=True))
        space, self._space = self._space, ""
        return held if self._left_out else held + self._counted(space)

    def _shown(self, piece: str | Mark) -> str:
        if isinstance(piece, str):
            return self._text(piece)
        if not self._citations.active:
            return self._text(piece.text)
        numbers = [number for number in piece.numbers if number in self._citations]
        if not numbers:
            return self._leave_out()
        space = self._freed("[")
        return space + "".join(self._cite(number) for number in numbers)

    def _text(self, text: str) -> str:
        """Text as it is; one space at its end waits for what follows."""
        freed = self._freed(text[0])
        body = text[:-1] if text[-1] in " \t" else text
        self._space = text[len(body) :]
        return freed + self._counted(body)

    def _freed(self, following: str) -> str:
        """The space that was held back, unless what it led to was left out."""
        space, self._space = self._space, ""
        if self._left_out:
            self._left_out = False
            if following in " \t\n.,;:!?)":
                space = ""
            elif following in "`~" and self._last.endswith(following):
                space = " "  # two runs must not become one
        return self._counted(space)

    def _leave_out(self) -> str:
        # What stands around it must become neither a citation, `[1[9]]`, nor a link, `[x]([9]data:...)`.
        before = self._last + self._space
        if OPENED.search(before) or before.endswith("]("):
            return self._freed("[") + self._counted("\u2026")
        self._left_out = True
        return ""

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
        self._last = (self._last + text)[-MAX_HELD:]
        return text


def _texts(messages: Sequence[Mapping[str, Any]]) -> Iterable[str]:
    for message in messages:
        content = message.get("content")
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, dict) else part
            if isinstance(text, str):
                yield text


def _cited_in(text: str) -> Iterable[int]:
    if not MARK.search(text):  # most of a long conversation has none
        return
    for piece in MarkScanner().feed(text, last=True):
        if isinstance(piece, Mark):
            yield _highest(piece.numbers)


def _highest(numbers: Iterable[int]) -> int:
    return max((number for number in numbers if number <= MAX_FOREIGN), default=0)
