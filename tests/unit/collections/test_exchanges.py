"""Requests and answers that are kept: whole or not answered, without what is not to be kept, for a time."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import exchanges, tables
from plugins.collections.bounded import SLACK, Bounded, Unfinished
from plugins.collections.database import Database
from plugins.collections.exchanges import Exchange, ExchangeLog, forget_exchanges
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
    """SQLite in the test's folder, or the Postgres of `TEST_DATABASE_URL`, without exchanges."""
    url = os.environ.get("TEST_DATABASE_URL")
    made = Away(migrated(StorageConfig(data_dir=tmp_path, database=SecretStr(url) if url else None)))
    async with made.write() as connection:
        await connection.execute(delete(tables.exchanges))
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


@pytest.mark.parametrize("limit", [{"MAX_WAITING": 3}, {"MAX_WAITING_BYTES": 3 * 1000}], ids=list)
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


async def test_one_whose_words_the_database_does_not_take_is_kept_without_them(
    database: Away, caplog: pytest.LogCaptureFixture
) -> None:
    log = kept(database)
    broken: Any = an_exchange()
    object.__setattr__(broken, "request", None)
    for exchange in (an_exchange("before"), broken, an_exchange("after")):
        log.note(exchange)
    assert await log.flush(10) == 0
    before, stub, after = await rows(database)
    assert [row.request["messages"][0]["content"] for row in (before, after)] == ["before", "after"]
    assert (stub.user_id, stub.request_id, stub.model) == ("local/alice", "req-1", "chat")
    assert (stub.request, stub.answer) == ({}, {"status": 200, "cut": True})
    assert "An exchange is kept without its words" in caplog.text


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf"), 10**400, "\ud800", "\x00"])
async def test_what_a_client_can_send_costs_no_exchange(database: Away, odd: Any) -> None:
    log = kept(database)
    said = {"messages": [{"role": "user", "content": "Who earns most?", "x": odd}]}
    log.note(Exchange(1e9, f"local/alice{odd}", "r", CHAT_ROUTES[0], f"chat{odd}", said, {"status": 200}))
    assert await log.flush(10) == 0
    [row] = await rows(database)
    assert row.request["messages"][0]["content"] == "Who earns most?"
    json.dumps([row.request, row.user_id, row.model], allow_nan=False, ensure_ascii=False).encode()


