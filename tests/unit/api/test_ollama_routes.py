"""`/v1/ollama/models`: Ollama's own management API, for those whom YAML names."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from fastapi import FastAPI
from sqlalchemy import text

from plugins.api import audit, ollama
from plugins.api.ollama_models import MAX_RESPONSE_BYTES, OllamaModels
from plugins.api.route import REFUSALS
from plugins.collections.audit import AuditLog, Refusals
from plugins.collections.database import Database, database_url
from plugins.collections.exchanges import ExchangeReader
from plugins.collections.rights import Rights
from plugins.core.config import AuditConfig, Config, OllamaConfig, StorageConfig
from plugins.core.identity_config import IdentityConfig
from plugins.core.identity_config import Source as IdentityEntry
from tests.support.api_server import authenticated
from tests.support.fake_ollama import DIGEST, SUCCESS, TINY, FakeOllama, fake_ollama
from tests.support.migrated import migrated

PATH = "/v1/ollama/models"
WAIT_S = 10.0


class House:
    """The routes over the stand-in; alice is a manager, the auditor reads the log."""

    def __init__(self, folder: Path, fake: FakeOllama) -> None:
        self.folder = folder
        self.fake = fake
        self.database = Database(database_url(StorageConfig(data_dir=folder)))

    def app(self, *, keep_alive_s: float = 5.0, **settings: Any) -> FastAPI:
        given = {"base_url": self.fake.url, "managers": ["user:alice"], **settings}
        config = Config(
            folder=self.folder,
            identity=IdentityConfig(sources=[IdentityEntry(use="api_keys", name="local")]),
            audit=AuditConfig(readers=["user:auditor"]),
            ollama=OllamaConfig(**given),
        )
        rights = Rights(config)
        app = FastAPI()
        setattr(app.state, REFUSALS, Refusals(self.database))
        models = OllamaModels(config.ollama, rights, self.database)
        timeout_s = config.ollama.pull_timeout_s
        app.include_router(
            ollama.router(models, authenticated, pull_timeout_s=timeout_s, keep_alive_s=keep_alive_s)
        )
        reader = AuditLog(self.database, rights)
        app.include_router(audit.router(reader, ExchangeReader(self.database, reader), authenticated))
        return app

    async def ask(
        self, method: str, path: str = PATH, body: Any = None, *, user: str = "alice", **settings: Any
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app(**settings), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, json=body, headers={"x-user": user})

    async def pull(self, model: str = "tiny", **options: Any) -> httpx.Response:
        return await self.ask("POST", PATH, {"model": model}, **options)

    async def log(self) -> list[tuple[str, str, Any]]:
        found = (await self.ask("GET", "/v1/audit", user="auditor")).json()["data"]
        return [(entry["user"], entry["action"], entry["detail"]) for entry in found]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    migrated(StorageConfig(data_dir=tmp_path))
    async with AsyncExitStack() as stack:
        made = House(tmp_path, await stack.enter_async_context(fake_ollama()))
        stack.push_async_callback(made.database.close)
        yield made


def events(answer: httpx.Response) -> list[Any]:
    """What each `data:` holds; `[DONE]` as it is."""
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [part.removeprefix("data: ") for part in answer.text.split("\n\n") if part.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def error(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message; none of Ollama's own words is in it."""
    found = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    assert "127.0.0.1" not in answer.text
    assert "SECRET" not in answer.text
    return answer.status_code, found["code"], found["message"]


REQUESTS = [("GET", PATH), ("POST", PATH), ("GET", f"{PATH}/tiny"), ("DELETE", f"{PATH}/tiny")]


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_who_is_no_manager_is_refused_and_ollama_is_not_asked(
    house: House, method: str, path: str
) -> None:
    body = {"model": "tiny"} if method == "POST" else None
    some: tuple[dict[str, Any], ...] = ({}, {"managers": []}, {"base_url": None})
    for settings in some:
        status, code, message = error(await house.ask(method, path, body, user="bob", **settings))
        assert (status, code) == (403, "permission_denied")
        assert "`ollama`" in message
    assert house.fake.asked == []
    assert [(user, detail["status"]) for user, _, detail in await house.log()] == [("local/bob", 403)] * 3


@pytest.mark.parametrize(("method", "path"), REQUESTS)
async def test_without_an_address_a_manager_is_told_what_to_configure(
    house: House, method: str, path: str
) -> None:
    body = {"model": "tiny"} if method == "POST" else None
    answer = await house.ask(method, path, body, base_url=None)
    status, _, message = error(answer)
    assert status == 503
    assert "`ollama.base_url`" in message


async def test_the_list_is_ollamas_own_and_so_is_that_of_the_loaded_ones(house: House) -> None:
    assert (await house.ask("GET")).json() == {"models": [TINY]}
    loaded = (await house.ask("GET", f"{PATH}?loaded=true")).json()["models"]
    assert [model["expires_at"] for model in loaded] == ["2026-01-01T00:00:00Z"]


