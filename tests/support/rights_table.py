"""The tables of docs/rights.md, which the rights matrix is made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from tests.support.proxy import ROOT

DOCUMENT = ROOT / "docs" / "rights.md"

Identity = Literal["none", "stranger", "discover", "query", "add", "member", "manage", "master"]
IDENTITIES: tuple[Identity, ...] = get_args(Identity)
CHAT = "/v1/chat/completions"
HEAD = ["method", "route", "case", "document", "needs", *IDENTITIES]


@dataclass(frozen=True)
class Row:
    method: str
    route: str
    case: str
    """Which request; empty = there is only one."""
    document: str
    """open, closed, own, own closed, or empty."""
    needs: str
    expected: dict[Identity, int]

    def __str__(self) -> str:
        words = [self.method, self.route, self.case, self.document]
        return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Case:
    row: Row
    identity: Identity

    @property
    def status(self) -> int:
        return self.row.expected[self.identity]

    def __str__(self) -> str:
        return f"{self.row} as {self.identity}"


def tables(head: list[str]) -> Iterator[list[str]]:
    """The cells of every row of the tables that have these columns."""
    inside = False
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else []
        if cells == head:
            inside = True
        elif not cells:
            inside = False
        elif inside and not cells[0].startswith("---"):
            yield cells


def rows() -> list[Row]:
    """Every row of the tables of identities."""
    found: list[Row] = []
    for method, route, case, document, needs, *statuses in tables(HEAD):
        expected = {who: int(status) for who, status in zip(IDENTITIES, statuses, strict=True)}
        found.append(Row(method, route.strip("`"), case, document, needs, expected))
    return found


def cases(*, chat: bool) -> list[Case]:
    """Every row as every identity: those of our routes, or those of chat."""
    return [Case(row, who) for row in rows() if (row.route == CHAT) == chat for who in IDENTITIES]
