"""The rights matrix can fail where only the whole proxy shows it: chat, and keys that LiteLLM checks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.rights_probe import check, nobodys_key_opens_nothing, request
from tests.support.rights_proxy import greedy_calls, matrix_proxy
from tests.support.rights_stage import Stage
from tests.support.rights_table import CHAT, cases

HOLES = ["names_need_no_right", "tools_run_as_an_insider", "every_key_is_the_master_key"]
"""Of `tests.support.rights_entry`."""


def complaints(on: Stage) -> Iterator[str]:
    """What is not answered as the matrix says, over chat and over a key that nobody made."""
    try:
        nobodys_key_opens_nothing(on)
    except AssertionError as error:
        yield str(error)
    for case in cases(chat=True):
        try:
            check(on, case, request(on, case))
        except AssertionError as error:
            yield str(error)
    for identity in ("stranger", "query", "manage"):
        messages = [{"role": "user", "content": json.dumps(greedy_calls(on))}]
        answer = on.client(identity).post(CHAT, json={"model": "greedy", "messages": messages})
        leaks = {word for word in on.unreadable(identity) if word in answer.text}
        if leaks:
            yield f"chat as {identity} says {leaks}"


@pytest.fixture(scope="module")
def plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that names the open hole."""
    path = tmp_path_factory.mktemp("plant") / "hole"
    path.touch()
    return path


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory, plant: Path) -> Iterator[Stage]:
    with matrix_proxy(tmp_path_factory.mktemp("rights"), plant=plant) as made:
        yield made.stage


def test_the_matrix_does_not_complain_where_there_is_none(on: Stage) -> None:
    assert next(complaints(on), None) is None


@pytest.mark.parametrize("hole", HOLES)
def test_the_matrix_complains_where_there_is_a_hole(on: Stage, plant: Path, hole: str) -> None:
    plant.write_text(hole, encoding="utf-8")
    try:
        assert next(complaints(on), None) is not None
    finally:
        plant.write_text("", encoding="utf-8")
