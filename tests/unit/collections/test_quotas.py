"""How much people and collections may hold, and what is said when it is too much."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from plugins.core.config import CollectionQuota, LimitsConfig, Quota
from plugins.core.errors import ConfigError, LimitReached, TooLarge
from tests.support.collections import World, an_upload, person

BOB, CAROL = person("bob"), person("carol", "guests")
Limited = Callable[..., World]


@pytest.fixture
async def limited(world: World) -> AsyncIterator[Limited]:
    """The same installation with limits."""
    made: list[World] = []

    def make(**limits: Any) -> World:
        config = world.config.model_copy(update={"limits": LimitsConfig(**limits)})
        made.append(World(config, world.store))
        return made[-1]

    yield make
    for other in made:
        await other.database.close()


async def test_too_many_documents_are_refused_whole_and_leave_nothing(world: World, limited: Limited) -> None:
    strict = limited(quotas=[Quota(subjects=["user:kc/bob"], max_documents=3)])
    await world.collection(add=["user:kc/bob"])
    await strict.add("handbook", "one", by=BOB)
    uploads = [an_upload(f"text {number}") for number in range(3)]
    with pytest.raises(TooLarge, match="You have room for 3 documents, and with this it would be 4"):
        await strict.documents.add(BOB, "handbook", uploads)
    assert len((await world.documents.list(BOB, "handbook")).data) == 1
    kept = (world.config.storage.data_dir / "originals").rglob("*")
    assert len([path for path in kept if path.is_file()]) == 1
    await strict.documents.add(BOB, "handbook", uploads[:2])
    await strict.add("handbook", "nobody limits alice")


async def test_content_that_is_there_already_and_replacements_take_no_more_room(
    world: World, limited: Limited
) -> None:
    strict = limited(quotas=[Quota(subjects=["*"], max_documents=1, max_bytes=10)])
    await world.collection()
    first = await strict.add("handbook", "0123456789", document_id="doc-1")
    assert (await strict.add("handbook", "0123456789")).id == first.id
    await strict.add("handbook", "9876543210", document_id="doc-1")
    with pytest.raises(TooLarge, match="11 bytes"):
        await strict.add("handbook", "01234567890", document_id="doc-1")


async def test_what_was_deleted_makes_room(world: World, limited: Limited) -> None:
    strict = limited(quotas=[Quota(subjects=["*"], max_documents=1)])
    await world.collection()
    first = await strict.add("handbook", "one")
    with pytest.raises(TooLarge):
        await strict.add("handbook", "two")
    await world.documents.delete(world.alice, "handbook", first.id)
    await strict.add("handbook", "two")


async def test_the_days_bytes_are_counted_also_of_what_was_deleted(world: World, limited: Limited) -> None:
    strict = limited(quotas=[Quota(subjects=["user:kc/alice"], max_bytes_per_day=10)])
    await world.collection()
    first = await strict.add("handbook", "12345678")
    await world.documents.delete(world.alice, "handbook", first.id)
    with pytest.raises(LimitReached, match="tomorrow") as refused:
        await strict.add("handbook", "abc")
    assert refused.value.retry_after_s is not None
    assert 0 < refused.value.retry_after_s <= 86_400
    await strict.add("handbook", "ab")


async def test_the_days_bytes_begin_anew_with_the_day(
    world: World, limited: Limited, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = limited(quotas=[Quota(subjects=["*"], max_bytes_per_day=4)])
    await world.collection()
    for day in range(2):
        monkeypatch.setattr("plugins.collections.quotas.now", lambda day=day: 86_400.0 * (20_000 + day))
        await strict.add("handbook", f"day{day}")
        with pytest.raises(LimitReached):
            await strict.add("handbook", "more")


async def test_the_first_entry_that_names_a_person_counts(world: World, limited: Limited) -> None:
    strict = limited(
        quotas=[
            Quota(subjects=["group:kc/guests"], max_documents=1),
            Quota(subjects=["*"], max_documents=2),
        ]
    )
    await world.collection(add=["*"])
    for who, room in ((CAROL, 1), (BOB, 2)):
        for number in range(room):
            await strict.add("handbook", f"{who.username} {number}", by=who)
        with pytest.raises(TooLarge):
            await strict.add("handbook", f"{who.username} more", by=who)


async def test_a_collection_holds_so_much_whoever_adds(world: World, limited: Limited) -> None:
    strict = limited(collections=[CollectionQuota(names="hand*", max_documents=2, max_bytes=100)])
    await world.collection(add=["*"])
    await world.collection("other")
    await strict.add("handbook", "one")
    await strict.add("handbook", "two", by=BOB)
    with pytest.raises(TooLarge, match="This collection has room for 2 documents"):
        await strict.add("handbook", "three", by=BOB)
    await strict.add("other", "x" * 1000)


async def test_a_subject_of_no_source_stops_the_start(limited: Limited) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        limited(quotas=[Quota(subjects=["group:nowhere/x"], max_documents=1)])
