"""What the doctor says of models, and of what Ollama has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from plugins.bundle.doctor.findings import Finding, Redact
from plugins.bundle.doctor.models import examine_models, examine_ollama, ollama_servers
from plugins.proxy import probe
from tests.support.doctor import Server, found, said


def entry(name: str, info: Mapping[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": params, "model_info": dict(info or {})}


def completion(message: dict[str, Any], finish: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": usage,
    }


CALL = {
    "id": "1",
    "type": "function",
    "function": {"name": "search_documents", "arguments": '{"query": "notice"}'},
}


def openai_like(path: str, sent: dict[str, Any]) -> tuple[int, Any]:
    """Models by what they do with tools: `calls`, `refuses`; any other key than `good` is refused."""
    if path.endswith("/embeddings"):
        return 200, {"object": "list", "model": "m", "data": [{"index": 0, "embedding": [0.1] * 3}]}
    match sent["model"]:
        case "calls":
            return 200, completion({"content": None, "tool_calls": [CALL]}, "tool_calls")
        case "refuses" if "tools" in sent:
            return 400, {"error": {"message": "tools are not supported"}}
        case "locked":
            return 401, {"error": {"message": "Incorrect API key provided: the-whole-key-again"}}
    return 200, completion({"content": "hello"})


async def test_models_are_asked_what_they_are_for(serve: Callable[..., Server]) -> None:
    api: dict[str, Any] = {"api_base": f"{serve(openai_like).url}/v1", "api_key": "the-whole-key-again"}
    rag = {"mode": "chat", "rag": True}
    config = {
        "model_list": [
            entry("calls", rag, model="openai/calls", **api),
            entry("refuses", rag, model="openai/refuses", **api),
            entry("plain", model="openai/refuses", **api),
            entry("locked", model="openai/locked", **api),
            entry("backed", model="openai/locked", **api),
            entry("vectors", {"mode": "embedding"}, model="openai/vectors", **api),
            entry("many/*", model="openai/*", **api),
            entry("pictures", {"mode": "image_generation"}, model="openai/p", **api),
        ],
        "router_settings": {"fallbacks": [{"backed": ["calls"]}]},
    }
    probe.prepare(config)
    findings = await examine_models(config, [("handbook", "vectors", 4)], Redact())
    vectors = [finding for finding in findings if finding.part == "model vectors"]
    lines = {finding.part: finding for finding in findings}
    assert lines["model calls"] == Finding("ok", "model calls", "answers, and calls tools")
    assert "refuses requests with tools, but has `rag`" in lines["model refuses"].found
    assert lines["model refuses"].level == "warn"
    assert lines["model plain"].level == "ok"
    assert lines["model locked"].level == "fail"
    assert "the provider refuses the key" in lines["model locked"].found
    assert lines["model backed"].level == "warn"
    assert "its fallback `calls` answers instead" in lines["model backed"].found
    assert [finding.level for finding in vectors] == ["ok", "fail"]
    assert "`handbook` was made with vectors of 4" in vectors[1].found
    assert "none of them is called" in lines["model many/*"].found
    assert "is not called" in lines["model pictures"].found
    assert "the-whole-key-again" not in str(findings)


async def test_ollamas_models_are_compared_with_what_is_configured(serve: Callable[..., Server]) -> None:
    def ollama(path: str, sent: dict[str, Any]) -> tuple[int, Any]:
        if path == "/api/tags":
            return 200, {"models": [{"name": "plain:latest"}]}
        return 200, {"capabilities": ["completion"]}

    rag: dict[str, Any] = {"rag": True}
    base: dict[str, Any] = {"api_base": serve(ollama).url}
    config = {
        "model_list": [
            entry("a", rag, model="ollama_chat/plain", **base),
            entry("b", model="ollama_chat/gone", **base),
            entry("c/*", model="ollama_chat/*", **base),
        ]
    }
    [(address, configured)] = ollama_servers(config).items()
    findings = await found(lambda notes: examine_ollama(notes, address, configured))
    assert "has 1 model: plain:latest" in said(findings, "ok")
    for line in (
        "`a` has `rag`, and `plain` cannot call tools",
        "`a` has no `num_ctx`",
        "`b` needs `gone`, which is not there -> Run `ollama pull gone` there.",
    ):
        assert line in said(findings, "warn")
