"""What several proxies share through a real Redis: limits (`general_settings.coordination_redis`), and
answers in LiteLLM's response cache."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.cached_answers import (
    ASKED_ONCE,
    FOR_ALICE,
    House,
    Shelf,
    a_shelf,
    content,
    litellm_with,
)
from tests.support.library import Library, library
from tests.support.limits import LITELLM, Chats, in_the_tool, is_listening, until
from tests.support.proxy import STOP_S, Proxy, free_port, proxy
from tests.support.scripted_upstream import scripted_upstream

HASHED = re.compile("[0-9a-f]{64}$")
"""How LiteLLM's keys of answers end."""
PEOPLE = ("ann", "ben", "cem", "dan", "eve", "fay", "gus", "hal")


@dataclass(frozen=True)
class Redis:
    port: int
    process: subprocess.Popen[bytes]


@dataclass(frozen=True)
class Pair:
    proxies: tuple[Proxy, Proxy]
    redis: Redis

    def chats(self, username: str) -> tuple[Chats, Chats]:
        """The same person at both."""
        first, second = (Chats(running.url, key_of(username)) for running in self.proxies)
        return first, second


def key_of(username: str) -> str:
    return f"sk-of-{username}-0123456789abcdef"


@contextmanager
def redis_server(folder: Path, port: int | None = None) -> Iterator[Redis]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (Debian's package `redis-server`)")
    port = port or free_port()
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: is_listening(port))
        yield Redis(port, process)
    finally:
        process.terminate()
        process.wait(STOP_S)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    keys = [{"key": key_of(name), "user": name} for name in PEOPLE]
    allowances: list[dict[str, Any]] = [
        {"subjects": ["user:local/ann", "user:local/ben"], "max_parallel_requests": 2},
        {"subjects": ["user:local/cem", "user:local/dan"], "rpm_limit": 3},
        {"subjects": ["*"], "max_parallel_requests": 1},
    ]
    sources = [{"use": "api_keys", "name": "local", "keys": keys}]
    config = {"identity": {"identity": {"sources": sources, "allowances": allowances}}}
    with ExitStack() as stack:
        redis = stack.enter_context(redis_server(tmp_path_factory.mktemp("redis")))
        shared = {"coordination_redis": {"host": "127.0.0.1", "port": redis.port}}
        litellm = LITELLM | {"general_settings": LITELLM["general_settings"] | shared}
        first, second = (
            stack.enter_context(proxy(tmp_path_factory.mktemp(name), litellm, config)) for name in "ab"
        )
        yield Pair((first, second), redis)


def test_parallel_requests_are_counted_over_both(pair: Pair, tmp_path: Path) -> None:
    here, there = pair.chats("ann")
    with here.held(tmp_path, 1, model="plain", go="go-here"), there.held(tmp_path, 1, model="plain"):
        assert [chats.ask("open").status_code for chats in (here, there)] == [429, 429]
        assert [chats.ask("open").status_code for chats in pair.chats("ben")] == [200, 200]
    until(lambda: there.ask("open").status_code == 200)


def test_requests_a_minute_are_counted_over_both(pair: Pair) -> None:
    here, there = pair.chats("cem")
    assert [chats.ask("open").status_code for chats in (here, there, here)] == [200, 200, 200]
    assert [chats.ask("open").status_code for chats in (here, there)] == [429, 429]
    assert pair.chats("dan")[1].ask("open").status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_the_later_rounds_of_a_chat_here_count_there(pair: Pair, tmp_path: Path, stream: bool) -> None:
    here, there = pair.chats("fay" if stream else "eve")
    begun, go = tmp_path / "begun", tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(here.ask, "scripted", in_the_tool(begun, go), stream=stream)
        try:
            until(begun.exists)
            refused = there.ask("open")
            assert refused.status_code == 429, refused.text
            assert int(refused.headers["retry-after"]) > 0
        finally:
            go.touch()
        assert "done" in first.result().text
    until(lambda: there.ask("open").status_code == 200)


def test_without_redis_each_goes_on_with_limits_of_its_own(pair: Pair, tmp_path: Path) -> None:
    here, there = pair.chats("gus")
    pair.redis.process.terminate()
    pair.redis.process.wait(STOP_S)
    with here.held(tmp_path, 1, model="plain"):
        assert here.ask("open").status_code == 429
        assert there.ask("open").status_code == 200
    until(lambda: here.ask("open").status_code == 200)


