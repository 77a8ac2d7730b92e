"""Documents that are the same in each run."""

from __future__ import annotations

import random
from functools import cache

from tests.unit.crawler.samples import pdf

_TEXT = """
the of and to in is that it for was on are with as his they at be this from have or by one had not
but what all were when we there can an your which their said if do will each about how up out them
then she many some so these would other into has more her two like him see time could no make than
first been its who now people my made over did down only way find use may water long little very
after words called just where most know contract notice period employee company report revenue
market leave travel policy
"""
WORDS = _TEXT.split()
LINES, WORDS_PER_LINE = 44, 11


@cache
def report(seed: int, pages: int) -> bytes:
    """A PDF of full pages, each with a heading."""
    chance = random.Random(seed)  # noqa: S311 - the same text in each run
    made = []
    for number in range(pages):
        lines = [(18, 72, 740, f"Section {number} of report {seed}")]
        lines += [(10, 72, 715 - 15 * n, sentence(chance)) for n in range(LINES)]
        made.append(lines)
    return pdf(made)


def note(seed: int, sections: int = 1, words: int = 120) -> bytes:
    """A Markdown note; each section is a passage."""
    chance = random.Random(seed)  # noqa: S311 - the same text in each run
    parts = [f"# Note {seed}\n\nIts word is note{seed}end."]
    parts += [f"## Part {n}\n\n{' '.join(chance.choices(WORDS, k=words))}." for n in range(sections)]
    return "\n\n".join(parts).encode()


def sentence(chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=WORDS_PER_LINE)).capitalize() + "."
