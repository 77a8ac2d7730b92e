"""What is remembered of callers' rights in the store, for how long, and what is never believed."""

from __future__ import annotations

import asyncio
import time

import pytest
from pydantic import SecretStr

from crawler.errors import CredentialRefused, StoreError, StoreRefused, StoreUnavailable
from crawler.store import Privileges
from plugins.collections import standings
from plugins.collections.standings import NOBODY, Standings
from plugins.core.errors import LimitReached
from plugins.core.identity import Principal
from tests.support.collections import person
from tests.support.fake_rights_store import FakeRightsStore, Person

ALICE = "alice:secret"
READS = Privileges(rights={"handbook": frozenset({"query"})})


def caller(credential: str | None, name: str = "alice") -> Principal:
    given = SecretStr(credential) if credential is not None else None
    return person(name).model_copy(update={"store_credential": given})


@pytest.fixture
def store() -> FakeRightsStore:
    return FakeRightsStore({ALICE: Person(frozenset({"handbook", "canteen"}), READS)})


@pytest.fixture
def always_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No listing is remembered, so that only the privileges are."""
    monkeypatch.setattr(standings, "LISTING_S", 0.0)


async def test_what_is_listed_may_be_discovered_and_the_roles_say_the_rest(store: FakeRightsStore) -> None:
    standing = await Standings(store, 30).of(caller(ALICE))
    assert standing.rights("handbook") == {"discover", "query"}
    assert standing.rights("canteen") == {"discover"}
    assert standing.rights("payroll") == set()


async def test_without_a_credential_the_store_is_not_asked(store: FakeRightsStore) -> None:
    assert await Standings(store, 30).of(caller(None)) is NOBODY
    assert store.listed == []


async def test_the_answers_are_remembered(store: FakeRightsStore) -> None:
    known = Standings(store, 30)
    for _ in range(5):
        await known.of(caller(ALICE))
    assert (len(store.listed), len(store.described)) == (1, 1)


async def test_many_requests_at_once_ask_once(store: FakeRightsStore) -> None:
    known = Standings(store, 30)
    await asyncio.gather(*(known.of(caller(ALICE)) for _ in range(20)))
    assert (len(store.listed), len(store.described)) == (1, 1)


@pytest.mark.usefixtures("always_listed")
@pytest.mark.parametrize(("seconds", "asked"), [(30, 1), (0, 3)])
async def test_privileges_are_remembered_for_as_long_as_told(
    store: FakeRightsStore, seconds: float, asked: int
) -> None:
    known = Standings(store, seconds)
    for _ in range(3):
        await known.of(caller(ALICE))
    assert (len(store.listed), len(store.described)) == (3, asked)


async def test_a_listing_from_before_a_change_does_not_count(store: FakeRightsStore) -> None:
    known = Standings(store, 30)
    first = await known.of(caller(ALICE))
    store.people[ALICE] = Person(frozenset({"handbook", "new"}), READS)
    assert "new" not in first.visible
    assert "new" in (await known.of(caller(ALICE), since=time.time() + 1)).visible


async def test_nobody_gets_what_another_credential_of_the_same_user_opened(store: FakeRightsStore) -> None:
    known = Standings(store, 30)
    await known.of(caller(ALICE))
    for wrong in ("alice:secre", "alice:secret2", "alice:", "alice", ""):
        standing = await known.of(caller(wrong))
        assert isinstance(standing.problem, CredentialRefused), wrong
        assert standing.rights("handbook") == set()


@pytest.mark.usefixtures("always_listed")
@pytest.mark.parametrize("error", [StoreUnavailable(), CredentialRefused(), StoreRefused()])
async def test_what_was_known_is_forgotten_as_soon_as_the_store_does_not_confirm_it(
    store: FakeRightsStore, error: StoreError
) -> None:
    known = Standings(store, 60)
    assert (await known.of(caller(ALICE))).rights("handbook")
    store.fails = error
    standing = await known.of(caller(ALICE))
    assert type(standing.problem) is type(error)
    assert standing.rights("handbook") == set()
    with pytest.raises(type(error)):
        standing.check()


async def test_where_the_service_may_not_look_at_roles_callers_have_none(
    store: FakeRightsStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.privileges_fail = StoreRefused()
    standing = await Standings(store, 30).of(caller(ALICE))
    assert standing.problem is None
    assert standing.rights("handbook") == {"discover"}
    assert "SelectUser" in caplog.text
    assert "secret" not in caplog.text


async def test_a_store_that_does_not_answer_is_not_waited_for(
    store: FakeRightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings, "TIMEOUT_S", 0.01)
    store.hangs = asyncio.Event()
    standing = await asyncio.wait_for(Standings(store, 30).of(caller(ALICE)), 10)
    assert isinstance(standing.problem, StoreUnavailable)


async def test_the_number_of_callers_that_are_remembered_is_bounded(
    store: FakeRightsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(standings, "MAX_CALLERS", 3)
    known = Standings(store, 30)
    await known.of(caller(ALICE))
    for number in range(3):
        await known.of(caller(f"u{number}:x"))
    await known.of(caller(ALICE))
    assert store.listed.count(ALICE) == 2
    await known.of(caller("u2:x"))
    assert store.listed.count("u2:x") == 1


async def test_nobody_can_guess_credentials_of_the_store_without_end(store: FakeRightsStore) -> None:
    known = Standings(store, 30)
    guesses = [known.of(caller(f"root:{number}", "mallory")) for number in range(100)]
    found = await asyncio.gather(*guesses)
    assert len(store.listed) == standings.MAX_GUESSES
    refused = [standing.problem for standing in found if isinstance(standing.problem, LimitReached)]
    assert len(refused) == 100 - standings.MAX_GUESSES
    with pytest.raises(LimitReached, match="Wait a minute"):
        (await known.of(caller("root:again", "mallory"))).check()
    assert (await known.of(caller(ALICE))).rights("handbook"), "others are not kept out"


async def test_good_credentials_and_outages_are_no_guesses(store: FakeRightsStore) -> None:
    known = Standings(store, 30)
    store.fails = StoreUnavailable()
    for number in range(standings.MAX_GUESSES + 5):
        await known.of(caller(f"alice:{number}"))
    store.fails = None
    assert (await known.of(caller(ALICE))).problem is None
