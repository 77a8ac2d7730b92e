"""The sentences of passages that share the most words with a question."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MAX_QUOTES = 3
GOOD_ENOUGH = 0.75
"""Share of the best sentence's score from which another one is quoted as well."""
PLACE_WEIGHT = 0.5
"""What a word is worth that stands in the headings over a sentence."""

WORD = re.compile(r"[^\W_]+")
SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[^\W_a-z]|[\"'(])")
MAX_LABEL = 200
"""Characters of a column's name: it is repeated for each row."""
RULE = re.compile(r"\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?")
STOP_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about all am an and any are as at be been by can could did do does for from had has have "
        "how i if in into is it its many may me much must my no not of on or our please shall "
        "should so tell than that the their them then there these they this to us was we were what "
        "when where which who whom why will with would you your",
    )
)


class Sentence(NamedTuple):
    number: int
    """Of its passage."""
    text: str
    words: frozenset[str]
    place: frozenset[str]
    """Words of the headings over it."""


def quotes(question: str, passages: Sequence[tuple[int, str, str]]) -> str:
    """One to three sentences, each followed by its ``[n]``; empty when none shares a word.

    Args:
        question: What was asked.
        passages: Number, place (title and headings) and markdown of each, best first.
    """
    asked = words(question) - STOP_WORDS or words(question)
    found = [s for number, place, text in passages for s in sentences(number, place, text)]
    frequency = Counter(word for sentence in found for word in sentence.words & asked)
    weight = {word: 1 + math.log((1 + len(found)) / (1 + frequency[word])) for word in asked}

    def score(sentence: Sentence) -> float:
        own = sentence.words & asked
        above = (sentence.place & asked) - own
        if not own:
            return 0.0
        return sum(weight[w] for w in sorted(own)) + PLACE_WEIGHT * sum(weight[w] for w in sorted(above))

    scored = [(score(sentence), sentence) for sentence in found]
    scored.sort(key=lambda pair: -pair[0])
    chosen: dict[str, Sentence] = {}
    for points, sentence in scored:
        if points > 0 and points >= GOOD_ENOUGH * scored[0][0] and len(chosen) < MAX_QUOTES:
            chosen.setdefault(sentence.text, sentence)
    return " ".join(f"{text} [{sentence.number}]" for text, sentence in chosen.items())


def words(text: str) -> frozenset[str]:
    """Lower-case words, a plural's `s` removed."""
    found = WORD.findall(text.lower())
    return frozenset(w[:-1] if len(w) > 3 and w.endswith("s") and not w.endswith("ss") else w for w in found)


def sentences(number: int, place: str, markdown: str) -> Iterator[Sentence]:
    """Sentences of prose, items of lists, and rows of tables as ``header: value, header: value``."""
    above = words(place)
    for text in blocks(markdown):
        if text.startswith("#"):
            above = words(place) | words(text)
            continue
        # What looks like a citation inside a quotation is not one.
        text = re.sub(r"\[(\d+)\]", r"(\1)", text)
        yield Sentence(number, text, words(text), above)


def blocks(markdown: str) -> Iterator[str]:
    """Headings (with their `#`), sentences, list items and table rows, in their order."""
    prose: list[str] = []
    header: list[str] | None = None
    lines = [*markdown.splitlines(), ""]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        row = line.strip()
        is_table = row.startswith("|") or (header is not None and "|" in row)
        if is_table or row.startswith("#") or not row or re.match(r"([-*+]|\d+[.)])\s", row):
            yield from split(prose)
            prose = []
        if not is_table:
            header = None
        if row.startswith("#"):
            yield row
        elif is_table and header is None and RULE.fullmatch(following.strip()):
            header = [cell[:MAX_LABEL] for cell in cells(row)]
        elif is_table and header is not None and not RULE.fullmatch(row):
            yield labelled(header, cells(row))
        elif is_table and header is None:
            yield ", ".join(cell for cell in cells(row) if cell)
        elif row and not is_table:
            prose.append(re.sub(r"^([-*+]|\d+[.)])\s+", "", row))
    yield from split(prose)


def split(prose: Sequence[str]) -> Iterator[str]:
    text = re.sub(r"\*\*|__|`", "", " ".join(prose))
    yield from (sentence.strip() for sentence in SENTENCE_END.split(text) if sentence.strip())


def cells(row: str) -> list[str]:
    return [re.sub(r"\*\*|__|`", "", cell).strip() for cell in row.strip("|").split("|")]


def labelled(header: Sequence[str], values: Sequence[str]) -> str:
    pairs = [(name, value) for name, value in zip(header, values, strict=False) if value]
    return ", ".join(f"{name}: {value}" if name else value for name, value in pairs)
