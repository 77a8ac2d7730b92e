"""Sessions and guards in the custom_auth hook."""

from __future__ import annotations

import pytest
from fastapi import Request

from crawler.settings import Settings
from plugins.auth._sessions import COOKIE, cookie_of
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.identity_config import Allowance
from plugins.core.ports import IdentitySource
from plugins.proxy.auth import LITELLM_KEY_HEADER, Authenticate, PrincipalAuth, Refusal

ALICE = Principal(source="keycloak", subject="id-of-alice", username="alice")


class Keycloak(IdentitySource[Settings]):
    def __init__(self) -> None:
        super().__init__(Settings(), "keycloak")

    def accepts(self, credential: Credential) -> bool:
        return credential.bearer is not None

    async def authenticate(self, credential: Credential) -> Principal:
        return ALICE.model_copy(update={"username": "of-the-token"})


class Sessions(Keycloak):
    def accepts(self, credential: Credential) -> bool:
        return credential.bearer is None and cookie_of(credential.headers) is not None

    async def authenticate(self, credential: Credential) -> Principal:
        assert cookie_of(credential.headers) == "id.key"
        return ALICE


def request(*cookies: bytes) -> Request:
    headers = [(b"cookie", cookie) for cookie in cookies]
    return Request(
        {"type": "http", "method": "GET", "path": "/", "headers": headers, "client": ("127.0.0.1", 1)}
    )


def session(before: str = "", after: str = "") -> bytes:
    return f"{before}{COOKIE}=id.key{after}".encode()


async def user(hook: Authenticate, asked: Request, key: str = "") -> str | None:
    found = await hook(asked, key)
    assert isinstance(found, PrincipalAuth)
    return found.user_id


async def test_the_cookie_signs_in_where_there_is_no_key() -> None:
    hook = Authenticate([Keycloak()], sessions=Sessions())
    assert await user(hook, request(session())) == "keycloak/alice"
    assert await user(hook, request(session()), "key") == "keycloak/of-the-token"
    with pytest.raises(Refusal):
        await hook(request(b"token=litellms-own"), "")


@pytest.mark.parametrize(
    "cookies",
    [(session(),), (session("a=b; ", "; c=d"),), (b"a=b", session()), (session("", ";"), b"a=b")],
)
async def test_the_cookie_is_taken_out_of_what_litellm_may_pass_on(cookies: tuple[bytes, ...]) -> None:
    hook = Authenticate([Keycloak()], sessions=Sessions())
    asked = request(*cookies)
    for _ in range(2):  # also when LiteLLM asks again for the same request
        assert await user(hook, asked) == "keycloak/alice"
        again = Request(asked.scope)
        left = b";".join(value for _, value in again.headers.raw) + f"{asked.headers}".encode()
        assert b"id.key" not in left
        assert (b"a=b" in left) == any(b"a=b" in cookie for cookie in cookies)


async def test_a_guard_has_the_last_word() -> None:
    for error, status in ((Unauthenticated("You were signed out."), "401"), (IdentityUnavailable(), "503")):

        async def guard(principal: Principal, error: Exception = error) -> None:
            assert principal == ALICE
            raise error

        hook = Authenticate([Keycloak()], sessions=Sessions(), guards=[guard])
        with pytest.raises(Refusal) as caught:
            await hook(request(session()), "")
        assert caught.value.code == status


async def test_subjects_stay_short_with_one_source_and_sessions() -> None:
    hook = Authenticate(
        [Keycloak()], [Allowance(subjects=["user:alice"], models=["small"])], sessions=Sessions()
    )
    found = await hook(request(session()), "")
    assert isinstance(found, PrincipalAuth)
    assert found.models == ["small"]


async def test_the_key_of_a_pass_through_route_is_not_left_in_the_headers() -> None:
    asked = request(b"a=b")
    asked.scope["headers"].append((LITELLM_KEY_HEADER.encode(), b"the-key"))
    assert await user(Authenticate([Keycloak()]), asked, "the-key") == "keycloak/of-the-token"
    assert "the-key" not in f"{asked.headers}{Request(asked.scope).headers}"
