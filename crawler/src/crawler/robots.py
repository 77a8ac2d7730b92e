"""The robots exclusion protocol: what a site lets programs fetch.

Source: RFC 9309. ``urllib.robotparser`` knows no wildcards and takes the first rule instead of the longest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

MAX_BYTES = 512 * 2**10
"""Of a robots.txt; what is beyond is not read (RFC 9309, 2.5: at least 500 KiB are)."""
MAX_RULES = 10_000


@dataclass(frozen=True)
class Rule:
    pattern: str
    allows: bool


class Robots:
    """The rules of one site for one program.

    Args:
        text: The site's robots.txt.
        agent: The program's product token, in any case.
    """

    def __init__(self, text: str, agent: str) -> None:
        self._rules = _rules_for(text, agent.lower())

    def allows(self, path: str) -> bool:
        """Whether the program may fetch this path (with its query): the longest rule that matches decides,
        of two as long the one that allows; without any it may."""
        if path == "/robots.txt":
            return True
        path = _normal(path)
        matching = [rule for rule in self._rules if _matches(rule.pattern, path)]
        return max(((len(rule.pattern), rule.allows) for rule in matching), default=(0, True))[1]


def _rules_for(text: str, agent: str) -> list[Rule]:
    """Those of the groups that name the agent; of the groups for all (``*``) where none does."""
    groups: dict[str, list[Rule]] = {}
    current: list[str] = []
    naming = False
    for name, value in _lines(text):
        if name == "user-agent":
            token = "*" if value == "*" else (re.match(r"[a-zA-Z_-]*", value) or [""])[0].lower()
            current = [*current, token] if naming else [token]
            groups.setdefault(token, [])
            naming = True
        elif name in ("allow", "disallow"):
            naming = False
            for token in current:
                if value and len(groups[token]) < MAX_RULES:
                    groups[token].append(Rule(_normal(value), allows=name == "allow"))
    return groups.get(agent, groups.get("*", []))


def _lines(text: str) -> Iterable[tuple[str, str]]:
    for line in text.removeprefix("\ufeff").splitlines():
        name, colon, value = line.partition("#")[0].partition(":")
        if colon:
            yield name.strip().lower(), value.strip()


def _normal(path: str) -> str:
    """In one spelling: what may stand bare is not percent-encoded, and all else is (RFC 9309, 2.2.2)."""
    return quote(
        unquote(path, errors="surrogateescape"), safe="/?&=*$:@!'(),;+~-._", errors="surrogateescape"
    )


def _matches(pattern: str, path: str) -> bool:
    """``*`` is any text, ``$`` at the end the end; in linear time, since a stranger wrote the pattern."""
    anchored = pattern.endswith("$")
    first, *others = pattern.removesuffix("$").split("*")
    if not path.startswith(first):
        return False
    at = len(first)
    if anchored and not others:
        return at == len(path)
    last = others.pop() if anchored else ""
    for part in others:
        found = path.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return not anchored or (len(path) - len(last) >= at and path.endswith(last))
