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

PLANTS = ["names_need_no_right", "tools_run_as_an_insider", "every_key_is_the_master_key"]
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


@pytest.mark.parametrize("plant", PLANTS)
def test_the_matrix_complains_where_there_is_a_hole(plant: str, tmp_path: Path) -> None:
    with matrix_proxy(tmp_path, plant=plant) as made:
        assert next(complaints(made.stage), None) is not None
