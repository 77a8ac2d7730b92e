"""`python -m tests.support.dependency_graph` prints which package imports which, from the source."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.support.proxy import ROOT

HOMES = {"plugins": ROOT / "plugins", "crawler": ROOT / "crawler" / "src" / "crawler"}
ORDER = ("worker", "entry", "bundle", "proxy", "api", "tools", "auth", "models", "collections", "core")
"""Of the rooms, from top to bottom; `tests/project/test_imports.py` has the layers."""


def graph() -> str:
    """A block for each package: the packages of ours that it imports, then the libraries."""
    ours: dict[str, set[str]] = defaultdict(set)
    others: dict[str, set[str]] = defaultdict(set)
    for package, name in edges():
        target = owner(name)
        if target is None:
            others[package].add(name.split(".")[0])
        elif target != package:
            ours[package].add(target)
        else:
            ours[package]  # it is there, too, when it imports nothing of ours
    lines = []
    for package in sorted({*ours, *others}, key=rank):
        lines.append(package)
        lines += wrapped("-> ", sorted(ours[package], key=rank))
        lines += wrapped("   libraries: ", sorted(others[package]))
    return "\n".join(lines)


def edges() -> Iterator[tuple[str, str]]:
    """The package of each module with the dotted name of each thing that it imports, types' imports too."""
    for home in HOMES.values():
        for path in sorted(home.rglob("*.py")):
            if "migrations" in path.parts:
                continue
            package = ".".join(path.parent.relative_to(home.parent).parts)
            for name in imported(path):
                if name.split(".")[0] not in sys.stdlib_module_names:
                    yield package, name


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def owner(name: str) -> str | None:
    """The package of ours that a dotted name is in: of `plugins.core.errors.Conflict`, `plugins.core`."""
    parts = name.split(".")
    if parts[0] not in HOMES:
        return None
    folder, package = HOMES[parts[0]], parts[0]
    for part in parts[1:]:
        folder = folder / part
        if not folder.is_dir():
            break
        package = f"{package}.{part}"
    return package


def rank(package: str) -> tuple[int, str]:
    """Top first: rooms by their layer, then the crawler."""
    first, *rest = package.split(".")
    if first == "crawler":
        return len(ORDER) + 1, package
    return (ORDER.index(rest[0]) if rest else -1), package


def wrapped(head: str, names: list[str], width: int = 110) -> list[str]:
    """Names after a head, in as many lines as they need."""
    lines: list[str] = []
    line = f"   {head}"
    for number, name in enumerate(names):
        word = name + ("," if number < len(names) - 1 else "")
        if len(line) + len(word) > width:
            lines.append(line.rstrip())
            line = " " * (3 + len(head))
        line += word + " "
    return [*lines, line.rstrip()] if names else []


def uses() -> Mapping[str, set[str]]:
    """The packages of ours that each package imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for package, name in edges():
        if (target := owner(name)) and target != package:
            found[package].add(target)
    return found


if __name__ == "__main__":
    sys.stdout.write(f"{graph()}\n")
