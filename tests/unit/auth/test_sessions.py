"""Sessions of browsers: what the cookie opens, who cannot, how tokens are renewed, and when it is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import select, update

from plugins.api.sign_in import SignInParts
from plugins.auth._sessions import COOKIE, origin_of
from plugins.collections.database import Database, database_url
from plugins.collections.tables import sessions
from plugins.core.config import StorageConfig
from plugins.core.errors import Forbidden, IdentityUnavailable, Unauthenticated
from plugins.core.identity import Credential
from plugins.core.identity_config import SignInConfig
from plugins.core.ports import Tokens
from tests.support.keycloak_issuer import KeycloakIssuer
from tests.support.sign_in_parts import BASE, sign_in_parts, with_cookie


@pytest.fixture
async def here(tmp_path: Path, realm: KeycloakIssuer) -> AsyncIterator[SignInParts]:
    async with sign_in_parts(tmp_path, realm) as made:
        yield made


async def signed_in(here: SignInParts, username: str = "alice", **changed: Any) -> str:
    """The cookie of a new session."""
    source, sign_in = here.pick(None)
    tokens = await sign_in.password(username, SecretStr(f"{username}-pw"))
    bearer = Credential(SecretStr(tokens.access_token), {}, "127.0.0.1")
    principal = await source.authenticate(bearer)
    return await here.sessions.start(principal, tokens.model_copy(update=changed))


async def rows(folder: Path) -> list[Any]:
    database = Database(database_url(StorageConfig(data_dir=folder / "data")))
    async with database.read() as connection:
        found = list(await connection.execute(select(sessions)))
    await database.close()
    return found


async def change(folder: Path, **values: Any) -> None:
    database = Database(database_url(StorageConfig(data_dir=folder / "data")))
    async with database.write() as connection:
        await connection.execute(update(sessions).values(**values))
    await database.close()


async def refusal(here: SignInParts, cookie: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await here.sessions.authenticate(with_cookie(cookie))
    return caught.value.message


async def test_the_cookie_is_who_signed_in_at_the_source_that_they_signed_in_at(here: SignInParts) -> None:
    credential = with_cookie(await signed_in(here))
    assert here.sessions.accepts(credential)
    principal = await here.sessions.authenticate(credential)
    assert principal.user_id == "keycloak/alice"
    assert "group:keycloak/finance" in principal.subjects
    assert principal.session is not None


async def test_a_bearer_token_is_not_overruled_by_a_cookie(here: SignInParts) -> None:
    cookie = with_cookie(await signed_in(here))
    both = Credential(SecretStr("a key"), cookie.headers, "127.0.0.1")
    assert not here.sessions.accepts(both)
    assert not here.sessions.accepts(Credential(None, {"cookie": "token=litellms-own"}, "127.0.0.1"))


async def test_the_database_alone_signs_nobody_in(
    here: SignInParts, tmp_path: Path, realm: KeycloakIssuer
) -> None:
    cookie = await signed_in(here)
    name, _, key = cookie.partition(".")
    (row,) = await rows(tmp_path)
    stored = str(row)
    assert name not in stored
    assert key not in stored
    assert not any(token in stored for token in realm.refresh_tokens)
    assert "eyJhbGciOiJSUzI1NiI" not in stored, "no signed token is stored as it is"
    for forged in (f"{row.id[:22]}.{key}", f"{name}.{'A' * 43}", row.id, row.sealed):
        assert "has ended" in await refusal(here, forged)


async def test_a_swapped_or_changed_cookie_opens_nothing(here: SignInParts) -> None:
    alice, bob = (await signed_in(here, "alice")).split("."), (await signed_in(here, "bob")).split(".")
    for name, key in ((alice[0], bob[1]), (bob[0], alice[1]), (alice[0], alice[1][:-1] + "!")):
        assert "has ended" in await refusal(here, f"{name}.{key}")
    assert "has ended" in await refusal(here, "")


async def test_a_row_that_was_exchanged_for_anothers_opens_nothing(here: SignInParts, tmp_path: Path) -> None:
    cookie = await signed_in(here, "alice")
    (row,) = await rows(tmp_path)
    await signed_in(here, "bob")
    await change(tmp_path, sealed=next(r.sealed for r in await rows(tmp_path) if r.id != row.id))
    assert "has ended" in await refusal(here, cookie)


async def test_tokens_are_renewed_once_for_many_requests_at_once(
    tmp_path: Path, realm: KeycloakIssuer
) -> None:
    """Of two processes, at an issuer whose refresh tokens are good once only."""
    realm.rotates, realm.lifetime_s = True, 0
    async with sign_in_parts(tmp_path, realm) as here, sign_in_parts(tmp_path, realm) as there:
        cookie = await signed_in(here)
        realm.lifetime_s = 60
        asked = [process.sessions.authenticate(with_cookie(cookie)) for process in (here, there) * 4]
        found = await asyncio.gather(*asked)
    assert {principal.username for principal in found} == {"alice"}
    assert realm.refreshed == 1


async def test_a_session_that_the_issuer_ended_is_over_and_forgotten(
    here: SignInParts, tmp_path: Path, realm: KeycloakIssuer
) -> None:
    realm.lifetime_s = 0
    cookie = await signed_in(here)
    realm.sessions.clear()
    assert "has ended" in await refusal(here, cookie)
    assert await rows(tmp_path) == []


async def test_an_issuer_that_is_down_ends_no_session(
    here: SignInParts, realm: KeycloakIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.auth._sessions.AGAIN_S", 0.0)
    cookie, early = await signed_in(here), await signed_in(here, expires_in=0)
    await here.sessions.authenticate(with_cookie(cookie))
    realm.down = True
    assert (await here.sessions.authenticate(with_cookie(cookie))).username == "alice"
    with pytest.raises(IdentityUnavailable):
        await here.sessions.authenticate(with_cookie(early))
    realm.down = False
    assert (await here.sessions.authenticate(with_cookie(early))).username == "alice"


async def test_a_token_that_is_still_good_is_used_while_the_issuer_is_down(
    here: SignInParts, realm: KeycloakIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cookie = await signed_in(here)
    await here.sessions.authenticate(with_cookie(cookie))
    clock = SimpleNamespace(time=lambda: time.time() + 50, monotonic=time.monotonic)
    monkeypatch.setattr("plugins.auth._sessions.time", clock)
    realm.down, asked = True, len(realm.requests)
    for _ in range(3):
        assert (await here.sessions.authenticate(with_cookie(cookie))).username == "alice"
    assert len(realm.requests) == asked + 1, "it is not asked again at once"


async def test_a_session_ends_with_its_time(here: SignInParts, tmp_path: Path) -> None:
    cookie = await signed_in(here)
    (row,) = await rows(tmp_path)
    assert row.expires_at - row.created_at == pytest.approx(SignInConfig().session_s)
    await change(tmp_path, expires_at=1.0)
    assert "has ended" in await refusal(here, cookie)
    await signed_in(here, "bob")
    assert [row.subject for row in await rows(tmp_path)] == ["id-of-bob"], "rows of the past are removed"


async def test_a_session_without_a_refresh_token_ends_with_its_access_token(
    here: SignInParts, tmp_path: Path
) -> None:
    cookie = await signed_in(here, refresh_token=None, expires_in=60)
    (row,) = await rows(tmp_path)
    assert row.expires_at - row.created_at == pytest.approx(60)
    assert (await here.sessions.authenticate(with_cookie(cookie))).username == "alice"


async def test_new_tokens_of_another_person_are_not_taken(here: SignInParts, realm: KeycloakIssuer) -> None:
    realm.lifetime_s = 0
    cookie = await signed_in(here)
    realm.sessions = dict.fromkeys(realm.sessions, "bob")
    assert "has ended" in await refusal(here, cookie)


CROSS_SITE_POSTS = [
    {"sec_fetch_site": "cross-site", "origin": "https://evil.example"},
    {"sec_fetch_site": "same-site", "origin": "https://other.example.test"},
    {"sec_fetch_site": "none"},
    {"sec_fetch_site": "cross-site", "origin": BASE},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": f"{BASE}.evil.example"},
    {"origin": f"{BASE}:8443"},
    {"origin": BASE.replace("https", "http")},
    {},
]


async def test_a_write_of_another_sites_page_is_refused(here: SignInParts) -> None:
    cookie = await signed_in(here)
    for method in ("POST", "PUT", "PATCH", "DELETE", ""):
        for headers in CROSS_SITE_POSTS:
            with pytest.raises(Forbidden, match="page of another site"):
                await here.sessions.authenticate(with_cookie(cookie, method, **headers))


async def test_a_write_of_a_page_of_ours_is_signed_in(here: SignInParts) -> None:
    cookie = await signed_in(here)
    for headers in ({"sec_fetch_site": "same-origin"}, {"origin": BASE}):
        credential = with_cookie(cookie, "POST", **headers)
        assert (await here.sessions.authenticate(credential)).username == "alice"


READS: list[tuple[dict[str, str], bool]] = [
    ({}, True),
    ({"sec_fetch_site": "none", "sec_fetch_mode": "navigate"}, True),
    ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "navigate"}, False),
    ({"sec_fetch_site": "same-origin", "sec_fetch_mode": "cors"}, True),
    ({"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"}, False),
    ({"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"}, False),
    ({"origin": "https://other.example.test"}, False),
]


async def test_reading_takes_a_page_of_ours_or_a_person_who_opens_an_address(here: SignInParts) -> None:
    cookie = await signed_in(here)
    for headers, allowed in READS:
        credential = with_cookie(cookie, "GET", **headers)
        if allowed:
            assert await here.sessions.authenticate(credential)
            continue
        with pytest.raises(Forbidden):
            await here.sessions.authenticate(credential)


async def test_a_link_of_another_site_leads_to_citations_only(here: SignInParts) -> None:
    cookie = await signed_in(here)
    link = with_cookie(cookie, "GET", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert await here.sessions.authenticate(replace(link, path="/v1/collections/a/documents/b/content"))
    for path in ("/health", "/v1/models", "/v1/collections", ""):
        with pytest.raises(Forbidden, match="page of another site"):
            await here.sessions.authenticate(replace(link, path=path))


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Proxy.example.test:443/litellm/", "https://proxy.example.test"),
        ("http://127.0.0.1:4000", "http://127.0.0.1:4000"),
        ("http://[::1]:80/", "http://[::1]"),
    ],
)
def test_origins_are_written_as_browsers_write_them(url: str, origin: str) -> None:
    assert origin_of(url) == origin


async def test_ending_a_session_is_for_who_has_its_cookie(here: SignInParts, tmp_path: Path) -> None:
    cookie = await signed_in(here)
    name, _, key = cookie.partition(".")
    assert await here.sessions.end(f"{name}.{key[::-1]}") is None
    assert len(await rows(tmp_path)) == 1
    ended = await here.sessions.end(cookie)
    assert ended is not None
    assert ended.subject == "id-of-alice"
    assert ended.access_token not in repr(ended)
    assert await rows(tmp_path) == []


def test_the_cookies_name_binds_it_to_this_host_and_tls() -> None:
    assert COOKIE.startswith("__Host-")
    assert "secret" not in repr(Tokens(access_token="secret", expires_in=1))
