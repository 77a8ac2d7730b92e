"""Requests and answers that are kept: whole or not answered, without what is not to be kept, for a time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import exchanges, tables
from plugins.collections.database import Database
from plugins.collections.exchanges import Exchange, ExchangeLog, cut, forget_exchanges
from plugins.core.config import CHAT_ROUTES, ExchangesConfig, StorageConfig
from plugins.core.errors import Upstream
from tests.support.migrated import migrated


class Away(Database):
    """A database that cannot be reached for a while."""

    away = False

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        if self.away:
            raise Upstream
        async with super().write() as connection:
            yield connection


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Away]:
    made = Away(migrated(StorageConfig(data_dir=tmp_path)))
    yield made
    await made.close()


def kept(database: Database, **settings: Any) -> ExchangeLog:
    return ExchangeLog(database, ExchangesConfig(enabled=True, **settings))


def an_exchange(question: str = "How long?", answer: str = "30 days", at: float = 1e9) -> Exchange:
    request = {"messages": [{"role": "user", "content": question}]}
    return Exchange(
        at, "local/alice", "req-1", CHAT_ROUTES[0], "chat", request, {"status": 200, "text": answer}
    )


async def rows(database: Database) -> list[Any]:
    async with database.read() as connection:
        return list(await connection.execute(select(tables.exchanges).order_by(tables.exchanges.c.id)))


async def test_what_is_noted_is_written_in_its_order(database: Away) -> None:
    log = kept(database)
    for number in range(120):
        log.note(an_exchange(f"question {number}"))
    assert await log.flush(10) == 0
    found = await rows(database)
    said = [row.request["messages"][0]["content"] for row in found]
    assert said == [f"question {number}" for number in range(120)]
    assert (found[0].user_id, found[0].model, found[0].answer["text"]) == ("local/alice", "chat", "30 days")


async def test_what_patterns_match_is_not_kept_neither_asked_nor_answered(database: Away) -> None:
    log = kept(database, redact=[r"DE\d{20}", r"(?i)\bcode \w+"])
    log.note(an_exchange("Is DE02120300000000202051 mine?", "Your Code abc9 is for it."))
    await log.flush(10)
    [row] = await rows(database)
    assert row.request["messages"] == [{"role": "user", "content": "Is [redacted] mine?"}]
    assert row.answer["text"] == "Your [redacted] is for it."


async def test_what_patterns_match_is_not_kept_as_a_number_or_a_name_either(database: Away) -> None:
    log = kept(database, redact=[r"\d{8}", "200"])
    filters = {"type": "eq", "key": "account", "value": 12345678}
    said = {"rag": {"filters": filters, "12345678": True, "max_num_results": 5}}
    log.note(Exchange(1e9, "local/alice", "req-1", CHAT_ROUTES[0], "chat", said, {"status": 200, "text": ""}))
    await log.flush(10)
    [row] = await rows(database)
    wanted = {"filters": {**filters, "value": "[redacted]"}, "[redacted]": True, "max_num_results": 5}
    assert row.request == {"rag": wanted}
    assert row.answer == {"status": 200, "text": ""}


@pytest.mark.parametrize("limit", [{"MAX_WAITING": 3}, {"MAX_WAITING_CHARS": 3 * 1000}], ids=list)
async def test_while_the_database_is_away_they_wait_and_then_no_more_are_taken(
    database: Away, monkeypatch: pytest.MonkeyPatch, limit: dict[str, int]
) -> None:
    for name, value in limit.items():
        monkeypatch.setattr(exchanges, name, value)
    monkeypatch.setattr(exchanges, "RETRY_S", 0.01)
    log, database.away = kept(database), True
    for number in range(3):
        log.check()
        log.note(an_exchange(str(number) * 1000))
    with pytest.raises(Upstream, match="cannot be written down"):
        log.check()
    database.away = False
    assert await log.flush(10) == 0
    log.check()
    assert len(await rows(database)) == 3


async def test_what_waits_when_the_server_ends_is_written_first(database: Away) -> None:
    log, database.away = kept(database), True
    log.note(an_exchange())
    await asyncio.sleep(0)  # the writer begins
    [writer] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    database.away = False
    writer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writer
    assert len(await rows(database)) == 1


async def test_what_cannot_be_written_then_is_counted(
    database: Away, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(exchanges, "RETRY_S", 0.01)
    monkeypatch.setattr(exchanges.log, "propagate", True)
    log, database.away = kept(database), True
    log.note(an_exchange())
    assert await log.flush(10) == 1
    await log.close()
    assert "1 exchanges could not be written and are lost" in caplog.text
    database.away = False
    assert await log.flush(10) == 0


async def test_one_that_the_database_does_not_take_is_named_and_costs_no_other(
    database: Away, caplog: pytest.LogCaptureFixture
) -> None:
    log = kept(database)
    broken: Any = an_exchange()
    object.__setattr__(broken, "at", None)
    for exchange in (an_exchange("before"), broken, an_exchange("after")):
        log.note(exchange)
    await log.flush(10)
    assert [row.request["messages"][0]["content"] for row in await rows(database)] == ["before", "after"]
    assert "An exchange is lost" in caplog.text


async def test_one_that_surprises_neither_ends_the_writing_nor_is_tried_for_ever(
    database: Away, caplog: pytest.LogCaptureFixture
) -> None:
    log = kept(database)
    broken = an_exchange()
    object.__setattr__(broken, "user_id", "\ud800")  # which no driver can encode
    for exchange in (an_exchange("before"), broken, an_exchange("after")):
        log.note(exchange)
    assert await log.flush(10) == 0
    assert [row.request["messages"][0]["content"] for row in await rows(database)] == ["before", "after"]
    assert "An exchange is lost" in caplog.text


async def test_those_behind_it_wait_where_the_database_goes_away_meanwhile(
    database: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchanges, "RETRY_S", 0.01)
    log = kept(database)
    broken: Any = an_exchange()
    object.__setattr__(broken, "at", None)
    for exchange in (broken, an_exchange("behind")):
        log.note(exchange)
    take = log._insert

    async def take_and_go(taken: Any) -> None:
        database.away = database.away or len(taken) == 1
        await take(taken)

    monkeypatch.setattr(log, "_insert", take_and_go)
    assert await log.flush(0.5) == 2
    monkeypatch.setattr(log, "_insert", take)
    database.away = False
    assert await log.flush(10) == 0
    assert [row.request["messages"][0]["content"] for row in await rows(database)] == ["behind"]


def test_of_a_long_request_the_last_texts_are_kept() -> None:
    said = {"messages": [{"content": "a" * 600}, {"content": "b" * 600}, {"content": "é" * 300}]}
    shown = cut(said, 1024)["messages"]
    assert shown[2] == {"content": "é" * 300}
    assert shown[1] == {"content": f"{'b' * 424}(cut: 600 bytes)"}
    assert shown[0] == {"content": "(cut: 600 bytes)"}
    assert cut(said, 5000) == said


def test_only_routes_that_are_named_are_kept_and_none_where_it_is_off(database: Away) -> None:
    one = kept(database, routes=["/v1/messages"])
    assert [one.keeps(route) for route in CHAT_ROUTES] == [False, False, True]
    off = ExchangeLog(database, ExchangesConfig())
    assert not any(off.keeps(route) for route in CHAT_ROUTES)
    off.check()


async def test_those_that_are_too_old_are_deleted(database: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    log = kept(database)
    for day in (1, 2, 3, 4):
        log.note(an_exchange(str(day), at=day * 86400.0))
    await log.flush(10)
    monkeypatch.setattr(exchanges, "DELETED_AT_ONCE", 2)
    monkeypatch.setattr(exchanges, "now", lambda: 5 * 86400.0)
    await forget_exchanges(database, 2.5)
    assert [row.request["messages"][0]["content"] for row in await rows(database)] == ["3", "4"]


def test_a_pattern_that_is_none_is_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="is not a regular expression"):
        ExchangesConfig(redact=["("])
