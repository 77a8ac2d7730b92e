"""docs/security.md claims nothing that no test shows: each test that it names is there."""

from __future__ import annotations

import ast
import re

from tests.support.proxy import ROOT

NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
DOCUMENT = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_every_test_that_the_security_page_names_exists() -> None:
    named = NAMED.findall(DOCUMENT)
    assert named
    missing = []
    for path, name in named:
        file = ROOT / path
        tree = ast.parse(file.read_text(encoding="utf-8")) if file.is_file() else ast.parse("")
        functions = {
            node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        if not file.is_file() or (name and name not in functions):
            missing.append(f"{path}::{name}")
    assert missing == []


def test_every_risk_of_the_owasp_list_is_in_the_table_with_a_test() -> None:
    """OWASP API Security Top 10, 2023: https://owasp.org/API-Security/editions/2023/en/0x11-t10/"""
    for number in range(1, 11):
        [row] = [line for line in DOCUMENT.splitlines() if line.startswith(f"| API{number}:2023 ")]
        assert NAMED.search(row), row
