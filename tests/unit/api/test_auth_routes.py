"""`/api/auth` for programs: passwords, new tokens, signing out, back-channel logout, who am I."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import REGISTRY

from plugins.auth._attempts import PAIR
from plugins.core.identity_config import SignInConfig
from tests.support.auth_app import App, Browser, auth_app
from tests.support.keycloak_issuer import KeycloakIssuer
from tests.support.sign_in_parts import BASE

LOGIN, REFRESH, LOGOUT = "/api/auth/login", "/api/auth/refresh", "/api/auth/logout"
BACKCHANNEL = "/api/auth/backchannel-logout"


@pytest.fixture
async def http(app: App) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        yield client


async def login(
    http: httpx.AsyncClient, username: str = "alice", password: str | None = None
) -> httpx.Response:
    form = {"grant_type": "password", "username": username, "password": password or f"{username}-pw"}
    answer = await http.post(LOGIN, data=form)
    assert answer.headers["cache-control"] == "no-store"
    return answer


async def me(http: httpx.AsyncClient, token: str) -> httpx.Response:
    return await http.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error: dict[str, Any] = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return error


async def test_a_password_gives_tokens_that_sign_in(http: httpx.AsyncClient) -> None:
    answer = await login(http)
    assert answer.status_code == 200, answer.text
    tokens = answer.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 60)
    view = (await me(http, tokens["access_token"])).json()
    assert (view["user"], view["groups"], view["roles"]) == (
        "keycloak/alice",
        ["finance"],
        ["reader", "writer"],
    )
    assert (view["litellm"]["models"], view["litellm"]["rpm_limit"]) == (["small"], 3)
    assert (view["collections"], view["tools"], view["more_collections"]) == ([], [], False)


async def test_new_tokens_for_a_refresh_token_until_it_is_signed_out(http: httpx.AsyncClient) -> None:
    first = (await login(http)).json()
    second = await http.post(REFRESH, json={"refresh_token": first["refresh_token"]})
    assert second.status_code == 200, second.text
    assert second.headers["cache-control"] == "no-store"
    assert (await me(http, second.json()["access_token"])).json()["user"] == "keycloak/alice"
    ended = await http.post(LOGOUT, json={"refresh_token": second.json()["refresh_token"]})
    assert ended.json() == {"object": "signed_out", "at_issuer": True}
    for path in (REFRESH, LOGOUT):
        again = await http.post(path, json={"refresh_token": second.json()["refresh_token"]})
        assert again.status_code == 401
        assert "Sign in again" in error_of(again)["message"]


async def test_an_unknown_name_and_a_wrong_password_answer_alike(http: httpx.AsyncClient) -> None:
    wrong = {"source": "keycloak", "result": "invalid"}
    before = REGISTRY.get_sample_value("collections_passwords_total", wrong) or 0
    answers = [await login(http, "alice", "wrong"), await login(http, "nobody", "wrong")]
    assert REGISTRY.get_sample_value("collections_passwords_total", wrong) == before + 2
    assert [answer.status_code for answer in answers] == [401, 401]
    assert answers[0].json() == answers[1].json()
    assert "wrong-pw" not in answers[0].text
    metadata = f'resource_metadata="{BASE}/.well-known/oauth-protected-resource/v1"'
    assert metadata in answers[0].headers["www-authenticate"]


async def test_failed_passwords_are_delayed_and_others_are_not(http: httpx.AsyncClient) -> None:
    for _ in range(PAIR.free):
        assert (await login(http, "alice", "wrong")).status_code == 401
    late = await login(http)
    assert late.status_code == 429
    assert int(late.headers["retry-after"]) == 1
    assert error_of(late)["type"] == "rate_limit_error"
    assert (await login(http, "bob")).status_code == 200


async def test_an_issuer_that_is_down_is_503_and_no_failure(
    http: httpx.AsyncClient, realm: KeycloakIssuer
) -> None:
    realm.down = True
    for _ in range(PAIR.free + 2):
        assert (await login(http)).status_code == 503
    realm.down = False
    assert (await login(http)).status_code == 200


async def test_a_form_that_is_not_one_is_400_and_a_huge_one_413(http: httpx.AsyncClient) -> None:
    for form in ({}, {"username": "alice"}, {"username": "a", "password": "b", "grant_type": "other"}):
        assert (await http.post(LOGIN, data=form)).status_code == 400
    huge = await http.post(LOGIN, data={"username": "alice", "password": "x" * 2**21})
    assert huge.status_code == 413
    assert (await http.post(REFRESH, json={"refresh_token": "x" * 20_000})).status_code == 400


async def test_passwords_can_be_switched_off(tmp_path: Path, realm: KeycloakIssuer) -> None:
    async with auth_app(tmp_path, realm, SignInConfig(password=False)) as app:
        browser = Browser(app)
        answer = await browser.http.post(LOGIN, data={"username": "alice", "password": "alice-pw"})
        assert answer.status_code == 403
        assert "/api/auth/sign-in" in error_of(answer)["message"]
        assert not any("/token" in path for path in realm.requests)
        assert (await browser.sign_in()).status_code == 302


async def test_only_a_source_where_people_can_sign_in_may_be_named(http: httpx.AsyncClient) -> None:
    form = {"username": "alice", "password": "alice-pw"}
    known = await http.post(f"{LOGIN}?source=keycloak", data=form)
    assert known.status_code == 200
    for path in (f"{LOGIN}?source=local", f"{LOGIN}?source=../x"):
        answer = await http.post(path, data=form)
        assert answer.status_code == 400
        assert error_of(answer)["param"] == "source"


async def test_the_back_channel_ends_a_session_at_once(
    http: httpx.AsyncClient, app: App, realm: KeycloakIssuer
) -> None:
    token = (await login(http)).json()["access_token"]
    other = (await login(http)).json()["access_token"]
    browser = app.browser()
    await browser.sign_in()
    first, _, of_browser = realm.sessions
    for session in (first, of_browser):
        form = {"logout_token": realm.logout_token(sub="id-of-alice", sid=session)}
        answer = await http.post(BACKCHANNEL, data=form)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["cache-control"] == "no-store"
    refused = await me(http, token)
    assert refused.status_code == 401
    assert "signed out" in error_of(refused)["message"]
    assert await browser.user() is None
    assert (await me(http, other)).status_code == 200


async def test_the_back_channel_can_end_all_that_a_person_has(
    http: httpx.AsyncClient, realm: KeycloakIssuer
) -> None:
    tokens = [(await login(http, name)).json()["access_token"] for name in ("alice", "alice", "bob")]
    await http.post(BACKCHANNEL, data={"logout_token": realm.logout_token(sub="id-of-alice")})
    assert [(await me(http, token)).status_code for token in tokens] == [401, 401, 200]


async def test_the_back_channel_takes_nothing_but_logout_tokens(
    http: httpx.AsyncClient, realm: KeycloakIssuer
) -> None:
    tokens = (await login(http)).json()
    given = [
        tokens["access_token"],
        tokens["id_token"],
        realm.logout_token(sub="id-of-alice", aud="other"),
        realm.logout_token(sub="id-of-alice", nonce="x"),
        realm.logout_token(sub="id-of-alice", events={}),
        realm.logout_token(sub="id-of-alice", exp=1),
        realm.logout_token(sub="id-of-alice", iss="https://evil.example"),
        realm.logout_token(sub="id-of-alice")[:-8] + "AAAAAAAA",
        realm.logout_token({"alg": "none"}, sub="id-of-alice"),
        "garbage",
        "",
    ]
    for token in given:
        answer = await http.post(BACKCHANNEL, data={"logout_token": token})
        assert answer.status_code == 400, token
        assert answer.headers["cache-control"] == "no-store"
        assert not token or token not in answer.text
    assert (await http.post(BACKCHANNEL)).status_code == 400
    assert (await me(http, tokens["access_token"])).status_code == 200


async def test_the_metadata_of_the_resource_names_its_issuer(
    http: httpx.AsyncClient, realm: KeycloakIssuer
) -> None:
    answer = await http.get("/.well-known/oauth-protected-resource/v1")
    assert answer.status_code == 200
    view = answer.json()
    assert view["resource"] == f"{BASE}/v1"
    assert view["authorization_servers"] == [realm.url]
    assert view["bearer_methods_supported"] == ["header"]


async def test_signing_out_with_nothing_says_what_it_takes(http: httpx.AsyncClient) -> None:
    answer = await http.post(LOGOUT)
    assert answer.status_code == 401
    assert "`refresh_token`" in error_of(answer)["message"]