@pytest.mark.parametrize("name", ["tiny", "tiny:latest", "hf.co/bartowski/Tiny-GGUF:Q4_K_M"])
async def test_a_model_is_shown_by_its_name_also_with_slashes_and_a_tag(house: House, name: str) -> None:
    answer = await house.ask("GET", f"{PATH}/{name}")
    assert answer.json()["capabilities"] == ["completion", "tools"]
    assert house.fake.asked == [("POST", "/api/show", {"model": name})]


async def test_a_model_that_is_not_there_is_404(house: House) -> None:
    for method in ("GET", "DELETE"):
        assert error(await house.ask(method, f"{PATH}/nobody/nothing:1b"))[:2] == (404, "model_not_found")


async def test_a_deletion_is_ollamas_and_in_the_audit_log(house: House) -> None:
    answer = await house.ask("DELETE", f"{PATH}/tiny:latest")
    assert (answer.status_code, answer.content) == (204, b"")
    assert house.fake.asked == [("DELETE", "/api/delete", {"model": "tiny:latest"})]
    assert await house.log() == [("local/alice", "ollama.delete", {"model": "tiny:latest"})]


async def test_a_pull_tells_ollamas_progress_once_and_ends_in_done(house: House) -> None:
    answer = await house.pull("namespace/tiny:1b")
    part = {"status": "pulling d4", "digest": DIGEST, "total": 637280}
    assert events(answer) == [
        {"status": "pulling manifest"},
        part,
        {**part, "completed": 327680},
        {**part, "completed": 637280},
        {"status": "verifying sha256 digest"},
        {"status": "writing manifest"},
        {"status": "success"},
        "[DONE]",
    ]
    assert house.fake.pulls == [{"model": "namespace/tiny:1b", "stream": True}]
    assert await house.log() == [("local/alice", "ollama.pull", {"model": "namespace/tiny:1b"})]


async def test_of_a_large_file_every_percent_is_told_once(house: House) -> None:
    part = {"status": "pulling d4", "digest": DIGEST, "total": 10**10}
    growing = tuple({**part, "completed": number * 10**6} for number in range(1, 10_001))
    house.fake.progress = ({"status": "pulling manifest"}, part, *growing, {"status": "success"})
    told = [found for found in events(await house.pull()) if "completed" in found]
    assert [found["completed"] // 10**8 for found in told] == list(range(1, 101))


async def test_a_pull_that_is_not_streamed_answers_ollamas_last_word(house: House) -> None:
    answer = await house.ask("POST", PATH, {"model": "tiny", "stream": False})
    assert (answer.status_code, answer.json()) == (200, {"status": "success"})


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("said", "status", "words"),
    [
        ("pull model manifest: file does not exist", 404, "no such model"),
        ('pull model manifest: Get "https://SECRET/v2/": dial tcp: no such host', 502, "could not pull"),
        ("pull model manifest: 412: requires a newer version of Ollama. SECRET", 502, "newer version"),
    ],
)
async def test_what_goes_wrong_before_the_first_file_has_its_status(
    house: House, stream: bool, said: str, status: int, words: str
) -> None:
    house.fake.progress = ({"status": "pulling manifest"}, {"error": said})
    answer = await house.ask("POST", PATH, {"model": "tiny", "stream": stream})
    found, _, message = error(answer)
    assert found == status
    assert words in message


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (({"error": "open /SECRET/blobs: no space left on device"},), "no space left"),
        (({"error": "max retries exceeded: SECRET"},), "could not pull"),
        ((), "stopped before"),
        (("<html>SECRET</html>",), "is not Ollama"),
    ],
)
async def test_what_goes_wrong_later_is_an_error_event_and_the_end(
    house: House, end: tuple[Any, ...], words: str
) -> None:
    house.fake.progress = (*SUCCESS[:4], *end)
    answer = await house.pull()
    *told, last = events(answer)
    assert [found["status"] for found in told] == ["pulling manifest", "pulling d4", "pulling d4"]
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert words in last["error"]["message"]
    assert "SECRET" not in answer.text
    plain = await house.ask("POST", PATH, {"model": "tiny", "stream": False})
    assert error(plain)[0] == 502


@pytest.mark.parametrize(
    "name",
    (
        "|../x|a/../b|a..b|http://x/y/z|a b|a\nb|a\x00b|-a|a//b|a/b/c/d|a:b:c|é|127.0.0.1:9/tiny|a?x=1|a#b|"
        f"a@sha256:00|host/ns/model:|\u202ea|{'a' * 81}"
    ).split("|"),
)
async def test_what_is_no_models_name_is_refused_and_never_sent(house: House, name: str) -> None:
    status, _, message = error(await house.pull(name))
    assert status == 400
    assert message.startswith("A model's name is")
    assert house.fake.asked == []
    assert await house.log() == []


