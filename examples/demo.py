"""`make demo`: the whole story against a real proxy with temporary data, as a transcript.

Every step is checked; the exit status is 1 when one fails. With `--url` the proxy is one that runs, without a
collection `finance`, and the three people's keys are those of the environment.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

from quickstart import DOCUMENTS, ROOT, environment, proxy_command, wait_until_ready

QUESTION = "What was the total revenue in 2025?"
JOB_WITHIN_S = 120.0


def say(text: str) -> None:
    print(textwrap.indent(text, "    "), flush=True)


def step(title: str) -> None:
    print(f"\n== {title}", flush=True)


def check(condition: object, what: str) -> None:
    """Print what was checked, or end the demo."""
    if not condition:
        raise SystemExit(f"FAILED: {what}")
    say(f"[ok] {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def proxy(folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """A stock proxy with our sample configuration; its address and its environment."""
    port = free_port()
    keys = ("LITELLM_MASTER_KEY", "DEMO_ALICE_KEY", "DEMO_BOB_KEY", "DEMO_CAROL_KEY")
    environ = environment(folder / ".env", port)
    environ |= {name: f"sk-{secrets.token_urlsafe(32)}" for name in keys}
    environ |= {"DATA_DIR": str(folder / "data"), "PUBLIC_BASE_URL": f"http://127.0.0.1:{port}"}
    environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    log = folder / "proxy.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            proxy_command(port),
            env=environ,
            cwd=ROOT,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=url, trust_env=False, timeout=10) as client:
            try:
                wait_until_ready(client, lambda: process.poll() is None)
            except SystemExit:
                print(log.read_text(errors="replace")[-4000:])
                raise
        yield url, environ
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


class Person:
    """Someone with a key: an HTTP client for our routes and the OpenAI SDK for chat."""

    def __init__(self, name: str, url: str, key: str) -> None:
        self.name = name
        headers = {"Authorization": f"Bearer {key}"}
        self.http = httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=90)
        self.openai = OpenAI(
            base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=httpx.Client(trust_env=False)
        )


def create_and_upload(alice: Person) -> str:
    step("alice creates a collection that bob may see and carol may add to")
    body = {
        "name": "finance",
        "description": "Annual reports",
        "access": {"discover": ["user:local/bob", "user:local/carol"], "add": ["user:local/carol"]},
    }
    created = alice.http.post("/v1/collections/new", json=body)
    say(f"POST /v1/collections/new -> {created.status_code} {created.json().get('id', created.text)}")
    check(created.status_code == 201, "the collection is there, alice manages it")

    step("alice uploads a PDF and watches its job")
    report = DOCUMENTS / "annual-report-2025.pdf"
    added = alice.http.post(
        "/v1/collections/finance/add", files={"files": (report.name, report.read_bytes())}
    )
    check(added.status_code == 202, "POST /v1/collections/finance/add -> 202 at once")
    job = added.json()["data"][0]["job"]["id"]
    end, seen = time.monotonic() + JOB_WITHIN_S, ""
    while time.monotonic() < end:
        state = alice.http.get(f"/v1/jobs/{job}").json()
        line = f"{state['stage']} {state['done']}/{state['total'] or '?'}"
        if line != seen:
            say(f"GET /v1/jobs/{job} -> {line}")
            seen = line
        if state["status"] != "in_progress":
            break
        time.sleep(0.1)
    check(state["status"] == "completed", "the document is searchable")
    return str(added.json()["data"][0]["id"])


def ask(alice: Person) -> None:
    step(f"alice asks: {QUESTION}")
    question: list[Any] = [{"role": "user", "content": QUESTION}]
    plain = alice.openai.chat.completions.create(model="extractive", messages=question)
    message = plain.choices[0].message
    say(f"{message.content}")
    citations = [a.url_citation for a in message.annotations or []]
    for citation in citations:
        say(f"  {citation.title}: {citation.url}")
    check(
        "87.6" in (message.content or "") and "[1]" in (message.content or ""),
        "the answer is in the PDF's table",
    )
    check(citations and citations[0].url.endswith("#page=2"), "its citation opens the PDF at page 2")

    step("the same, streamed")
    stream = alice.openai.chat.completions.create(model="extractive", messages=question, stream=True)
    text, pieces, annotations = "", 0, 0
    for chunk in stream:
        delta = chunk.choices[0].delta if chunk.choices else None
        if delta and delta.content:
            text, pieces = text + delta.content, pieces + 1
        annotations += len(getattr(delta, "annotations", None) or [])
    say(f"{text}   ({pieces} pieces)")
    check(text == message.content and pieces > 3, "token by token, the same text")
    check(annotations, "with its citation")


def refuse(bob: Person, carol: Person) -> None:
    step("bob sees the collection and may not query it")
    names = [c["name"] for c in bob.http.get("/v1/collections").json()["data"]]
    check("finance" in names, f"bob's list: {', '.join(names)}")
    refused = bob.http.post("/v1/collections/finance/search", json={"query": QUESTION})
    say(f"POST /v1/collections/finance/search -> {refused.status_code} {refused.json()['error']['message']}")
    check(refused.status_code == 403, "bob is refused, and told which right is missing")
    answer = bob.openai.chat.completions.create(
        model="extractive", messages=[{"role": "user", "content": QUESTION}]
    )
    say(str(answer.choices[0].message.content))
    check("87.6" not in str(answer.choices[0].message.content), "chat does not tell bob either")

    step("carol adds what she may not query")
    note = {"documents": [{"markdown": "# Note\n\nThe audit is on 3 March.", "filename": "note.md"}]}
    added = carol.http.post("/v1/collections/finance/add?wait=true", json=note)
    check(added.status_code == 200 and added.json()["data"][0]["status"] == "completed", "carol's note is in")
    search = carol.http.post("/v1/collections/finance/search", json={"query": "audit"})
    say(f"POST /v1/collections/finance/search -> {search.status_code} {search.json()['error']['message']}")
    check(search.status_code == 403, "carol may not search it")


def call_tool(alice: Person) -> None:
    step("alice calls a tool directly")
    tools = [t["function"]["name"] for t in alice.http.get("/v1/tools").json()["data"]]
    say(f"GET /v1/tools -> {', '.join(tools)}")
    body = {"name": "search_documents", "arguments": {"query": "dividend per share", "max_num_results": 1}}
    result = alice.http.post("/v1/tools", json=body)
    say(f"POST /v1/tools {json.dumps(body)} -> {result.status_code}")
    say(result.json()["content"][0]["text"])
    check(result.status_code == 200 and "0.85" in result.text, "the tool found the dividend")


def story(url: str, environ: Mapping[str, str]) -> None:
    print(f"The stock LiteLLM proxy with our plugins: {url}")
    alice, bob, carol = (Person(n, url, environ[f"DEMO_{n.upper()}_KEY"]) for n in ("alice", "bob", "carol"))
    create_and_upload(alice)
    ask(alice)
    refuse(bob, carol)
    call_tool(alice)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="of a proxy that runs; else one is started for it")
    url = parser.parse_args().url
    if url:
        story(url, os.environ)
    else:
        with (
            tempfile.TemporaryDirectory(prefix="collections-demo-") as folder,
            proxy(Path(folder)) as started,
        ):
            story(*started)
    print("\nEverything worked.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
