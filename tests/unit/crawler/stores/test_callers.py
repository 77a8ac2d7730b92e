"""Connections of callers: each credential its own, a bounded number, closed when they are let go."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest
from pydantic import SecretStr
from pymilvus import MilvusException  # type: ignore[import-untyped]

from crawler.errors import CredentialRefused, StoreDenied, StoreError, StoreRefused, StoreUnavailable
from crawler.stores._callers import Callers
from crawler.stores._connection import Connection
from crawler.stores.milvus import Milvus, MilvusSettings


class FakeClient:
    """Stands in for a client of pymilvus."""

    def __init__(self) -> None:
        self.closed = False

    async def get_server_version(self) -> str:
        return "v2.3.5"

    async def list_collections(self) -> list[str]:
        return ["handbook"]

    async def close(self) -> None:
        self.closed = True


class Made:
    def __init__(self) -> None:
        self.clients: dict[str, FakeClient] = {}

    def connect(self, credential: SecretStr) -> Connection:
        def make() -> Any:
            return self.clients.setdefault(credential.get_secret_value(), FakeClient())

        return Connection(make, 5.0, of_caller=True)


async def use(callers: Callers, credential: str) -> None:
    connection = await callers.of(SecretStr(credential))
    await connection.call(lambda client: client.get_server_version())


async def test_the_same_credential_has_one_connection_and_another_another() -> None:
    callers = Callers(Made().connect)
    first = await callers.of(SecretStr("alice:a"))
    assert await callers.of(SecretStr("alice:a")) is first
    assert await callers.of(SecretStr("alice:b")) is not first


async def test_the_least_used_connection_is_closed_when_there_are_too_many() -> None:
    made = Made()
    callers = Callers(made.connect, limit=2)
    for credential in ("a:1", "b:1", "a:1", "c:1"):
        await use(callers, credential)
    assert {name for name, client in made.clients.items() if client.closed} == {"b:1"}
    await callers.close()
    assert all(client.closed for client in made.clients.values())


async def test_a_connection_that_still_answers_is_closed_afterwards() -> None:
    made = Made()
    callers = Callers(made.connect, limit=1)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def slow(client: Any) -> None:
        started.set()
        await go_on.wait()

    running = asyncio.create_task((await callers.of(SecretStr("slow:1"))).call(slow))
    await started.wait()
    await use(callers, "b:1")
    assert not made.clients["slow:1"].closed
    go_on.set()
    await running
    await use(callers, "b:1")
    assert made.clients["slow:1"].closed


class Gullible(Milvus):
    """A server without authorization: it lets everybody in."""

    def _as_caller(self, credential: SecretStr) -> Connection:
        def make() -> Any:
            return FakeClient()

        return Connection(make, 5.0, of_caller=True)


async def test_a_server_that_believes_every_name_is_not_asked_about_rights() -> None:
    store = Gullible(MilvusSettings(uri="http://127.0.0.1:9"))
    with pytest.raises(StoreUnavailable, match="authorizationEnabled"):
        await store.visible(SecretStr("root:anything"))


class Refused(grpc.RpcError):  # type: ignore[misc]
    def __init__(self, status: grpc.StatusCode) -> None:
        self._status = status

    def code(self) -> grpc.StatusCode:
        return self._status


FAILURES = [
    (Refused(grpc.StatusCode.PERMISSION_DENIED), StoreDenied),
    (Refused(grpc.StatusCode.UNAUTHENTICATED), CredentialRefused),
    (Refused(grpc.StatusCode.UNAVAILABLE), StoreUnavailable),
    (Refused(grpc.StatusCode.UNIMPLEMENTED), StoreRefused),
    (MilvusException(code=1400, message="not authenticated"), CredentialRefused),
    (MilvusException(code=1401, message="privilege not permitted"), StoreDenied),
    (MilvusException(code=2, message="illegal connection params at 10.0.0.1"), StoreUnavailable),
]


@pytest.mark.parametrize(("failure", "expected"), FAILURES)
async def test_what_the_server_says_to_a_caller_is_theirs_to_hear_and_to_us_is_not(
    failure: Exception, expected: type[StoreError]
) -> None:
    async def fail(client: Any) -> None:
        raise failure

    for of_caller in (True, False):
        connection = Connection(lambda: FakeClient(), 5.0, of_caller=of_caller)
        with pytest.raises(StoreError) as raised:
            await connection.call(fail)
        ours = not of_caller and expected in (StoreDenied, CredentialRefused)
        assert type(raised.value) is (StoreRefused if ours else expected)
        assert "10.0.0.1" not in raised.value.message
