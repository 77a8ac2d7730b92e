"""One leads a duty; where it is gone, another one does."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from plugins.collections import leaders
from plugins.collections.leaders import Leader
from tests.support.collections import World


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leaders, "now", clock)
    return clock


def three(world: World, duty: str = "sweep") -> list[Leader]:
    return [Leader(world.database, duty, f"process-{number}", lease_s=10) for number in range(3)]


async def who(candidates: list[Leader]) -> list[bool]:
    return [await candidate.leads() for candidate in candidates]


async def test_of_many_at_once_one_leads(world: World) -> None:
    candidates = three(world)
    found = await asyncio.gather(*(candidate.leads() for candidate in candidates))
    assert Counter(found) == {True: 1, False: 2}


async def test_a_leader_that_asks_goes_on_leading(world: World, clock: Clock) -> None:
    candidates = three(world)
    for _ in range(20):
        assert await who(candidates) == [True, False, False]
        clock.now += 3


async def test_a_leader_that_is_gone_is_replaced_when_its_lease_has_run_out(
    world: World, clock: Clock
) -> None:
    first, second, third = three(world)
    assert await first.leads()
    clock.now += 9
    assert not await second.leads()
    clock.now += 2
    assert await who([second, third]) == [True, False]
    assert not await first.leads()


async def test_who_resigns_is_followed_at_once(world: World, clock: Clock) -> None:
    first, second, _ = three(world)
    assert await first.leads()
    await first.resign()
    assert await who([second, first]) == [True, False]


async def test_who_does_not_lead_takes_nothing_away_by_resigning(world: World, clock: Clock) -> None:
    first, second, third = three(world)
    assert await first.leads()
    await second.resign()
    assert await who([first, third]) == [True, False]


async def test_each_duty_has_a_leader_of_its_own(world: World, clock: Clock) -> None:
    [here, *_], [_, there, _] = three(world, "sweep"), three(world, "retention")
    assert await who([here, there]) == [True, True]


async def test_the_clock_of_a_leader_that_is_far_ahead_keeps_nobody_waiting_for_the_next_question(
    world: World, clock: Clock
) -> None:
    first, second, _ = three(world)
    clock.now += 1_000_000
    assert await first.leads()
    clock.now -= 1_000_000
    assert not await second.leads()
    await first.resign()
    clock.now += 11
    assert await second.leads()
