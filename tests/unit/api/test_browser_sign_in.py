"""Signing in with a browser, and what those try who want in with another's sign-in."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import pytest

from plugins.auth._sessions import COOKIE
from plugins.core.ports import Ended
from tests.support.auth_app import DOCUMENT, App, Browser, auth_app, query_of
from tests.support.keycloak_issuer import KeycloakIssuer
from tests.support.sign_in_parts import BASE

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


@pytest.fixture
def browser(app: App) -> Browser:
    return app.browser()


def refused(answer: httpx.Response, status: int) -> str:
    """The text of a refusal, which set no session."""
    assert answer.status_code == status, answer.text
    assert f"{COOKIE}=" not in answer.headers.get("set-cookie", "")
    return answer.text


async def test_a_browser_signs_in_and_comes_back(browser: Browser) -> None:
    address = await browser.begin("/v1/models?x=1")
    assert query_of(address)["redirect_uri"] == f"{BASE}/api/auth/callback", "not the Host of the request"
    assert await browser.user() is None
    answer = await browser.sign_in(then="/v1/models?x=1")
    assert (answer.status_code, answer.headers["location"]) == (302, f"{BASE}/v1/models?x=1")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert await browser.user() == "keycloak/alice"


async def test_the_cookies_are_for_this_host_over_tls_and_not_for_scripts(browser: Browser) -> None:
    begun = await browser.http.get("/api/auth/sign-in")
    ended = await browser.http.get(browser._realm.browser_signs_in(begun.headers["location"]))
    cookies = [*begun.headers.get_list("set-cookie"), *ended.headers.get_list("set-cookie")]
    assert len(cookies) == 3
    for cookie in cookies:
        assert cookie.startswith("__Host-")
        attributes = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert {"secure", "httponly", "samesite=lax", "path=/"} <= attributes
        assert not any(attribute.startswith("domain") for attribute in attributes)
    assert "Max-Age=0" in cookies[1], "the cookie of the sign-in is used up"


async def test_two_tabs_can_sign_in_at_once(browser: Browser, realm: KeycloakIssuer) -> None:
    first, second = await browser.begin("/one"), await browser.begin("/two")
    for address, then in ((second, "/two"), (first, "/one")):
        answer = await browser.http.get(realm.browser_signs_in(address))
        assert answer.headers["location"] == f"{BASE}{then}"


async def test_a_sign_in_that_was_begun_in_another_browser_is_refused(app: App) -> None:
    attacker, victim = app.browser(), app.browser()
    callback = app.realm.browser_signs_in(await attacker.begin(), "bob")
    assert "not begun in this browser" in refused(await victim.http.get(callback), 400)
    await victim.begin()  # one of their own that is not done yet
    assert "not begun in this browser" in refused(await victim.http.get(callback), 400)
    assert await victim.user() is None


async def test_a_callback_is_good_once(browser: Browser, realm: KeycloakIssuer) -> None:
    callback = realm.browser_signs_in(await browser.begin())
    pending = dict(browser.http.cookies)
    assert (await browser.http.get(callback)).status_code == 302
    refused(await browser.http.get(callback), 400)
    browser.http.cookies.update(pending)
    assert "Sign in again" in refused(await browser.http.get(callback), 401)


async def test_a_code_of_another_sign_in_is_refused(app: App) -> None:
    """PKCE: the issuer gives nothing for a code without the verifier that it was asked for with."""
    attacker, victim = app.browser(), app.browser()
    stolen = query_of(app.realm.browser_signs_in(await victim.begin()))["code"]
    own = query_of(await attacker.begin())["state"]
    answer = await attacker.http.get("/api/auth/callback", params={"state": own, "code": stolen})
    refused(answer, 401)


async def test_who_is_signed_out_by_the_issuer_meanwhile_gets_no_session(app: App, browser: Browser) -> None:
    callback = app.realm.browser_signs_in(await browser.begin())
    await app.parts.revocations.revoke(Ended("keycloak", "id-of-alice", None, time.time() + 60))
    assert "signed out" in refused(await browser.http.get(callback), 401)


@pytest.mark.parametrize(
    "wrong", [{"nonce": "another"}, {"sub": "id-of-bob"}, {"aud": "other"}, {"typ": "Bearer"}, {"exp": 1}]
)
async def test_an_id_token_of_another_sign_in_is_refused(
    browser: Browser, realm: KeycloakIssuer, wrong: dict[str, str]
) -> None:
    realm.id_claims = wrong
    refused(await browser.sign_in(), 401)
    assert await browser.user() is None


async def test_a_changed_cookie_of_the_sign_in_leads_nowhere_else(
    browser: Browser, realm: KeycloakIssuer
) -> None:
    """Nobody but the person could change it; then it is checked again all the same."""
    callback = realm.browser_signs_in(await browser.begin("/here"))
    ((name, value),) = browser.http.cookies.items()
    pending = json.loads(base64.urlsafe_b64decode(value + "=="))
    for change, status in (({"next": "//evil.example"}, 400), ({"until": 1}, 400), ({"source": "x"}, 400)):
        changed = base64.urlsafe_b64encode(json.dumps({**pending, **change}).encode()).decode().rstrip("=")
        refused(await browser.http.get(callback, headers={"cookie": f"{name}={changed}"}), status)
    for garbage in ("", "x", "%%%", "e30"):
        refused(await browser.http.get(callback, headers={"cookie": f"{name}={garbage}"}), 400)


ELSEWHERE = [
    "https://evil.example/",
    "//evil.example/",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\r\nLocation: https://evil.example",
    "/\r\nSet-Cookie: a=b",
    "/\x00",
    "/x\u2028y",
    "javascript:alert(1)",
    "@evil.example",
    ".evil.example",
    "evil.example",
    "",
    " /",
    "/" + "x" * 3000,
    "//[",
]


async def test_the_way_back_leads_to_no_other_site(browser: Browser) -> None:
    for path in ELSEWHERE:
        answer = await browser.http.get("/api/auth/sign-in", params={"next": path})
        assert answer.status_code == 400, path
        assert not {"location", "set-cookie"} & set(answer.headers)


async def test_a_path_that_looks_like_another_site_stays_on_this_one(browser: Browser) -> None:
    for path in ("/%0d%0aset-cookie:a=b", "/%2f%2fevil.example", "/a/../..//x", "/?next=//x"):
        answer = await browser.sign_in(then=path)
        location = urlsplit(answer.headers["location"])
        assert f"{location.scheme}://{location.netloc}" == BASE
        assert answer.headers["location"].isprintable()


async def test_what_the_issuer_says_of_an_error_is_not_shown(browser: Browser) -> None:
    state = query_of(await browser.begin())["state"]
    attack = "<script>alert(1)</script>"
    query = {
        "state": state,
        "error": attack,
        "error_description": attack,
        "error_uri": "https://evil.example",
    }
    answer = await browser.http.get("/api/auth/callback", params=query)
    text = refused(answer, 401)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"] == "default-src 'none'"
    assert "script" not in text
    assert "evil" not in text
    for name in ("state", "code"):
        answer = await browser.http.get("/api/auth/callback", params={name: attack})
        assert "script" not in refused(answer, 400)
    as_json = await browser.http.get("/api/auth/callback", headers={"accept": "application/json"})
    assert as_json.json()["error"]["type"] == "invalid_request_error"


async def test_a_session_of_before_is_over_when_one_signs_in_again(app: App) -> None:
    browser, copy = app.browser(), app.browser()
    await browser.sign_in("alice")
    copy.http.cookies = httpx.Cookies(browser.http.cookies)
    await browser.sign_in("bob")
    assert await browser.user() == "keycloak/bob"
    assert await copy.user() is None, "a cookie that somebody planted or kept is worth nothing"


async def test_a_page_of_another_site_cannot_sign_one_out(browser: Browser) -> None:
    await browser.sign_in()
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {}):
        answer = await browser.http.post("/api/auth/logout", headers=headers)
        assert answer.status_code == 403
    assert await browser.user() == "keycloak/alice"


async def test_signing_out_ends_the_session_here_and_at_the_issuer(
    app: App, browser: Browser, realm: KeycloakIssuer
) -> None:
    await browser.sign_in()
    kept = app.browser()
    kept.http.cookies = httpx.Cookies(browser.http.cookies)
    answer = await browser.http.post("/api/auth/logout", headers=SAME_ORIGIN)
    assert answer.json() == {"object": "signed_out", "at_issuer": True}
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert realm.sessions == {}
    assert await kept.user() is None


async def test_signing_out_works_here_while_the_issuer_is_down(
    app: App, browser: Browser, realm: KeycloakIssuer
) -> None:
    await browser.sign_in()
    (session,) = realm.sessions
    realm.down = True
    answer = await browser.http.post("/api/auth/logout", headers=SAME_ORIGIN)
    assert answer.json() == {"object": "signed_out", "at_issuer": False}
    assert await browser.user() is None
    token = realm.token("alice", sid=session)
    still = await app.browser().http.get("/api/auth/me", headers={"Authorization": f"Bearer {token}"})
    assert still.status_code == 401, "nor are its access tokens good any more"


async def test_a_browser_that_opens_a_document_signs_in_and_comes_back_to_it(browser: Browser) -> None:
    opened = await browser.http.get(f"{DOCUMENT}?page=3&x=a%20b")
    assert opened.status_code == 302
    assert opened.headers["cache-control"] == "no-store"
    then = query_of(opened.headers["location"])["next"]
    assert then == f"{DOCUMENT}?page=3&x=a%20b"
    assert opened.headers["location"].startswith(f"{BASE}/api/auth/sign-in?")
    back = await browser.sign_in(then=then)
    answer = await browser.http.get(back.headers["location"])
    assert answer.json() == "file-1 for alice"


async def test_a_session_that_is_over_leads_to_sign_in_again(browser: Browser) -> None:
    await browser.sign_in()
    await browser.http.post("/api/auth/logout", headers=SAME_ORIGIN)
    answer = await browser.http.get(DOCUMENT, headers={"sec-fetch-mode": "navigate"})
    assert answer.status_code == 302


async def test_programs_are_answered_401(browser: Browser) -> None:
    for headers in (
        {"accept": "*/*"},
        {"accept": "application/json"},
        {"accept": "text/html", "sec-fetch-mode": "cors"},
        {"accept": "text/html", "authorization": "Bearer expired"},
    ):
        answer = await browser.http.get(DOCUMENT, headers=headers)
        assert answer.status_code == 401
        assert "resource_metadata=" in answer.headers["www-authenticate"]


async def test_names_in_the_path_are_kept_as_they_were(browser: Browser) -> None:
    path = f"/v1/collections/{quote('häuser & co?')}/documents/a%23b/content"
    answer = await browser.http.get(path)
    assert query_of(answer.headers["location"])["next"] == path


async def test_below_a_path_all_addresses_are_below_it(tmp_path: Path, realm: KeycloakIssuer) -> None:
    async with auth_app(tmp_path, realm, base=f"{BASE}/litellm/") as app:
        app.app.root_path = "/litellm"
        browser = app.browser()
        opened = await browser.http.get(f"/litellm{DOCUMENT}")
        assert opened.headers["location"].startswith(f"{BASE}/litellm/api/auth/sign-in?")
        assert query_of(opened.headers["location"])["next"] == DOCUMENT
        address = await browser.begin(DOCUMENT)
        assert query_of(address)["redirect_uri"] == f"{BASE}/litellm/api/auth/callback"


async def test_many_sign_ins_that_are_given_up_do_not_pile_up(browser: Browser) -> None:
    for _ in range(30):
        await browser.begin()
    assert len(browser.http.cookies) <= 9
