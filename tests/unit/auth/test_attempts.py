"""How often a password may be tried, at whichever process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from plugins.auth._attempts import ACCOUNT, ADDRESS, FORGET_S, PAIR, Attempts
from plugins.collections import tables
from plugins.collections.database import Database
from plugins.core.config import StorageConfig
from plugins.core.errors import LimitReached
from tests.support.migrated import migrated


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(migrated(StorageConfig(data_dir=tmp_path / "data")))
    yield made
    await made.close()


@pytest.fixture
def attempts(database: Database, clock: Clock) -> Attempts:
    return Attempts(database, clock)


async def wait(attempts: Attempts, account: str = "alice", address: str = "10.0.0.1") -> int:
    """Seconds to wait for the next try; 0 = it was made, and counts as failed."""
    try:
        await attempts.begin(account, address)
    except LimitReached as error:
        return error.retry_after_s or -1
    return 0


async def test_failures_make_the_next_tries_wait_twice_as_long_each_up_to_a_minute(
    attempts: Attempts, clock: Clock
) -> None:
    assert [await wait(attempts) for _ in range(PAIR.free)] == [0] * PAIR.free
    waits = []
    for _ in range(8):
        waits.append(await wait(attempts))
        clock.now += waits[-1]
        assert await wait(attempts) == 0
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]


async def test_many_tries_at_once_at_two_processes_gain_nothing(
    attempts: Attempts, database: Database
) -> None:
    other = Attempts(database, attempts._clock)
    waits = await asyncio.gather(*(wait(here) for _ in range(20) for here in (attempts, other)))
    assert waits.count(0) == PAIR.free


async def test_the_name_of_an_account_is_the_same_however_it_is_written(attempts: Attempts) -> None:
    for name in ("alice", "Alice", " ALICE ", "alice\t", "aLice"):
        assert await wait(attempts, name) == 0
    assert await wait(attempts) > 0


async def test_nobody_can_lock_somebody_else_out_for_long(attempts: Attempts, clock: Clock) -> None:
    """From many addresses."""
    for number in range(60):
        while await wait(attempts, "alice", f"10.0.{number}.1"):
            clock.now += 1
    assert 0 < await wait(attempts, "alice", "192.0.2.7") <= ACCOUNT.max_delay_s
    assert await wait(attempts, "bob", "192.0.2.7") == 0


async def test_one_address_cannot_try_many_accounts(attempts: Attempts) -> None:
    tried = [await wait(attempts, f"user{number}") for number in range(100)]
    assert tried.count(0) == ADDRESS.free


async def test_a_network_of_ipv6_counts_as_one_address(attempts: Attempts) -> None:
    for number in range(25):
        await wait(attempts, f"somebody{number}", f"2001:db8::{number:x}")
    assert await wait(attempts, "bob", "2001:db8::ffff") > 0
    assert await wait(attempts, "bob", "2001:db8:0:1::1") == 0
    assert await wait(attempts, "bob", "::ffff:10.0.0.7") == 0


async def test_a_right_password_forgets_ones_own_failures_and_not_those_of_the_address(
    attempts: Attempts, clock: Clock
) -> None:
    for _ in range(4):
        assert await wait(attempts) == 0
    assert await wait(attempts) == 0
    await attempts.succeeded("alice", "10.0.0.1")
    assert [await wait(attempts) for _ in range(PAIR.free)] == [0] * PAIR.free
    guesses = 0
    while await wait(attempts, f"guess{guesses}") == 0 and await wait(attempts, "mallory") == 0:
        await attempts.succeeded("mallory", "10.0.0.1")
        guesses += 1
        assert guesses < ADDRESS.free


async def test_what_told_nothing_does_not_count(attempts: Attempts) -> None:
    for _ in range(100):
        assert await wait(attempts) == 0
        await attempts.undo("alice", "10.0.0.1")


async def test_failures_are_forgotten(attempts: Attempts, clock: Clock) -> None:
    for _ in range(PAIR.free):
        await wait(attempts)
    assert await wait(attempts) > 0
    clock.now += FORGET_S
    assert await wait(attempts) == 0


async def test_what_is_forgotten_leaves_nothing_behind(
    attempts: Attempts, clock: Clock, database: Database
) -> None:
    for number in range(20):
        await wait(attempts, f"{number}" * 100, f"10.1.{number}")
    clock.now += FORGET_S
    await wait(attempts)
    async with database.read() as connection:
        assert await connection.scalar(select(func.count()).select_from(tables.attempts)) == 3
