"""Functions and modules stay small enough to be read at once."""

from __future__ import annotations

import ast
from pathlib import Path
from statistics import quantiles

import pytest

ROOT = Path(__file__).parents[2]
FUNCTION_LINES = 60
FUNCTION_LINES_P95 = 40
MODULE_LINES = 400
SOURCES = sorted(p for d in ("plugins", "crawler/src", "examples", "bench") for p in (ROOT / d).rglob("*.py"))
FILES = [*SOURCES, *sorted((ROOT / "tests").rglob("*.py"))]


def functions(path: Path) -> list[tuple[str, int]]:
    """Name and number of lines of each function, its docstring included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append((f"{path.name}:{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_fit_on_a_screen_or_two(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES
    assert [f for f in functions(path) if f[1] > FUNCTION_LINES] == []


def test_long_functions_are_rare() -> None:
    lengths = [lines for path in SOURCES for _, lines in functions(path)]
    assert quantiles(lengths, n=20)[-1] <= FUNCTION_LINES_P95
