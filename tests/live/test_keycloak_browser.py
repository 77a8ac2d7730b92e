"""People sign in with a browser at a real Keycloak: through the proxy, and through another application."""

from __future__ import annotations

import base64
import hashlib
import secrets
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from tests.live.conftest import RunProxy
from tests.live.keycloak_browser import browser
from tests.live.keycloak_callers import EVERYONE, FINANCE, WRITER, config, refusal, source, tools
from tests.live.keycloak_realm import Realm, claims_of
from tests.support.proxy import Proxy

ME = "fetch('/api/auth/me').then(answer => answer.json())"


@pytest.fixture(scope="module")
def proxy(realm: Realm, run_proxy: RunProxy) -> Proxy:
    running = run_proxy(config(source(realm)))
    realm.change_client(
        "litellm", attributes={"backchannel.logout.url": f"{running.url}/api/auth/backchannel-logout"}
    )
    return running


async def test_a_browser_signs_in_through_us_and_comes_back_to_its_page(
    proxy: Proxy, realm: Realm, tmp_path: Path
) -> None:
    async with browser(tmp_path) as page:
        await page.open(f"{proxy.url}/api/auth/sign-in?next=/api/auth/me")
        address = urlsplit(await page.until("location.href.includes('/realms/') && location.href"))
        asked = parse_qs(address.query)
        assert asked["code_challenge_method"] == ["S256"]
        assert asked["redirect_uri"] == [f"{proxy.url}/api/auth/callback"]
        assert asked["nonce"]
        assert asked["state"]
        await page.sign_in("alice", "alice-pw")
        await page.until(f"location.href == {proxy.url + '/api/auth/me'!r}")
        me = await page.evaluate(ME)
        assert (me["user"], me["groups"]) == ("keycloak/alice", ["finance"])
        assert set(me["tools"]) == EVERYONE | FINANCE | WRITER
        assert await page.evaluate("document.cookie") == "", "scripts do not see the session"

        realm.admin.user_logout(realm.user_id("alice"))
        await page.until("fetch('/api/auth/me').then(answer => answer.status == 401)")
        assert "signed out by the identity provider" in proxy.log


async def test_a_wrong_password_signs_nobody_in(proxy: Proxy, tmp_path: Path) -> None:
    async with browser(tmp_path) as page:
        await page.open(f"{proxy.url}/api/auth/sign-in?next=/api/auth/me")
        await page.sign_in("alice", "wrong")
        await page.until("document.body.innerText.includes('Invalid username or password')")
        await page.open(f"{proxy.url}/health/liveliness")
        await page.until("location.pathname == '/health/liveliness'")
        assert await page.evaluate("fetch('/api/auth/me').then(answer => answer.status)") == 401


async def test_the_token_of_someone_who_signed_in_to_open_webui_is_let_in(
    proxy: Proxy, realm: Realm, tmp_path: Path
) -> None:
    """As Open WebUI gets it and hands it on with `auth_type: system_oauth`."""
    verifier, callback = secrets.token_urlsafe(48), f"{proxy.url}/health/liveliness"
    digest = hashlib.sha256(verifier.encode()).digest()
    question = {
        "client_id": "open-webui",
        "response_type": "code",
        "scope": "openid email profile",
        "redirect_uri": callback,
        "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
        "code_challenge_method": "S256",
    }
    codes = []
    async with browser(tmp_path) as page:
        for state in ("first", "second"):
            address = f"{realm.url}/protocol/openid-connect/auth"
            await page.open(f"{address}?{urlencode({**question, 'state': state})}")
            if state == "first":
                await page.sign_in("bob", "bob-pw")
            given = "new URLSearchParams(location.search)"
            codes.append(await page.until(f"{given}.get('state') == '{state}' && {given}.get('code')"))
    form = {"grant_type": "authorization_code", "redirect_uri": callback}
    stolen = realm.post("token", "open-webui", **form, code=codes[0], code_verifier=secrets.token_urlsafe(48))
    assert (stolen.status_code, stolen.json()["error"]) == (400, "invalid_grant")
    tokens = realm.post("token", "open-webui", **form, code=codes[1], code_verifier=verifier).json()
    assert claims_of(tokens["access_token"])["azp"] == "open-webui"
    assert tools(proxy, tokens["access_token"]) == EVERYONE
    assert "not for this service" in refusal(proxy, tokens["id_token"])


async def test_without_pkce_our_client_gets_no_code(realm: Realm, proxy: Proxy) -> None:
    question = {
        "client_id": "litellm",
        "response_type": "code",
        "scope": "openid",
        "redirect_uri": f"{proxy.url}/api/auth/callback",
    }
    answer = realm.http.get(f"{realm.url}/protocol/openid-connect/auth", params=question)
    assert "code=" not in answer.headers["location"]
    assert "code_challenge" in answer.headers["location"]