@dataclass(frozen=True)
class Houses:
    """Two proxies on the same data and the same Redis."""

    here: House
    there: House
    redis: Redis

    def keys(self) -> set[str]:
        """Of answers and vectors; LiteLLM notes other things there, too."""
        with socket.create_connection(("127.0.0.1", self.redis.port), timeout=STOP_S) as connection:
            connection.sendall(b"KEYS *\r\nQUIT\r\n")
            answer = connection.makefile(encoding="utf-8").read()
        return {line for line in answer.splitlines() if HASHED.search(line)}

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Until Redis has both rounds of what is asked meanwhile."""
        before = self.keys()
        yield
        until(lambda: len([key for key in self.keys() - before if "vectors" not in key]) >= len(ASKED_ONCE))


@pytest.fixture(scope="module")
def houses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Houses]:
    first, second = (tmp_path_factory.mktemp(name) for name in ("here", "there"))
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(tmp_path_factory.mktemp("responses")))
        upstream = stack.enter_context(scripted_upstream())
        litellm = litellm_with(upstream, {"type": "redis", "host": "127.0.0.1", "port": server.port})
        here = stack.enter_context(library(first, litellm))
        there = Library(stack.enter_context(proxy(second, litellm, first / "config")))
        yield Houses(House(here, upstream), House(there, upstream), server)


@pytest.fixture
def shelf(houses: Houses) -> Iterator[Shelf]:
    with a_shelf(houses.here.library) as made:
        made.documents["alice"] = made.add(FOR_ALICE, acl=["user:local/alice"])
        yield made


def ask(houses: Houses, question: str, person: str, **body: Any) -> list[httpx.Response]:
    """At both, one after the other, once Redis has what the first answered."""
    with houses.kept():
        first = houses.here.ask(person, question, **body)
    return [first, houses.there.ask(person, question, **body)]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_of_one_proxy_is_given_by_the_other(houses: Houses, shelf: Shelf, stream: bool) -> None:
    mark, question = houses.here.question()
    answers = ask(houses, question, "alice", stream=stream, **shelf.rag)
    assert [content(answer) for answer in answers] == ["It says so [1]."] * 2
    assert houses.here.rounds(mark) == ASKED_ONCE


def test_an_answer_of_one_proxy_is_given_by_the_other_to_nobody_who_may_not_read_the_same(
    houses: Houses, shelf: Shelf
) -> None:
    mark, question = houses.here.question()
    with houses.kept():
        houses.here.ask("alice", question, **shelf.rag)
    houses.there.ask("bob", question, **shelf.rag)
    assert houses.here.rounds(mark) == ASKED_ONCE * 2
    assert FOR_ALICE not in str(houses.there.upstream.of(mark)[-1].messages)


def test_what_was_deleted_at_one_proxy_is_in_no_answer_of_the_other(houses: Houses, shelf: Shelf) -> None:
    mark, question = houses.here.question()
    ask(houses, question, "alice", **shelf.rag)
    shelf.request("DELETE", f"/documents/{shelf.documents['alice']}")
    houses.there.ask("alice", question, **shelf.rag)
    assert houses.here.rounds(mark) == ASKED_ONCE * 2
    assert FOR_ALICE not in str(houses.there.upstream.of(mark)[-1].messages)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
@pytest.mark.parametrize("stream", [False, True])
def test_everything_about_a_question_over_documents_is_under_keys_of_ours(
    houses: Houses, shelf: Shelf, path: str, stream: bool
) -> None:
    """Also what LiteLLM's translation between the APIs asks for itself."""
    before, (_, question) = houses.keys(), houses.here.question()
    words: dict[str, Any] = {"messages": [{"role": "user", "content": question}], "max_tokens": 100}
    if path == "/v1/responses":
        words = {"input": question}
    with houses.kept():
        houses.here.post("alice", path, {"model": "bridged", "stream": stream, **words, **shelf.rag})
    assert [key for key in houses.keys() - before if not key.startswith("collections:")] == []


def test_without_redis_the_model_is_asked(houses: Houses, shelf: Shelf) -> None:
    mark, question = houses.here.question()
    houses.redis.process.terminate()
    houses.redis.process.wait(STOP_S)
    for house in (houses.here, houses.there):
        assert content(house.ask("alice", question, **shelf.rag)) == "It says so [1]."
    assert houses.here.rounds(mark) == ASKED_ONCE * 2
