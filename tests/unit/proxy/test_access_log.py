"""The line of a chat request: it names no model that only its client knows."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
from litellm.proxy import proxy_server
from litellm.router import Router
from litellm.types.utils import ModelResponseStream, Usage

from plugins.proxy.access_log import Answering
from plugins.proxy.auth import PrincipalAuth
from tests.support.services import ALICE


def deployment(name: str, **info: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": "openai/x", "api_key": "k"}, "model_info": info}


@pytest.fixture(scope="module")
def router() -> Router:
    """With a model of each kind that can be asked for."""
    team = deployment("internal", team_id="red", team_public_model_name="reds")
    return Router(
        model_list=[deployment("chat"), deployment("openai/*"), deployment("n" * 300), team],
        model_group_alias={"alias": "chat"},
    )


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("chat", "chat"),
        ("alias", "alias"),
        ("reds", "reds"),
        ("openai/gpt", "openai/gpt"),
        ("openai/" + "x" * 1_000_000, "openai/" + "x" * 248),
        ("n" * 300, "n" * 255),
        ("What does Bob earn?", "other"),
        ("x" * 1_000_000, "other"),
        (["chat"], "other"),
        (None, "other"),
    ],
    ids=lambda name: str(name)[:12],
)
def test_a_model_is_named_where_the_proxy_knows_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, router: Router, asked: Any, shown: str
) -> None:
    monkeypatch.setattr(proxy_server, "llm_router", router)
    caplog.set_level(logging.INFO, "plugins")
    auth = PrincipalAuth(principal=ALICE, team_id="red")
    Answering({"model": asked}, auth, "acompletion", None).end()
    [line] = [record for record in caplog.records if record.name == "plugins.proxy.access_log"]
    assert line.fields["model"] == shown  # type: ignore[attr-defined]
    assert len(line.getMessage()) < 400


CHUNK = ModelResponseStream(choices=[], usage=Usage(prompt_tokens=30, completion_tokens=4))
COMPLETED = SimpleNamespace(
    type="response.completed",
    response=SimpleNamespace(usage=SimpleNamespace(input_tokens=30, output_tokens=4)),
)
MESSAGE = {"type": "message", "content": [], "usage": {"input_tokens": 30, "output_tokens": 4}}


@pytest.mark.parametrize(
    ("pieces", "tokens"),
    [([CHUNK], (30, 4)), ([COMPLETED], (30, 4)), ([MESSAGE], (30, 4)), ([b"data: {}\n"], (None, None))],
    ids=["chat", "response", "message", "bytes"],
)
def test_the_tokens_are_those_that_the_answer_tells(
    caplog: pytest.LogCaptureFixture, pieces: list[Any], tokens: tuple[int | None, int | None]
) -> None:
    caplog.set_level(logging.INFO, "plugins")
    answering = Answering({"model": "chat"}, PrincipalAuth(principal=ALICE), "acompletion", None)
    for piece in pieces:
        answering.hear(piece)
    answering.end()
    [line] = [record for record in caplog.records if record.name == "plugins.proxy.access_log"]
    fields = line.fields  # type: ignore[attr-defined]
    assert (fields.get("prompt_tokens"), fields.get("completion_tokens")) == tokens


def test_without_models_none_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(proxy_server, "llm_router", None)
    caplog.set_level(logging.INFO, "plugins")
    Answering({"model": "chat"}, PrincipalAuth(principal=ALICE), "acompletion", None).end()
    assert "model=other" in caplog.text
