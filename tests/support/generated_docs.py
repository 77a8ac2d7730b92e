"""`python -m tests.support.generated_docs` writes the parts of the docs that are made from the code.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->` in its page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from bench import sizing
from tests.support import dependency_graph, endpoints, error_codes, interfaces
from tests.support.proxy import ROOT

PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "docs/architecture.md": {
        "interfaces": interfaces.listing,
        "dependency graph": lambda: f"```\n{dependency_graph.graph()}\n```",
        "routes": endpoints.route_table,
        "calculation": sizing.example,
    },
    "docs/errors.md": {"codes": error_codes.table},
    "docs/sizing.md": {"calculation": sizing.example},
}
EXAMPLES = ("docs/architecture.md", "endpoints")
"""Made by a running proxy."""


def part(text: str, name: str) -> str:
    """What a page has between the marks."""
    found = pattern(name).search(text)
    assert found, f"there is no part `{name}`"
    return found[1].strip("\n")


def replaced(text: str, name: str, content: str) -> str:
    part(text, name)
    return pattern(name).sub(lambda _: f"<!-- generated: {name} -->\n\n{content}\n\n<!-- end -->", text)


def pattern(name: str) -> re.Pattern[str]:
    return re.compile(rf"<!-- generated: {re.escape(name)} -->\n(.*?)<!-- end -->", re.DOTALL)


def write(page: Path, name: str, content: str) -> None:
    page.write_text(replaced(page.read_text(encoding="utf-8"), name, content), encoding="utf-8")


if __name__ == "__main__":
    for page_name, parts in PARTS.items():
        for part_name, make in parts.items():
            write(ROOT / page_name, part_name, make())
    write(ROOT / EXAMPLES[0], EXAMPLES[1], endpoints.examples_of_a_new_installation())
