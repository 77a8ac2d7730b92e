"""GitLab's opaque access tokens: who is let in, and whose tokens are not."""

from __future__ import annotations

import logging
import secrets
from typing import Any

import pytest
from pydantic import ValidationError

from plugins.auth.gitlab import Gitlab, GitlabSettings
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from tests.support.gitlab import APPLICATION
from tests.support.gitlab import Gitlab as Server
from tests.support.gitlab_sign_in import INFO, USER, server, source, source_for
from tests.support.oidc import bearer, refusal, sign_in

__all__ = ["server", "source"]


async def test_an_access_token_becomes_the_principal_that_gitlab_names(
    source: Gitlab, server: Server
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


async def test_the_token_is_sent_in_a_header_and_never_in_an_address(source: Gitlab, server: Server) -> None:
    await sign_in(source, server.token())
    assert server.requests == [INFO, USER]


@pytest.mark.parametrize(
    ("claim", "name"), [("preferred_username", "alice"), ("nickname", "alice"), ("sub", "42")]
)
async def test_the_name_comes_from_the_configured_claim(server: Server, claim: str, name: str) -> None:
    source = source_for(server, username_claim=claim)
    assert (await sign_in(source, server.token())).username == name
    await source.close()


@pytest.mark.parametrize("verified", [False, None, "true"])
async def test_an_address_that_is_not_verified_is_left_out(
    source: Gitlab, server: Server, verified: object
) -> None:
    assert (await sign_in(source, server.token(user={"email_verified": verified}))).email is None


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"application": {"uid": "of-an-attacker"}}, "another GitLab application"),
        ({"application": {"uid": None}}, "another GitLab application"),
        ({"application": {}}, "another GitLab application"),
        ({"application": None}, "another GitLab application"),
        ({"application": [APPLICATION]}, "another GitLab application"),
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
    source: Gitlab, server: Server, changed: dict[str, Any], reason: str
) -> None:
    assert reason in await refusal(source, server.token(**changed))
    assert server.requests == [INFO]


@pytest.mark.parametrize("name", [None, "", 7, "alice\nroot", "a" * 256])
async def test_a_user_without_a_usable_name_is_refused(source: Gitlab, server: Server, name: object) -> None:
    assert "does not name the user" in await refusal(source, server.token(user={"preferred_username": name}))


@pytest.mark.parametrize("sub", ["43", 43, None, "", "alice", True])
async def test_two_answers_about_different_users_let_nobody_in(
    source: Gitlab, server: Server, sub: object
) -> None:
    with pytest.raises(IdentityUnavailable):
        await sign_in(source, server.token("alice", user={"sub": sub}))


async def test_an_unknown_token_is_refused_and_not_asked_about_again_at_once(
    source: Gitlab, server: Server
) -> None:
    unknown = secrets.token_hex(32)
    first, second = await refusal(source, unknown), await refusal(source, unknown)
    assert first == second
    assert "Sign in again" in first
    assert server.requests == [INFO]


async def test_a_personal_access_token_is_refused_and_never_sent(source: Gitlab, server: Server) -> None:
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
    source: Gitlab, server: Server, token: str | None
) -> None:
    assert not source.accepts(bearer(token))
    with pytest.raises(Unauthenticated):
        await source.authenticate(bearer(token))
    assert server.requests == []


async def test_nobody_listening_and_no_answer_in_time_are_told_apart_from_a_bad_token(
    server: Server,
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
    source: Gitlab, server: Server, path: str, status: int, body: bytes
) -> None:
    server.overrides[path] = (status, body, {"Location": f"{server.url}/elsewhere"})
    with pytest.raises(IdentityUnavailable):
        await sign_in(source, server.token())
    assert "/elsewhere" not in server.requests, "redirects are not followed: the token would go with them"


async def test_no_log_line_has_a_token(
    source: Gitlab, server: Server, caplog: pytest.LogCaptureFixture
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