async def test_a_batch_that_takes_too_long_is_made_smaller_until_it_goes(
    database: Away, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, sizes = kept(database), []
    take = log._insert

    async def take_few(taken: Any) -> None:
        sizes.append(len(taken))
        if len(taken) > 2:
            raise Upstream
        await take(taken)

    monkeypatch.setattr(log, "_insert", take_few)
    for number in range(20):
        log.note(an_exchange(str(number)))
    for _ in range(40):
        if await log.flush(10) == 0:
            break
    assert [row.request["messages"][0]["content"] for row in await rows(database)] == list(
        map(str, range(20))
    )
    assert sizes[:5] == [20, 10, 5, 2, 4]


async def test_large_ones_are_written_by_their_size(database: Away, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchanges, "BATCH_BYTES", 3000)
    log, sizes = kept(database), []
    take = log._insert

    async def counted(taken: Any) -> None:
        sizes.append(len(taken))
        await take(taken)

    monkeypatch.setattr(log, "_insert", counted)
    for length in (1000, 1000, 1000, 9000, 10, 10):
        log.note(an_exchange("x" * length))
    assert await log.flush(10) == 0
    assert sizes == [2, 1, 1, 2]


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


@pytest.mark.parametrize("part", [{}, "", {"": ""}, 7, {"k" * 50: 1}, [[]], None, "a"], ids=repr)
def test_what_waits_is_counted_with_all_that_is_in_it(
    database: Away, monkeypatch: pytest.MonkeyPatch, part: Any
) -> None:
    monkeypatch.setattr(exchanges, "MAX_WAITING_BYTES", 2000)
    monkeypatch.setattr(ExchangeLog, "_write", lambda self: asyncio.sleep(0))
    log = kept(database)

    async def note() -> None:
        log.note(Exchange(1e9, "u", "r", CHAT_ROUTES[0], "chat", {"messages": [part] * 1000}, {}))

    asyncio.run(note())
    with pytest.raises(Upstream):
        log.check()


def test_of_a_long_request_the_last_texts_are_kept() -> None:
    one, two, three = ({"role": "user", "content": text * 600} for text in "abc")
    said = {"messages": [one, two, three]}
    shown = Bounded(1024).copy(said)["messages"]
    assert shown[2] == three
    assert shown[1]["role"] == "user"
    assert shown[1]["content"].startswith("bbb")
    assert shown[1]["content"].endswith("b(cut: 600 bytes)")
    assert shown[0] == "(cut: 1 items)"
    whole = Bounded(5000)
    assert whole.copy(said) == said
    assert not whole.cut


def nested(depth: int) -> Any:
    part: Any = "x"
    for _ in range(depth):
        part = [{"": part}]
    return part


HUGE: dict[str, Any] = {
    "texts": ["a"] * 100_000,
    "empty texts": [""] * 100_000,
    "objects": [{}] * 100_000,
    "numbers": [1] * 100_000,
    "switches": [True] * 100_000,
    "long numbers": [10**300] * 1000,
    "keys": {f"key {number}": number for number in range(100_000)},
    "a long key": {"k" * 1_000_000: 1},
    "a long text": "é" * 1_000_000,
    "control characters": "\x00" * 100_000,
    "messages": [{"role": "user", "content": "Hi"}] * 10_000,
    "deep": nested(2000),
    "deep ones": [nested(90)] * 1000,
}


@pytest.mark.parametrize("huge", HUGE.values(), ids=HUGE)
def test_whatever_is_sent_what_is_kept_is_bounded(huge: Any) -> None:
    bounds = Bounded(10_000)
    shown = json.dumps(bounds.copy({"messages": huge}), ensure_ascii=False)
    assert bounds.cut
    assert len(shown.replace("\\u0000", "0").encode()) < 10_000 + 100 * 30


async def test_a_match_that_a_cut_goes_through_is_not_kept(database: Away) -> None:
    """Also where what was replaced before it was so long that the cut comes into what is kept."""
    log = kept(database, redact=[r"DE\d{20}", r"x+"], max_bytes=1024)
    iban = "DE02120300000000202051"
    for fill in "ax":
        for start in (*range(950, 1030, 7), *range(950 + SLACK, 1030 + SLACK, 7)):
            text = f"{fill * start} {iban}{'y' * 9000}"
            answer = {"text": Unfinished(text[: 1024 + SLACK]), "reasoning": Unfinished("DE021")}
            request = {"messages": [{"content": text}]}
            log.note(Exchange(1e9, "u", "r", CHAT_ROUTES[0], "chat", request, answer))
    assert await log.flush(10) == 0
    for row in await rows(database):
        assert "DE0" not in json.dumps([row.request, row.answer])


async def test_no_long_part_of_an_answer_costs_another(database: Away) -> None:
    log = kept(database, max_bytes=1024)
    places = [{"document_id": "d" * 50, "page": 1, "cited": True}] * 10
    answer = {"status": 200, "text": "é" * 1000, "reasoning": "y" * 500, "passages": places}
    log.note(Exchange(1e9, "u", "r", CHAT_ROUTES[0], "chat", {}, answer))
    assert await log.flush(10) == 0
    [row] = await rows(database)
    assert row.answer["text"].startswith("é" * 500)
    assert {**row.answer, "text": ""} == {**answer, "text": "", "cut": True}


async def test_the_model_s_name_is_a_client_s_text(database: Away) -> None:
    log = kept(database, redact=[r"DE\d{20}"])
    for model in ("Is DE02120300000000202051 mine?", "x" * 250 + "DE02120300000000202051"):
        log.note(Exchange(1e9, "u", "r", CHAT_ROUTES[0], model, {}, {}))
    assert await log.flush(10) == 0
    assert [row.model for row in await rows(database)] == ["Is [redacted] mine?", "x" * 250 + "[reda"]


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
