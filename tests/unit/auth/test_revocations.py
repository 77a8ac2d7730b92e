"""Who was signed out is refused: at once here, soon in other processes, and never let in unchecked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import select

from plugins.auth._revocations import Revocations
from plugins.collections.database import Database
from plugins.collections.tables import revocations
from plugins.core.config import StorageConfig
from plugins.core.errors import IdentityUnavailable, Unauthenticated, Upstream
from plugins.core.identity import Principal
from plugins.core.ports import Ended
from tests.support.migrated import migrated

NOW = time.time()


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(migrated(StorageConfig(data_dir=tmp_path)))
    yield made
    await made.close()


def principal(session: str | None = "s1", issued_at: float | None = NOW, **changed: str) -> Principal:
    own = {"source": "keycloak", "subject": "id-of-alice", "username": "alice", **changed}
    return Principal(session=session, issued_at=issued_at, **own)


def ended(session: str | None = None, subject: str | None = "id-of-alice", at: float = NOW) -> Ended:
    return Ended("keycloak", subject, session, at)


async def is_refused(guard: Revocations, who: Principal) -> bool:
    try:
        await guard(who)
    except Unauthenticated as error:
        return "signed out" in error.message
    return False


async def test_an_ended_session_is_refused_whenever_its_token_was_issued(database: Database) -> None:
    guard = Revocations(database, 60)
    assert not await is_refused(guard, principal())
    await guard.revoke(ended("s1"))
    assert await is_refused(guard, principal())
    assert await is_refused(guard, principal(issued_at=NOW + 100))
    assert not await is_refused(guard, principal("s2"))
    assert not await is_refused(guard, principal(None)), "the subject has other sessions"
    assert not await is_refused(guard, principal(source="partner"))


async def test_an_ended_subject_is_refused_with_every_token_of_before(database: Database) -> None:
    guard = Revocations(database, 60)
    await guard.revoke(ended())
    assert await is_refused(guard, principal("s1", NOW))
    assert await is_refused(guard, principal("s2", NOW - 1))
    assert await is_refused(guard, principal(None, None))
    assert not await is_refused(guard, principal("s3", NOW + 1)), "they signed in again"
    assert not await is_refused(guard, principal(subject="id-of-bob"))
    assert not await is_refused(guard, principal(source="partner"))


async def test_a_logout_token_that_comes_late_lets_nobody_in_again(database: Database) -> None:
    guard, other = Revocations(database, 60), Revocations(database, 60)
    assert not await is_refused(guard, principal()), "from here on it knows what it did itself"
    await guard.revoke(ended(at=NOW))
    await guard.revoke(ended(at=NOW - 100))
    for process in (guard, other):
        assert await is_refused(process, principal(issued_at=NOW - 50))


async def test_another_process_knows_within_a_bounded_time(database: Database) -> None:
    here, there = Revocations(database, 60), Revocations(database, 60)
    assert not await is_refused(there, principal())
    await here.revoke(ended("s1"))
    deadline = time.monotonic() + 10
    while not await is_refused(there, principal()):
        assert time.monotonic() < deadline, "the other process never heard of it"
        await asyncio.sleep(0.02)


async def test_another_process_also_hears_of_it_after_revocations_were_kept_longer(
    database: Database,
) -> None:
    await Revocations(database, 86_400).revoke(ended("of the time before a shorter revocation_s"))
    here, there = Revocations(database, 60), Revocations(database, 60)
    assert not await is_refused(there, principal())
    await here.revoke(ended("s1"))
    deadline = time.monotonic() + 10
    while not await is_refused(there, principal()):
        assert time.monotonic() < deadline, "the other process never heard of it"
        await asyncio.sleep(0.02)


async def test_what_was_revoked_outlives_a_restart_and_not_its_time(database: Database) -> None:
    await Revocations(database, 60).revoke(ended("s1"))
    await Revocations(database, -1).revoke(ended("s2"))
    again = Revocations(database, 60)
    assert await is_refused(again, principal("s1"))
    assert not await is_refused(again, principal("s2"))


async def test_what_is_over_is_removed_from_the_database(database: Database) -> None:
    await Revocations(database, -1).revoke(ended("s1"))
    await Revocations(database, 60).revoke(ended("s2"))
    async with database.read() as connection:
        assert len((await connection.execute(select(revocations))).all()) == 1


async def test_one_read_serves_all_requests_of_a_second(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = 0, database.read

    def counted() -> object:
        nonlocal reads
        reads += 1
        return read()

    monkeypatch.setattr(database, "read", counted)
    monkeypatch.setattr("plugins.auth._revocations.FRESH_S", 3600.0)
    guard = Revocations(database, 60)
    await asyncio.gather(*(guard(principal()) for _ in range(20)))
    await guard(principal())
    assert reads == 1


async def test_while_the_database_is_down_nobody_is_let_in(tmp_path: Path) -> None:
    nowhere = Database(f"sqlite+aiosqlite:///{tmp_path}/no/such/folder/x.db")
    guard = Revocations(nowhere, 60)
    with pytest.raises(IdentityUnavailable):
        await guard(principal())
    with pytest.raises(Upstream):
        await guard.revoke(ended("s1"))
    await guard.close()
