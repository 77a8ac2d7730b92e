"""What models can do, as LiteLLM's router, its map and Ollama servers say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from litellm.proxy import proxy_server
from litellm.router import Router

from plugins.proxy import capabilities
from plugins.proxy.capabilities import Capabilities, max_input_tokens


@contextmanager
def ollama(shown: dict[str, Any] | None, held_by: Event | None = None) -> Iterator[tuple[str, list[Any]]]:
    """A stand-in for Ollama's `/api/show`: its address, and what it was asked."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            if held_by is not None:
                held_by.wait(20)
            body = json.dumps(shown or {"error": "model not found"}).encode()
            self.send_response(200 if shown is not None else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        if held_by is not None:
            held_by.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> Any:
    def configure(*deployments: dict[str, Any], name: str = "model") -> None:
        rows = [
            {
                "model_name": name,
                "litellm_params": {"api_key": "k", **{k: v for k, v in row.items() if k != "info"}},
                "model_info": {"rag": True, **row.get("info", {})},
            }
            for row in deployments
        ]
        monkeypatch.setattr(proxy_server, "llm_router", Router(model_list=rows))

    return configure


@pytest.mark.parametrize(
    ("row", "calls"),
    [
        ({"model": "openai/own-0", "info": {"supports_function_calling": False}}, False),
        ({"model": "openai/own-1", "info": {"supports_function_calling": True}}, True),
        ({"model": "openai/gpt-4o"}, True),
        ({"model": "bedrock/ai21.j2-ultra-v1"}, False),
        ({"model": "openai/own-2", "api_base": "http://127.0.0.1:1"}, True),
        ({"model": "openai/j2-light", "api_base": "http://127.0.0.1:1"}, True),
        ({"model": "hosted_vllm/own-3", "api_base": "http://127.0.0.1:1"}, True),
    ],
)
async def test_what_is_configured_counts_then_what_litellm_knows_and_unknown_models_call_functions(
    models: Any, row: dict[str, Any], calls: bool
) -> None:
    models(row)
    assert await Capabilities().calls_functions("model") is calls


async def test_one_deployment_that_does_not_call_functions_decides_for_all(models: Any) -> None:
    models(
        {"model": "openai/gpt-4o"}, {"model": "openai/own-4", "info": {"supports_function_calling": False}}
    )
    assert await Capabilities().calls_functions("model") is False


async def test_an_unknown_model_with_several_deployments_calls_functions(models: Any) -> None:
    own = {"model": "openai/own-5", "info": {"mode": "chat", "max_input_tokens": 4096}}
    models(*({**own, "api_base": f"http://127.0.0.1:{port}"} for port in (1, 2)))
    assert await Capabilities().calls_functions("model") is True


async def test_a_model_that_the_proxy_does_not_have_calls_functions(models: Any) -> None:
    models({"model": "openai/gpt-4o"})
    for name in ("other", None, 3):
        assert await Capabilities().calls_functions(name) is True


@pytest.mark.parametrize(
    ("shown", "calls"),
    [
        ({"capabilities": ["completion", "tools"], "template": "{{ .Prompt }}"}, True),
        ({"capabilities": ["completion"], "template": "{{ .Tools }}"}, False),
        ({"template": "{{ if .Tools }}x{{ end }}"}, True),
        ({"template": "{{ .Prompt }}"}, False),
        (None, True),
        ({"capabilities": None, "template": None}, False),
    ],
)
async def test_ollama_is_asked_once_what_its_model_can_do(
    models: Any, shown: dict[str, Any] | None, calls: bool
) -> None:
    known = Capabilities()
    with ollama(shown) as (url, asked):
        models({"model": "ollama_chat/*", "api_base": f"{url}/"}, name="ollama/*")
        assert [await known.calls_functions("ollama/tiny") for _ in range(3)] == [calls] * 3
    assert asked == [("/api/show", {"model": "tiny"})]


async def test_an_ollama_that_is_down_or_hangs_is_taken_to_call_functions(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capabilities, "ASK_S", 0.05)
    models({"model": "ollama_chat/tiny", "api_base": "http://127.0.0.1:1"})
    assert await Capabilities().calls_functions("model") is True
    with ollama({"capabilities": []}, held_by=Event()) as (url, asked):
        models({"model": "ollama_chat/tiny", "api_base": url})
        assert await Capabilities().calls_functions("model") is True
        assert len(asked) == 1


async def test_names_under_a_wildcard_do_not_fill_the_memory(
    models: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capabilities, "MAX_MODELS", 3)
    known = Capabilities()
    with ollama({"capabilities": ["tools"]}) as (url, asked):
        models({"model": "ollama_chat/*", "api_base": url}, name="ollama/*")
        for name in "abcda":
            await known.calls_functions(f"ollama/{name}")
    assert [body["model"] for _, body in asked] == ["a", "b", "c", "d", "a"]


@pytest.mark.parametrize(
    ("rows", "limit"),
    [
        ([{"model": "openai/own-5", "info": {"max_input_tokens": 5000}, "num_ctx": 100}], 5000),
        ([{"model": "ollama_chat/own", "api_base": "http://127.0.0.1:1", "num_ctx": 8192}], 8192),
        ([{"model": "ollama_chat/llama3.1", "api_base": "http://127.0.0.1:1"}], None),
        ([{"model": "openai/gpt-4o"}], 128_000),
        ([{"model": "openai/own-6"}], None),
        ([{"model": "openai/gpt-4o"}, {"model": "openai/own", "info": {"max_input_tokens": 4096}}], 4096),
    ],
)
def test_the_least_that_is_known_of_a_models_deployments_is_its_limit(
    models: Any, rows: list[dict[str, Any]], limit: int | None
) -> None:
    models(*rows)
    assert max_input_tokens("model") == limit
