"""Links, anchors, commands and modules that the documentation names are there."""

from __future__ import annotations

import importlib.util
import re
import shlex
import subprocess
from functools import cache
from pathlib import Path

import pytest

from tests.support.pages import PAGES, Block, anchors, blocks, prose
from tests.support.proxy import ROOT

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
SHELL = blocks("sh", "bash", "console")
CRAWLER_COMMANDS = {"crawl", "sync", "convert", "export", "import", "jobs"}
MEASURED = r"\d (?:ms|s)\b.{0,40}(?:p50|p95)|\d (?:requests|pages|documents|passages|chunks)/s"


@cache
def targets() -> frozenset[str]:
    """Of the Makefile, those that `make help` lists."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return frozenset(re.findall(r"^([a-z-]+):.*?## ", makefile, re.MULTILINE))


@cache
def subcommands() -> frozenset[str]:
    """Of `python -m plugins`."""
    source = (ROOT / "plugins" / "__main__.py").read_text(encoding="utf-8")
    return frozenset(re.findall(r'add_parser\(\s*"([a-z-]+)"', source))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_links_lead_to_a_file_and_a_heading_that_are_there(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", prose(page)):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), f"{target}#{anchor}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_pages_that_are_named_by_their_path_are_there(page: Path) -> None:
    for target in re.findall(r"`(docs/[\w./-]+\.md)`", page.read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_commands_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^ *|\$ |&& )make ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", text, re.MULTILINE)
    assert {target for words in named for target in words.split()[:1]} <= targets()
    assert set(re.findall(r"python -m plugins ([a-z-]+)", text)) <= subcommands()
    for module in re.findall(r"python -m ((?:plugins|crawler|bench|tests)\.[\w.]+)", text):
        assert importlib.util.find_spec(module.rstrip(".")), module
    for command in re.findall(r"`crawler ([a-z]+)", text):
        assert command in CRAWLER_COMMANDS, command


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.where)
def test_shell_examples_are_shell(block: Block) -> None:
    script = re.sub(r"^\$ ", "", block.text, flags=re.MULTILINE)
    checked = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, timeout=10, check=False
    )
    assert checked.returncode == 0, checked.stderr
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True) if line.count("'") % 2 == 0 else []
        if words[:1] == ["crawler"]:
            assert words[1] in CRAWLER_COMMANDS, line


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_a_page_with_measured_figures_has_the_command_that_measures_them(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    if re.search(MEASURED, text):
        assert re.search(r"make (?:bench|test)[a-z-]*|python -m bench|benchmarks\.md", text)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in ROOT.glob("docs/*.md"):
        assert page.name == "README.md" or f"]({page.name})" in index, page.name
