"""docs/architecture.md is made from the code where it can be, and has all that it is to have."""

from __future__ import annotations

import re

import pytest

from tests.support.endpoints import EXAMPLES, examples, routes
from tests.support.generated_docs import PARTS, part
from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
EIGHT = (
    "Overview",
    "Directory structure",
    "Interfaces",
    "Why it is so",
    "Dependency graph",
    "Endpoints",
    "The Makefile",
    "Next steps",
)
STALE = "run `python -m tests.support.generated_docs`"


def chapter(number: int) -> str:
    """The text of a part."""
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[number]


def test_it_has_eight_parts_in_their_order() -> None:
    titles = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert titles == [f"{number}. {title}" for number, title in enumerate(EIGHT, 1)]


@pytest.mark.parametrize("name", PARTS["docs/architecture.md"])
def test_what_is_made_from_the_code_is_up_to_date(name: str) -> None:
    assert part(PAGE, name) == PARTS["docs/architecture.md"][name](), STALE


def test_the_examples_are_what_a_running_proxy_answers(running: Quickstart) -> None:
    assert part(PAGE, "endpoints") == examples(running), STALE


def test_every_route_of_the_table_of_rights_is_in_the_table_of_routes() -> None:
    rights = (ROOT / "docs" / "rights.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| ([A-Z]+) \| `([^`]+)` \|", rights, re.MULTILINE))
    assert len(listed) > 40
    shown = set(re.findall(r"^\| ([A-Z]+) \| `([^`]+)` \|", part(PAGE, "routes"), re.MULTILINE))
    assert listed - shown == {("POST", "/v1/chat/completions")}


def test_the_examples_are_of_routes_of_ours_or_of_litellms_chat() -> None:
    ours = [(method, route.path_regex) for route in routes() for method in route.methods or ()]
    for example in EXAMPLES:
        path = example.path.partition("?")[0]
        known = any(method == example.method and pattern.match(path) for method, pattern in ours)
        assert known or path == "/v1/chat/completions", path


def test_every_target_of_the_makefile_is_explained_and_no_other() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*?## ", makefile, re.MULTILINE))
    assert set(re.findall(r"^\| `([a-z-]+)` \|", chapter(7), re.MULTILINE)) == targets


def test_every_variable_of_the_makefile_that_one_may_set_is_explained() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for variable in re.findall(r"^(?:export )?([A-Z_]+) \?=", makefile, re.MULTILINE):
        assert variable in chapter(7), variable


def test_every_room_and_every_folder_is_in_the_directory_structure() -> None:
    rooms = [path for path in (ROOT / "plugins").iterdir() if (path / "__init__.py").exists()]
    assert rooms
    for room in rooms:
        assert f"| `plugins/{room.name}` |" in chapter(2), room.name
    for folder in ("config", "plugins", "crawler", "tests", "bench", "deploy", "examples", "docs"):
        assert re.search(rf"^{folder}/ ", chapter(2), re.MULTILINE), folder


@pytest.mark.parametrize("folder", ["plugins/collections", "crawler/src/crawler"])
def test_every_module_of_the_large_rooms_is_in_their_map(folder: str) -> None:
    modules = {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__", "__main__", "cli"}
    named = set(re.findall(r"`([\w/]+)`", chapter(2)))
    assert modules <= named, modules - named
