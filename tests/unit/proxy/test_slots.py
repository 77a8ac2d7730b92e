"""The slot of a chat's later rounds in LiteLLM's own gauge of parallel requests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from litellm.caching.dual_cache import DualCache
from litellm.proxy import proxy_server
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.hooks.parallel_request_limiter_v3 import _PROXY_MaxParallelRequestsHandler_v3
from litellm.proxy.utils import InternalUsageCache

from plugins.proxy.auth import PrincipalAuth
from plugins.proxy.slots import parallel_slot
from tests.support.fake_proxy import ANSWER, said
from tests.support.services import ALICE

LIMITED = UserAPIKeyAuth(api_key="hash-of-alice", max_parallel_requests=2)
UNLIMITED = UserAPIKeyAuth(api_key="hash-of-bob")


class Limiter(_PROXY_MaxParallelRequestsHandler_v3):
    """LiteLLM's, which a test can hold up while a slot is taken."""

    def __init__(self) -> None:
        super().__init__(InternalUsageCache(DualCache()))
        self.open = asyncio.Event()
        self.open.set()
        self.asked = asyncio.Event()

    async def should_rate_limit(self, *args: Any, **kwargs: Any) -> Any:
        self.asked.set()
        await self.open.wait()
        return await super().should_rate_limit(*args, **kwargs)

    async def taken(self, auth: UserAPIKeyAuth) -> int:
        key = self.create_rate_limit_keys("api_key", auth.api_key or "", "max_parallel_requests")
        return (await self._read_local_gauge_counts([key]))[0]


@pytest.fixture
async def limiter(monkeypatch: pytest.MonkeyPatch) -> Limiter:
    made = Limiter()
    monkeypatch.setattr(proxy_server.proxy_logging_obj, "get_proxy_hook", lambda name: made)
    return made


async def test_a_slot_is_taken_for_as_long_as_the_block_lasts(limiter: Limiter) -> None:
    async with parallel_slot(LIMITED):
        assert await limiter.taken(LIMITED) == 1
    assert await limiter.taken(LIMITED) == 0


async def test_what_has_begun_is_counted_beyond_the_limit(limiter: Limiter) -> None:
    async with parallel_slot(LIMITED), parallel_slot(LIMITED), parallel_slot(LIMITED):
        assert await limiter.taken(LIMITED) == 3
    assert await limiter.taken(LIMITED) == 0


async def test_an_error_in_the_block_gives_the_slot_back(limiter: Limiter) -> None:
    with pytest.raises(ZeroDivisionError):
        async with parallel_slot(LIMITED):
            raise ZeroDivisionError
    assert await limiter.taken(LIMITED) == 0


async def test_who_has_no_limit_takes_nothing(limiter: Limiter) -> None:
    async with parallel_slot(UNLIMITED):
        assert not limiter.asked.is_set()


async def test_a_request_cancelled_while_it_takes_its_slot_leaves_none(limiter: Limiter) -> None:
    limiter.open.clear()

    async def hold() -> None:
        async with parallel_slot(LIMITED):
            pytest.fail("it was cancelled before")

    task = asyncio.create_task(hold())
    await limiter.asked.wait()
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()  # and again while it waits for the slot to be given back
    limiter.open.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=5)
    assert await limiter.taken(LIMITED) == 0


async def test_a_chat_takes_its_slot_where_it_goes_on_and_gives_it_back_at_its_end(
    limiter: Limiter, proxy_with: Any
) -> None:
    proxy = proxy_with(*ANSWER)
    proxy.auth = PrincipalAuth(api_key=LIMITED.api_key, max_parallel_requests=2, principal=ALICE)
    taken: list[int] = []
    async for chunk in proxy.chunks(await proxy.begin(stream=True)):
        if said([chunk]):
            taken.append(await limiter.taken(LIMITED))
    assert taken[0] == 0, "the first round has LiteLLM's"
    assert set(taken[1:]) == {1}
    assert await limiter.taken(LIMITED) == 0
