"""How often GitLab is asked about a token, how long its answer counts, and what while it is down."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable

import pytest

from plugins.auth import _answers
from plugins.auth.gitlab import Gitlab
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from tests.support.gitlab import Gitlab as Server
from tests.support.gitlab_sign_in import INFO, USER, server, source, source_for
from tests.support.oidc import refusal, sign_in

__all__ = ["server", "source"]


async def until(good: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(10):
        while True:
            if await good():
                return
            await asyncio.sleep(0.01)


async def until_refused(source: Gitlab, token: str) -> None:
    """Wait until what was kept of the token has run out and it is refused."""

    async def refused() -> bool:
        try:
            await sign_in(source, token)
        except Unauthenticated:
            return True
        return False

    await until(refused)


async def until_asked(server: Server) -> None:
    async def asked() -> bool:
        return bool(server.requests)

    await until(asked)


async def test_a_token_is_asked_about_once_while_its_answer_counts(source: Gitlab, server: Server) -> None:
    token = server.token()
    people = await asyncio.gather(*(sign_in(source, token) for _ in range(50)))
    people.append(await sign_in(source, token))
    assert {person.user_id for person in people} == {"gitlab/alice"}
    assert server.requests == [INFO, USER]


async def test_tokens_with_a_common_beginning_are_different_tokens(source: Gitlab, server: Server) -> None:
    token = server.token("alice")
    await sign_in(source, token)
    last = "1" if token.endswith("0") else "0"
    for other in (token[:-1] + last, token[:-1], token + "0", token.upper() + "_"):
        assert "Sign in again" in await refusal(source, other)


async def test_a_request_that_is_given_up_does_not_end_the_others(source: Gitlab, server: Server) -> None:
    token = server.token()
    server.open.clear()
    waiting = [asyncio.create_task(sign_in(source, token)) for _ in range(3)]
    await until_asked(server)
    waiting[0].cancel()
    server.open.set()
    assert [person.username for person in await asyncio.gather(*waiting[1:])] == ["alice", "alice"]
    assert server.requests == [INFO, USER]


async def test_a_revoked_token_is_refused_when_its_answer_has_run_out(server: Server) -> None:
    source = source_for(server, cache_s=0.05)
    token = server.token()
    await sign_in(source, token)
    server.revoke(token)
    await until_refused(source, token)
    await source.close()


async def test_nothing_of_a_token_is_kept_longer_than_it_lives(server: Server) -> None:
    source = source_for(server, cache_s=300)
    token = server.token(expires_in=1)
    await sign_in(source, token)
    server.revoke(token)
    await until_refused(source, token)
    await source.close()


async def test_a_token_that_does_not_expire_is_asked_about_as_often_as_others(
    server: Server,
) -> None:
    source = source_for(server, cache_s=0.05)
    token = server.token(expires_in=None)
    await sign_in(source, token)
    server.revoke(token)
    await until_refused(source, token)
    await source.close()


async def test_changed_groups_count_from_the_next_answer(server: Server) -> None:
    source = source_for(server, cache_s=0.05)
    token = server.token("bob")
    assert (await sign_in(source, token)).groups == {"staff"}
    server.change(token, groups=["hr"])

    async def changed() -> bool:
        return (await sign_in(source, token)).groups == {"hr"}

    await until(changed)
    await source.close()


async def test_while_gitlab_is_down_only_tokens_whose_answer_still_counts_are_let_in(
    source: Gitlab, server: Server
) -> None:
    known, new = server.token("alice"), server.token("bob")
    await sign_in(source, known)
    server.down = True
    assert await sign_in(source, known)
    for _ in range(2):
        with pytest.raises(IdentityUnavailable):
            await sign_in(source, new)
    with pytest.raises(IdentityUnavailable):
        await source.ping()
    server.down = False
    assert (await sign_in(source, new)).username == "bob"
    await source.ping()


async def test_an_answer_that_has_run_out_does_not_count_while_gitlab_is_down(
    server: Server,
) -> None:
    source = source_for(server, cache_s=0.05)
    token = server.token()
    await sign_in(source, token)
    server.down = True

    async def unavailable() -> bool:
        try:
            await sign_in(source, token)
        except IdentityUnavailable:
            return True
        return False

    await until(unavailable)
    await source.close()


async def test_many_unknown_tokens_cost_gitlab_a_bounded_number_of_requests(
    server: Server,
) -> None:
    source = source_for(server, timeout_s=60)
    known = server.token("alice")
    await sign_in(source, known)
    began = time.monotonic()
    garbage = [secrets.token_hex(32) for _ in range(3 * _answers.BURST)]
    answers = await asyncio.gather(*(sign_in(source, token) for token in garbage), return_exceptions=True)
    asked = len(server.requests) - 2
    allowed = _answers.BURST + (time.monotonic() - began) * _answers.PER_S + 1
    assert _answers.BURST <= asked <= allowed
    assert {type(answer) for answer in answers} == {Unauthenticated, IdentityUnavailable}
    assert await sign_in(source, known), "who is signed in goes on"
    await source.close()


async def test_good_tokens_do_not_use_up_what_unknown_ones_may_cost(source: Gitlab, server: Server) -> None:
    for _ in range(_answers.BURST + 20):
        assert await sign_in(source, server.token("bob"))


async def test_refused_tokens_do_not_push_out_known_ones(
    source: Gitlab, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_answers, "MAX_TOKENS", 3)
    known = server.token()
    await sign_in(source, known)
    for _ in range(10):
        await refusal(source, secrets.token_hex(32))
    asked = len(server.requests)
    assert await sign_in(source, known)
    assert len(server.requests) == asked


async def test_the_least_used_of_too_many_tokens_is_forgotten(
    source: Gitlab, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_answers, "MAX_TOKENS", 2)
    first, second, third = (server.token() for _ in range(3))
    for token in (first, second, first, third):
        await sign_in(source, token)
    asked = len(server.requests)
    await sign_in(source, first)
    assert len(server.requests) == asked
    await sign_in(source, second)
    assert len(server.requests) == asked + 2


async def test_closing_ends_what_is_under_way(server: Server) -> None:
    source = source_for(server)
    server.open.clear()
    waiting = asyncio.create_task(sign_in(source, server.token()))
    await until_asked(server)
    async with asyncio.timeout(10):
        await source.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting
