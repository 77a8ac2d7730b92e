"""GitLab's opaque access tokens: who is let in, whose tokens are not, and how often GitLab is asked."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from plugins.auth import _answers
from plugins.auth.gitlab import Gitlab, GitlabSettings
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.identity import Credential, Principal
from tests.support import gitlab as support

INFO, USER = "/oauth/token/info", "/oauth/userinfo"


@pytest.fixture
def server() -> Iterator[support.Gitlab]:
    with support.gitlab() as running:
        yield running


@pytest.fixture
async def source(server: support.Gitlab) -> AsyncIterator[Gitlab]:
    made = source_for(server)
    yield made
    await made.close()


def source_for(server: support.Gitlab, **settings: Any) -> Gitlab:
    return Gitlab(GitlabSettings(**{**server.settings, **settings}), "gitlab")


def bearer(token: str | None) -> Credential:
    return Credential(bearer=SecretStr(token) if token is not None else None, headers={}, peer="")


async def sign_in(source: Gitlab, token: str) -> Principal:
    return await source.authenticate(bearer(token))


async def refusal(source: Gitlab, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await sign_in(source, token)
    return caught.value.message


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


async def until_asked(server: support.Gitlab) -> None:
    async def asked() -> bool:
        return bool(server.requests)

    await until(asked)


async def test_an_access_token_becomes_the_principal_that_gitlab_names(
    source: Gitlab, server: support.Gitlab
) -> None:
    token = server.token("alice")
    principal = await sign_in(source, token)
    assert (principal.user_id, principal.subject, principal.issuer) == ("gitlab/alice", "42", server.url)
    assert principal.email == "alice@example.test"
    assert principal.subjects == {
        "*",
        "user:gitlab/alice",
        "group:gitlab/finance",
        "group:gitlab/finance/eu",
        "group:gitlab/staff",
        "role:gitlab/owner:finance",
        "role:gitlab/maintainer:finance/eu",
        "role:gitlab/developer:staff",
    }
    assert principal.token is not None
    assert principal.token.get_secret_value() == token
    assert token not in repr(principal) + principal.model_dump_json()


async def test_the_token_is_sent_in_a_header_and_never_in_an_address(
    source: Gitlab, server: support.Gitlab
) -> None:
    await sign_in(source, server.token())
    assert server.requests == [INFO, USER]


@pytest.mark.parametrize(
    ("claim", "name"), [("preferred_username", "alice"), ("nickname", "alice"), ("sub", "42")]
)
async def test_the_name_comes_from_the_configured_claim(
    server: support.Gitlab, claim: str, name: str
) -> None:
    source = source_for(server, username_claim=claim)
    assert (await sign_in(source, server.token())).username == name
    await source.close()


@pytest.mark.parametrize("verified", [False, None, "true"])
async def test_an_address_that_is_not_verified_is_left_out(
    source: Gitlab, server: support.Gitlab, verified: object
) -> None:
    assert (await sign_in(source, server.token(user={"email_verified": verified}))).email is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"application": {"uid": "of-an-attacker"}}, "another GitLab application"),
        ({"application": {"uid": None}}, "another GitLab application"),
        ({"application": {}}, "another GitLab application"),
        ({"application": None}, "another GitLab application"),
        ({"application": [support.APPLICATION]}, "another GitLab application"),
        ({"scope": ["api"]}, "lacks the scope `openid`"),
        ({"scope": "openid"}, "lacks the scope `openid`"),
        ({"scope": None}, "lacks the scope `openid`"),
        ({"resource_owner_id": None}, "stands for an application and not for a user"),
        ({"expires_in": 0}, "has expired"),
        ({"expires_in": -5}, "has expired"),
        ({"expires_in": "never"}, "has expired"),
    ],
)
async def test_a_token_that_is_not_for_us_is_refused_without_asking_for_its_user(
    source: Gitlab, server: support.Gitlab, changed: dict[str, Any], reason: str
) -> None:
    assert reason in await refusal(source, server.token(**changed))
    assert server.requests == [INFO]


@pytest.mark.parametrize("name", [None, "", 7, "alice\nroot", "a" * 256])
async def test_a_user_without_a_usable_name_is_refused(
    source: Gitlab, server: support.Gitlab, name: object
) -> None:
    assert "does not name the user" in await refusal(source, server.token(user={"preferred_username": name}))


@pytest.mark.parametrize("sub", ["43", 43, None, "", "alice", True])
async def test_two_answers_about_different_users_let_nobody_in(
    source: Gitlab, server: support.Gitlab, sub: object
) -> None:
    with pytest.raises(IdentityUnavailable):
        await sign_in(source, server.token("alice", user={"sub": sub}))


async def test_an_unknown_token_is_refused_and_not_asked_about_again_at_once(
    source: Gitlab, server: support.Gitlab
) -> None:
    unknown = secrets.token_hex(32)
    first, second = await refusal(source, unknown), await refusal(source, unknown)
    assert first == second
    assert "Sign in again" in first
    assert server.requests == [INFO]


async def test_a_personal_access_token_is_refused_and_never_sent(
    source: Gitlab, server: support.Gitlab
) -> None:
    token = "glpat-0123456789abcdefghij"
    assert source.accepts(bearer(token))
    assert "personal access token" in await refusal(source, token)
    assert server.requests == []


@pytest.mark.parametrize(
    "token",
    [
        None,
        "",
        "short",
        "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2ln",
        "sk-virtual-key-0123456789abcdef",
        "litellm_login_0123456789abcdef",
        "x" * 256,
        "0123456789abcdef 0123456789abcdef",
        "0123456789abcdef0123456789abcdef\r\nX-Admin: 1",
        "0123456789abcdef0123456789abcdef\n",
        "é" * 64,
    ],
)
async def test_what_cannot_be_its_token_is_left_to_others_and_never_sent(
    source: Gitlab, server: support.Gitlab, token: str | None
) -> None:
    assert not source.accepts(bearer(token))
    with pytest.raises(Unauthenticated):
        await source.authenticate(bearer(token))
    assert server.requests == []


async def test_a_token_is_asked_about_once_while_its_answer_counts(
    source: Gitlab, server: support.Gitlab
) -> None:
    token = server.token()
    people = await asyncio.gather(*(sign_in(source, token) for _ in range(50)))
    people.append(await sign_in(source, token))
    assert {person.user_id for person in people} == {"gitlab/alice"}
    assert server.requests == [INFO, USER]


async def test_tokens_with_a_common_beginning_are_different_tokens(
    source: Gitlab, server: support.Gitlab
) -> None:
    token = server.token("alice")
    await sign_in(source, token)
    last = "1" if token.endswith("0") else "0"
    for other in (token[:-1] + last, token[:-1], token + "0", token.upper() + "_"):
        assert "Sign in again" in await refusal(source, other)


async def test_a_request_that_is_given_up_does_not_end_the_others(
    source: Gitlab, server: support.Gitlab
) -> None:
    token = server.token()
    server.open.clear()
    waiting = [asyncio.create_task(sign_in(source, token)) for _ in range(3)]
    await until_asked(server)
    waiting[0].cancel()
    server.open.set()
    assert [person.username for person in await asyncio.gather(*waiting[1:])] == ["alice", "alice"]
    assert server.requests == [INFO, USER]


async def test_a_revoked_token_is_refused_when_its_answer_has_run_out(server: support.Gitlab) -> None:
    source = source_for(server, cache_s=0.05)
    token = server.token()
    await sign_in(source, token)
    server.revoke(token)
    await until_refused(source, token)
    await source.close()


async def test_nothing_of_a_token_is_kept_longer_than_it_lives(server: support.Gitlab) -> None:
    source = source_for(server, cache_s=300)
    token = server.token(expires_in=1)
    await sign_in(source, token)
    server.revoke(token)
    await until_refused(source, token)
    await source.close()


async def test_a_token_that_does_not_expire_is_asked_about_as_often_as_others(
    server: support.Gitlab,
) -> None:
    source = source_for(server, cache_s=0.05)
    token = server.token(expires_in=None)
    await sign_in(source, token)
    server.revoke(token)
    await until_refused(source, token)
    await source.close()


async def test_changed_groups_count_from_the_next_answer(server: support.Gitlab) -> None:
    source = source_for(server, cache_s=0.05)
    token = server.token("bob")
    assert (await sign_in(source, token)).groups == {"staff"}
    server.change(token, groups=["hr"])

    async def changed() -> bool:
        return (await sign_in(source, token)).groups == {"hr"}

    await until(changed)
    await source.close()


async def test_while_gitlab_is_down_only_tokens_whose_answer_still_counts_are_let_in(
    source: Gitlab, server: support.Gitlab
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
    server: support.Gitlab,
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


async def test_nobody_listening_and_no_answer_in_time_are_told_apart_from_a_bad_token(
    server: support.Gitlab,
) -> None:
    nobody = source_for(server, url="http://127.0.0.1:9")
    with pytest.raises(IdentityUnavailable):
        await sign_in(nobody, server.token())
    slow = source_for(server, timeout_s=0.05)
    server.open.clear()
    with pytest.raises(IdentityUnavailable):
        await sign_in(slow, server.token())
    server.open.set()
    await nobody.close()
    await slow.close()


@pytest.mark.parametrize("path", [INFO, USER])
@pytest.mark.parametrize(
    ("status", "body"),
    [
        (302, b""),
        (404, b"{}"),
        (429, b"{}"),
        (500, b"{}"),
        (200, b"<html>sign in</html>"),
        (200, b"[]"),
        (200, b""),
        (200, b'{"resource_owner_id": 1, "resource_owner_id": 42}'),
        (200, b'{"a": "' + b"x" * (1 << 20) + b'"}'),
        (200, b"[" * 100_000),
    ],
)
async def test_an_answer_that_is_not_gitlabs_lets_nobody_in(
    source: Gitlab, server: support.Gitlab, path: str, status: int, body: bytes
) -> None:
    server.overrides[path] = (status, body, {"Location": f"{server.url}/elsewhere"})
    with pytest.raises(IdentityUnavailable):
        await sign_in(source, server.token())
    assert "/elsewhere" not in server.requests, "redirects are not followed: the token would go with them"


async def test_many_unknown_tokens_cost_gitlab_a_bounded_number_of_requests(
    server: support.Gitlab,
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


async def test_good_tokens_do_not_use_up_what_unknown_ones_may_cost(
    source: Gitlab, server: support.Gitlab
) -> None:
    for _ in range(_answers.BURST + 20):
        assert await sign_in(source, server.token("bob"))


async def test_refused_tokens_do_not_push_out_known_ones(
    source: Gitlab, server: support.Gitlab, monkeypatch: pytest.MonkeyPatch
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
    source: Gitlab, server: support.Gitlab, monkeypatch: pytest.MonkeyPatch
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


async def test_no_log_line_has_a_token(
    source: Gitlab, server: support.Gitlab, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    good, unknown = server.token(), secrets.token_hex(32)
    await sign_in(source, good)
    await refusal(source, unknown)
    server.down = True
    new = server.token("bob")
    with pytest.raises(IdentityUnavailable) as caught:
        await sign_in(source, new)
    for token in (good, unknown, new):
        assert token not in caplog.text
        assert token not in repr(caught.value)
        assert token not in f"{vars(source)}{source!r}"
    assert "status 503" in caplog.text


async def test_closing_ends_what_is_under_way(server: support.Gitlab) -> None:
    source = source_for(server)
    server.open.clear()
    waiting = asyncio.create_task(sign_in(source, server.token()))
    await until_asked(server)
    async with asyncio.timeout(10):
        await source.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "gitlab.example.com"},
        {"url": "http://gitlab.example.com"},
        {"url": "https://user:pw@gitlab.example.com"},
        {"url": "https://gitlab.example.com/?a=b"},
        {"url": "ftp://gitlab.example.com"},
        {"applications": []},
        {"cache_s": 301},
        {"cache_s": 0},
        {"timeout_s": 0},
        {"ca_file": "/does/not/exist.pem"},
    ],
)
def test_unsafe_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GitlabSettings(**{"url": "https://gitlab.example.com", "applications": ["x"], **wrong})


def test_gitlab_may_live_under_a_path() -> None:
    settings = GitlabSettings(url="https://example.com/gitlab/", applications=["x"])
    assert settings.url == "https://example.com/gitlab"
