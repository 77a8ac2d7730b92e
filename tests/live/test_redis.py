"""Limits that several proxies share through a real Redis (`general_settings.coordination_redis`)."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.limits import LITELLM, Chats, in_the_tool, is_listening, until
from tests.support.proxy import STOP_S, Proxy, free_port, proxy

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
def redis_server(folder: Path) -> Iterator[Redis]:
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("redis-server is not installed (Debian's package `redis-server`)")
    port = free_port()
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
