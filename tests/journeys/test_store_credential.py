"""The header with a caller's Milvus credential, through the stock proxy: to us, and to nobody else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.proxy import MASTER_KEY, Proxy, proxy
from tests.support.quickstart import until

HEADER = "X-Milvus-Credential"
ALICE_KEY = "sk-local-alice-0123456789"
SECRET = "alice:milvus-pass-4711"
LITELLM: dict[str, Any] = {
    "model_list": [{"model_name": "noting", "litellm_params": {"model": "noting/model"}}],
    "litellm_settings": {"callbacks": ["tests.support.credential_entry.hooks", "plugins.entry.hooks"]},
    "general_settings": {
        "custom_auth": "tests.support.credential_entry.authenticate",
        "custom_auth_run_common_checks": True,
        "master_key": "os.environ/LITELLM_MASTER_KEY",
        # the most that an operator may ask for
        "forward_client_headers_to_llm_api": True,
    },
}


class Running:
    def __init__(self, stock: Proxy, seen: Path) -> None:
        self.stock = stock
        self._seen = seen

    def chat(self, key: str, **headers: str) -> dict[str, str]:
        """What reached each place during one chat, by its kind."""
        self._seen.write_text("", encoding="utf-8")
        answer = httpx.post(
            f"{self.stock.url}/v1/chat/completions",
            headers={"Authorization": f"Bearer {key}", "X-Other": "is-forwarded", **headers},
            json={"model": "noting", "messages": [{"role": "user", "content": "hi"}]},
            timeout=60,
            trust_env=False,
        )
        assert answer.status_code == 200, answer.text
        until(lambda: "logged" in self.seen(), "the call is logged")
        return self.seen()

    def seen(self) -> dict[str, str]:
        lines = self._seen.read_text(encoding="utf-8").splitlines()
        return {line["kind"]: json.dumps(line["what"]) for line in map(json.loads, lines)}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("proxy")
    prompts = folder / "config" / "prompts"
    prompts.mkdir(parents=True)
    (prompts / "answer.md").write_text("Cite.", encoding="utf-8")
    sources = [
        {"use": "api_keys", "name": "local", "keys": [{"key": ALICE_KEY, "user": "alice"}]},
        {"use": "litellm"},
    ]
    config = {"identity": {"identity": {"sources": sources, "store_credential_header": HEADER}}}
    seen = folder / "seen.jsonl"
    environment = {"SEEN_FILE": str(seen), "LITELLM_LOG": "DEBUG"}
    with proxy(folder, LITELLM, config, environment) as stock:
        yield Running(stock, seen)


@pytest.mark.parametrize("key", [ALICE_KEY, MASTER_KEY], ids=["of ours", "of LiteLLM's"])
def test_it_reaches_the_principal_and_neither_models_nor_logs(running: Running, key: str) -> None:
    seen = running.chat(key, **{HEADER: SECRET})
    assert seen["principal"] == json.dumps(SECRET[::-1])
    assert "is-forwarded" in seen["model"], "headers are not forwarded at all, so this shows nothing"
    for kind in ("model", "request", "logged"):
        assert SECRET not in seen[kind], kind
        assert HEADER.lower() not in seen[kind].lower(), kind
    assert SECRET not in running.stock.log


@pytest.mark.parametrize("key", [ALICE_KEY, MASTER_KEY], ids=["of ours", "of LiteLLM's"])
def test_a_request_without_it_does_not_get_that_of_the_one_before(running: Running, key: str) -> None:
    running.chat(key, **{HEADER: SECRET})
    assert running.chat(key)["principal"] == "null"
