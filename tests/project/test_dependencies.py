"""What is imported is declared, what is declared is used, and the lock satisfies it."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.proxy import ROOT

SHARED = {
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
}
"""Packages that put their modules into one with others'."""
LOADED_BY_NAME = {"aiosqlite", "asyncpg", "litellm-collections-crawler", "prisma", *SHARED.values()}
"""Drivers that SQLAlchemy loads, what LiteLLM imports, and our own."""
COME_WITH = {"starlette": "fastapi", "pydantic-core": "pydantic"}
"""Parts of another package's interface."""
OURS = {"bench", "crawler", "deploy", "plugins", "quickstart", "tests"}
IN_THEIR_OWN = {"milvus"}
"""Servers of the live tests, which run in environments of their own."""


def project(folder: str) -> dict[str, Any]:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))


def declared(folder: str) -> dict[str, Requirement]:
    extras = project(folder)["project"].get("optional-dependencies", {}).values()
    lines = [*project(folder)["project"]["dependencies"], *(line for extra in extras for line in extra)]
    return by_name(lines)


def by_name(lines: list[str]) -> dict[str, Requirement]:
    return {canonicalize_name(Requirement(line).name): Requirement(line) for line in lines}


def imported(*folders: str) -> set[str]:
    """The packages that the Python files of the folders import, by the names that one installs."""
    distributions = {**packages_distributions(), "opentelemetry": ["opentelemetry-api"]}
    found = set()
    for folder in folders:
        for file in (ROOT / folder).rglob("*.py"):
            found |= set(modules(file)) - OURS - IN_THEIR_OWN - sys.stdlib_module_names
    names = {SHARED.get(module) or canonicalize_name(distributions[module][0]) for module in found}
    return {COME_WITH.get(name, name) for name in names}


def modules(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (package(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield package(node.module)


def package(module: str) -> str:
    first_two = ".".join(module.split(".")[:2])
    return first_two if first_two in SHARED else module.partition(".")[0]


@pytest.mark.parametrize(("folder", "source"), [(".", "plugins"), ("crawler", "crawler/src")])
def test_a_package_declares_what_it_imports_and_nothing_else(folder: str, source: str) -> None:
    known = set(declared(folder))
    assert imported(source) <= known
    assert known - LOADED_BY_NAME <= imported(source)


def test_tests_and_examples_import_only_what_is_declared() -> None:
    dev = by_name(project(".")["dependency-groups"]["dev"])
    assert imported("tests", "bench", "examples") <= {*declared("."), *declared("crawler"), *dev}


def test_the_lock_has_every_dependency_at_a_version_that_is_allowed() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)
    dev = by_name(project(".")["dependency-groups"]["dev"])
    wanted = {**declared("."), **declared("crawler"), **dev}
    del wanted["litellm-collections-crawler"]
    assert set(wanted) <= set(locked)
    for name, requirement in wanted.items():
        assert all(requirement.specifier.contains(version) for version in locked[name]), requirement
