"""`python -m tests.support.transcripts` writes `docs/what-a-client-sees.md`: real streams of the real proxy.

The model behind the proxy is a stand-in that always says the same. What differs from run to run (ids, times)
is replaced.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.support.proxy import ROOT, proxy
from tests.support.scripted_upstream import scripted_upstream

PAGE = ROOT / "docs" / "what-a-client-sees.md"
ALICE = "sk-local-alice-0123456789"
READ = "read"
"""A file that is there when the client has read what comes before the model's death."""
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def calls(*named: dict[str, Any], says: str | None = None) -> dict[str, Any]:
    return {"text": [says] if says else [], "calls": named}


def answer(*texts: str) -> dict[str, Any]:
    return {"text": texts}


def search(query: str) -> dict[str, Any]:
    return {"name": "search_documents", "arguments": {"query": query, "max_num_results": 1}}


NOTICE, LEAVE = "notice period", "days of annual leave"
DOCUMENTS = [
    {
        "filename": "contracts.md",
        "markdown": "# Contracts\n\n## Notice\n\nThe notice period is three months.",
    },
    {
        "filename": "leave.md",
        "markdown": "# Leave\n\n## Annual leave\n\nEveryone has 28 days of annual leave.",
    },
]


@dataclass(frozen=True)
class Case:
    title: str
    text: str
    question: str
    rounds: list[dict[str, Any]]
    """As `tests.support.scripted_upstream` plays them."""
    body: dict[str, Any] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    result: str | None = None
    """What the client's own tool answers in its second request."""


CASES = [
    Case(
        "No tools",
        "The model answers by itself. `stream_options.include_usage` asks for the last chunk.",
        "Say hello.",
        [answer("Hello,", " how can I help?")],
        {"stream_options": {"include_usage": True}},
    ),
    Case(
        "One round",
        "The model searches and answers. The calls of `search_documents` are not in the stream; the sources "
        "come before the finish chunk. The passage is the second that the model was given and the first that "
        "it cites: for the client numbers count from 1.",
        "How much notice must I give?",
        [
            calls(search("annual leave"), search(NOTICE)),
            answer("You must give three months", " of notice [2", "]."),
        ],
        {"stream_options": {"include_usage": True}},
    ),
    Case(
        "Three rounds, with parallel calls",
        "Text before a search is streamed as it comes; a blank line separates it from the next round's. "
        "The usage is the sum of all rounds. `[9]` was invented by the model and is left out.",
        "Compare notice and leave.",
        [
            calls(search(NOTICE), search(LEAVE), says="Let me look."),
            calls(search("exceptions to the notice period")),
            answer("Three months of notice [1],", " 28 days of leave [2]", " [9]."),
        ],
        {"stream_options": {"include_usage": True}},
    ),
    Case(
        "Our tools and the client's together",
        "The client has a tool of its own, and the model calls both in one round: the client gets the call "
        "of its tool alone. Its id carries what our tools were asked, so that the conversation goes on with "
        "that when the client comes back with its result.",
        "May I take leave when it rains?",
        [
            calls(search(LEAVE), {"name": "weather", "arguments": {"city": "Cologne"}}),
            answer("It is dry, and you have 28 days of leave [1]."),
        ],
        {"tools": [WEATHER]},
        result="dry",
    ),
    Case(
        "A limit is reached",
        "Here `chat.max_rounds` is 3. After three rounds of searches the model is asked to answer with what "
        "it has, and `provider_specific_fields.limit_reached` says so.",
        "Search again and again.",
        [
            calls(search(NOTICE)),
            calls(search(LEAVE)),
            calls(search("both")),
            answer("So far: three months of notice [1]."),
        ],
    ),
    Case(
        "The model dies in the middle of its answer",
        "The last thing in the stream is an error object of OpenAI's form; nothing follows it. Before the "
        "first token of a round LiteLLM's retries and fallbacks apply instead.",
        "Tell me a long story about leave.",
        [calls(search(LEAVE)), answer("Everyone has", " 28", f"until:{READ}", "die")],
    ),
    Case(
        "Open WebUI",
        "Recognised by its headers; it gets events for its page in place of annotations.",
        "How many days of leave do I have?",
        [calls(search(LEAVE)), answer("You have 28 days [1].")],
        headers={"X-OpenWebUI-Chat-Id": "chat-1"},
    ),
]


def litellm_config(api_base: str) -> dict[str, Any]:
    model = {
        "model": "openai/model",
        "api_base": api_base,
        "api_key": "none",
        "num_retries": 0,
        "timeout": 30,
    }
    return {
        "model_list": [
            {"model_name": "assistant", "litellm_params": model, "model_info": {"rag": True}},
            {
                "model_name": "local/minilm",
                "litellm_params": {
                    "model": "local/minilm",
                    "additional_drop_params": ["encoding_format", "user"],
                },
                "model_info": {"mode": "embedding", "output_vector_size": 384},
            },
        ],
        "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
        "general_settings": {
            "master_key": "os.environ/LITELLM_MASTER_KEY",
            "custom_auth": "plugins.entry.authenticate",
            "custom_auth_run_common_checks": True,
        },
    }