@pytest.mark.parametrize("name", ["..%2Fx", "http:%2F%2Fx%2Fy", "a%20b", "a%00b"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_nor_is_one_in_the_path(house: House, name: str, method: str) -> None:
    assert error(await house.ask(method, f"{PATH}/{name}"))[0] == 400
    assert house.fake.asked == []


@pytest.mark.parametrize(
    "name", ["hf.co/a/b", "169.254.169.254/latest/meta-data", "localhost:5000/a/b", "ollama.ai/a/b"]
)
async def test_a_registry_that_yaml_does_not_name_is_refused(house: House, name: str) -> None:
    for registries in ([], ["example.com", "hf.co:8443", "localhost"]):
        status, code, message = error(await house.pull(name, registries=registries))
        assert (status, code) == (403, "permission_denied")
        assert "`ollama.registries`" in message
    assert house.fake.asked == []


async def test_a_registry_that_yaml_names_is_asked_and_only_an_insecure_one_insecurely(house: House) -> None:
    settings = {"registries": ["HF.co"], "insecure_registries": ["lab:5000"]}
    for name in ("hf.co/a/b", "registry.ollama.ai/library/tiny", "lab:5000/a/b:1"):
        assert events(await house.pull(name, **settings))[-1] == "[DONE]"
    assert [body.get("insecure") for body in house.fake.pulls] == [None, None, True]


@pytest.mark.parametrize("body", [{}, {"model": 1}, {"model": "a", "insecure": True}, {"name": "a"}, []])
async def test_a_body_of_another_form_is_400(house: House, body: Any) -> None:
    assert error(await house.ask("POST", PATH, body))[0] == 400
    assert house.fake.asked == []


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (web.Response(text="<html>SECRET</html>"), 502),
        (web.Response(text="[1]"), 502),
        (web.Response(status=500, text="SECRET"), 502),
        (web.Response(status=307, headers={"Location": "http://127.0.0.1:1/SECRET"}), 502),
        (web.Response(body=b"[" + b" " * MAX_RESPONSE_BYTES), 502),
        (web.Response(status=400, text='{"error": "SECRET"}'), 400),
    ],
)
async def test_an_answer_that_is_not_ollamas_shows_nothing_of_itself(
    house: House, answer: web.Response, status: int
) -> None:
    house.fake.answer = answer
    assert error(await house.ask("GET"))[0] == status


async def test_a_server_that_is_down_is_503_and_says_what_to_check(house: House) -> None:
    for method, path in REQUESTS:
        body = {"model": "tiny"} if method == "POST" else None
        status, code, message = error(await house.ask(method, path, body, base_url="http://127.0.0.1:9"))
        assert (status, code) == (503, "model_unavailable")
        assert "ollama serve" in message


async def test_a_server_that_does_not_answer_in_time_is_504(house: House) -> None:
    house.fake.slow = asyncio.Event()
    assert error(await house.ask("GET", timeout_s=0.05))[0] == 504


async def test_a_pull_that_takes_too_long_is_ended(house: House) -> None:
    assert error(await house.pull(pull_timeout_s=0.000001))[:2] == (504, "deadline_exceeded")


async def test_what_cannot_be_written_to_the_audit_log_is_not_done(house: House) -> None:
    async with house.database.write() as connection:
        await connection.execute(text("DROP TABLE audit"))
    assert (await house.pull()).status_code >= 500
    assert (await house.ask("DELETE", f"{PATH}/tiny")).status_code >= 500
    assert house.fake.asked == []


async def test_a_silence_is_bridged_by_comments(house: House) -> None:
    silence = asyncio.Event()
    house.fake.progress = (*SUCCESS[:3], silence, {"status": "success"})
    async with Caller(house.app(keep_alive_s=0.01), {"model": "tiny"}) as caller:
        await caller.until(lambda: caller.received.count(b": \n\n") >= 2)
        silence.set()
        await caller.until(lambda: b"data: [DONE]" in caller.received)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("told", [1, 4], ids=["before the first file", "in a file"])
async def test_a_client_that_goes_away_ends_the_pull_at_ollama(house: House, stream: bool, told: int) -> None:
    house.fake.progress = (*SUCCESS[:told], asyncio.Event())
    async with Caller(house.app(), {"model": "tiny", "stream": stream}) as caller:
        await caller.until(lambda: bool(house.fake.pulls))
        if stream and told > 1:
            await caller.until(lambda: b"completed" in caller.received)
        assert not house.fake.left.is_set()
        caller.leave()
        async with asyncio.timeout(WAIT_S):
            await house.fake.left.wait()


class Caller:
    """alice's pull as a server hands it to the application, so that she can go away."""

    def __init__(self, app: FastAPI, body: Any) -> None:
        self._app = app
        self._messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
        self._left = asyncio.Event()
        self._news = asyncio.Condition()
        self.received = b""

    async def __aenter__(self) -> Caller:
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "headers": [(b"x-user", b"alice"), (b"content-type", b"application/json")],
            "client": ("127.0.0.1", 1),
            "server": ("test", 80),
            "scheme": "http",
        }
        self._task = asyncio.create_task(self._app(scope, self._receive, self._send))
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.leave()
        async with asyncio.timeout(WAIT_S):
            await self._task

    def leave(self) -> None:
        self._left.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                async with self._news:
                    try:
                        await asyncio.wait_for(self._news.wait(), 0.05)
                    except TimeoutError:
                        continue

    async def _receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.received += message.get("body", b"")
        async with self._news:
            self._news.notify_all()
