"""Figures and the table that they are printed in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles

HEADER = ("What", "Stock or direct", "Ours", "Ratio or difference", "Aim", "Met")


class MeasurementFailed(Exception):
    """A measurement could not be made; its text says which and why."""


@dataclass(frozen=True)
class Row:
    what: str
    base: str
    ours: str
    compared: str
    aim: str = ""
    met: bool | None = None
    """None = there is no aim."""


def p50_p95(values: Sequence[float]) -> tuple[float, float]:
    """The median and the 95th percentile, in the unit of the values."""
    return median(values), quantiles(values, n=20)[-1]


def quartiles(values: Sequence[float]) -> str:
    """The median, and the quartiles as a measure of how far it can be trusted."""
    low, middle, high = quantiles(values, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def milliseconds(values: Sequence[float]) -> str:
    """p50 and p95 of seconds."""
    middle, high = p50_p95(values)
    return f"{middle * 1000:.1f} / {high * 1000:.1f} ms"


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    met = {True: "yes", False: "**no**", None: ""}
    cells = [
        HEADER,
        tuple("-" * len(title) for title in HEADER),
        *((row.what, row.base, row.ours, row.compared, row.aim, met[row.met]) for row in rows),
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |"
        for line in cells
    )