def config() -> dict[str, dict[str, Any]]:
    keys = [{"key": ALICE, "user": "alice"}]
    return {
        "identity": {"identity": {"sources": [{"use": "api_keys", "name": "local", "keys": keys}]}},
        "collections": {"collections": {"create": [{"subjects": ["*"]}]}},
        "tools": {"tools": [{"use": "search_documents", "allow": ["*"]}]},
        "chat": {"chat": {"public_base_url": "https://llm.example.com", "max_rounds": 3}},
    }


def page() -> str:
    """The whole page, of a proxy started for it."""
    with tempfile.TemporaryDirectory(prefix="transcripts-") as name:
        folder = Path(name)
        (folder / "config" / "prompts").mkdir(parents=True)
        for prompt in (ROOT / "config" / "prompts").iterdir():
            (folder / "config" / "prompts" / prompt.name).write_bytes(prompt.read_bytes())
        rounds = json.dumps({case.question: case.rounds for case in CASES})
        scripts = json.loads(rounds.replace(f"until:{READ}", f"until:{folder / READ}"))
        with scripted_upstream(scripts) as model:
            return recorded(folder, model.url)


def recorded(folder: Path, api_base: str) -> str:
    with proxy(folder, litellm_config(api_base), config()) as running:
        headers = {"Authorization": f"Bearer {ALICE}"}
        with httpx.Client(base_url=running.url, headers=headers, timeout=120, trust_env=False) as client:
            client.post("/v1/collections/new", json={"name": "handbook"}).raise_for_status()
            body = {"documents": DOCUMENTS}
            client.post("/v1/collections/handbook/add?wait=true", json=body).raise_for_status()
            return "\n".join([HEAD, *(part for case in CASES for part in played(client, case, folder))])


HEAD = """# What a client sees

Streams of `POST /v1/chat/completions` as they came from the proxy, with a model to which `model_info.rag:
true` offers `search_documents`. The model behind it is a stand-in that always says the same; everything
else is real. Ids, times and scores are replaced. This page is written by
`python -m tests.support.transcripts > docs/what-a-client-sees.md`, and a test compares it.

A plain answer (`stream: false`) is the same stream, collected.
"""


def played(client: httpx.Client, case: Case, folder: Path) -> Iterator[str]:
    """A case's section: its requests and what came."""
    messages: list[dict[str, Any]] = [{"role": "user", "content": case.question}]
    yield f"## {case.title}\n\n{case.text}\n"
    lines = yield from exchanged(client, case, messages, folder)
    if case.result is None:
        return
    [call] = [
        call
        for line in lines
        if line.startswith("data: {")
        for choice in json.loads(line.removeprefix("data: "))["choices"]
        for call in choice["delta"].get("tool_calls") or ()
        if call.get("id")
    ]
    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": case.result})
    yield "The client runs its tool and asks again:\n"
    yield from exchanged(client, case, messages, folder)


def exchanged(client: httpx.Client, case: Case, messages: list[dict[str, Any]], folder: Path) -> Any:
    body = {"model": "assistant", "stream": True, "messages": messages, **case.body}
    extra = "".join(f"{name}: {value}\n" for name, value in case.headers.items())
    yield f"```\nPOST /v1/chat/completions\n{extra}\n{settled(json.dumps(body, ensure_ascii=False))}\n```\n"
    with client.stream("POST", "/v1/chat/completions", json=body, headers=case.headers) as response:
        lines = []
        for line in filter(None, response.iter_lines()):
            lines.append(line)
            if '" 28"' in line:
                (folder / READ).touch()
    yield "```\n" + "\n".join(settled(line) for line in lines) + "\n```\n"
    return lines


def settled(text: str) -> str:
    """Without what differs from run to run."""
    text = re.sub(r'"created": ?\d+', '"created":0', text)
    text = re.sub(r'"id": ?"(chatcmpl|up)-[^"]*"', '"id":"chatcmpl-..."', text)
    text = re.sub(r"__ran_[A-Za-z0-9_-]+", "__ran_...", text)
    text = re.sub(r"\b(vs_|file-)[0-9a-f]{8,}", r"\1...", text)
    text = re.sub(r'"score": ?[0-9.e-]+', '"score":0.5', text)
    return re.sub(r'"distances": ?\[[0-9.e-]+\]', '"distances":[0.5]', text)


if __name__ == "__main__":
    sys.stdout.write(page())
