"""Sign-in through the stock proxy as a process: tokens of a real issuer, keys, refusals, limits."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.issuer import Issuer, issuer
from tests.support.proxy import MASTER_KEY, Proxy, proxy

ALICE_KEY = "sk-local-alice-0123456789"
LIMITED_KEY = "sk-local-limited-0123456789"
LITELLM: dict[str, Any] = {
    "model_list": [
        {"model_name": name, "litellm_params": {"model": "openai/x", "api_key": "x", "mock_response": "hi"}}
        for name in ("open", "secret")
    ]
    + [
        {
            "model_name": "slow",
            "litellm_params": {"model": "openai/x", "api_key": "x", "mock_response": "hi", "mock_delay": 1},
        }
    ],
    "litellm_settings": {"callbacks": ["tests.support.sign_in_entry.hooks"]},
    "general_settings": {
        "custom_auth": "tests.support.sign_in_entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}


@pytest.fixture(scope="module")
def realm() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, realm: Issuer) -> Iterator[Proxy]:
    keys = [{"key": ALICE_KEY, "user": "alice"}, {"key": LIMITED_KEY, "user": "limited"}]
    sources = [
        {"use": "oidc", "name": "keycloak", "issuer": realm.url, "audience": "litellm"},
        {"use": "api_keys", "name": "local", "keys": keys},
        {"use": "litellm"},
    ]
    allowances = [
        {"subjects": ["user:keycloak/bob", "user:local/limited"], "models": ["open"], "rpm_limit": 3},
        {"subjects": ["user:keycloak/erin", "user:keycloak/frank"], "max_parallel_requests": 1},
        {"subjects": ["*"], "rpm_limit": 1000},
    ]
    config = {"identity": {"identity": {"sources": sources, "allowances": allowances}}}
    folder = tmp_path_factory.mktemp("proxy")
    with proxy(folder, LITELLM, config, {"LITELLM_LOG": "INFO"}) as running:
        yield running


def get(stock: Proxy, path: str, key: str = "", **headers: str) -> httpx.Response:
    sent = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{stock.url}{path}", headers={**sent, **headers}, timeout=30, trust_env=False)


def chat(stock: Proxy, key: str, model: str = "open", stream: bool = False) -> str:
    client = openai.OpenAI(
        base_url=f"{stock.url}/v1", api_key=key, max_retries=0, http_client=httpx.Client(trust_env=False)
    )
    messages: Any = [{"role": "user", "content": "who am I?"}]
    if not stream:
        return client.chat.completions.create(model=model, messages=messages).choices[0].message.content or ""
    parts = client.chat.completions.create(model=model, messages=messages, stream=True)
    return "".join(part.choices[0].delta.content or "" for part in parts if part.choices)


def test_a_token_signs_in_on_our_routes(stock: Proxy, realm: Issuer) -> None:
    answer = get(stock, "/v1/whoami", realm.token("alice"))
    assert answer.status_code == 200, answer.text
    assert answer.json()["user"] == "keycloak/alice"
    assert "group:keycloak/finance" in answer.json()["subjects"]


def test_a_token_signs_in_on_litellms_routes(stock: Proxy, realm: Issuer) -> None:
    models = get(stock, "/v1/models", realm.token("alice")).json()["data"]
    assert {model["id"] for model in models} == {"open", "secret", "slow"}


def test_the_hooks_of_a_chat_see_the_principal(stock: Proxy, realm: Issuer) -> None:
    token = realm.token("alice")
    assert chat(stock, token) == "keycloak/alice"
    assert chat(stock, token, stream=True) == "keycloak/alice"
    assert chat(stock, ALICE_KEY) == "local/alice"
    seen = get(stock, "/v1/seen", token).json()
    assert (seen["stream"], seen["success"]) == ("keycloak/alice", "local/alice")


def test_logs_name_the_user_and_hold_neither_token_nor_principal(stock: Proxy, realm: Issuer) -> None:
    token = realm.token("dora")
    chat(stock, token)
    logged = wait_for(
        lambda: get(stock, "/v1/seen", token).json().get("logged", {}),
        lambda found: found.get("user") == "keycloak/dora",
    )
    assert logged["is_ours"]
    assert len(logged["key"]) == 64
    for text in (logged["object"], logged["auth"], logged["key"], stock.log):
        assert token not in text
        assert token.rpartition(".")[2] not in text
        assert "id-of-dora" not in text


def test_failures_are_logged_without_the_key(stock: Proxy, realm: Issuer) -> None:
    for key in (LIMITED_KEY, realm.token("bob"), realm.token(exp=1)):
        with pytest.raises(openai.APIStatusError):
            chat(stock, key, "secret")
        failed = get(stock, "/v1/seen", realm.token()).json()["failed"]
        assert key not in failed
        assert key not in stock.log


def wait_for(look: Any, good: Any) -> Any:
    """What ``look`` answers as soon as it is good; it is asked at most 200 times, each a request."""
    for _ in range(200):
        found = look()
        if good(found):
            return found
    raise AssertionError("it did not come")


def test_the_master_key_is_litellms_admin(stock: Proxy) -> None:
    answer = get(stock, "/v1/whoami", MASTER_KEY).json()
    assert answer["subjects"] == ["*", "role:litellm/proxy_admin", "user:litellm/proxy_admin"]
    assert chat(stock, MASTER_KEY) == "litellm/proxy_admin"
    assert get(stock, "/health/readiness/details", MASTER_KEY).status_code != 401


@pytest.mark.parametrize("header", ["api-key", "x-api-key", "x-goog-api-key", "x-litellm-api-key"])
def test_litellms_other_headers_sign_in_as_well(stock: Proxy, realm: Issuer, header: str) -> None:
    answer = get(stock, "/v1/whoami", **{header: realm.token("bob")})
    assert answer.json()["user"] == "keycloak/bob"


@pytest.mark.parametrize("path", ["/v1/whoami", "/v1/models"])
@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("none", "Sign in: send an access token or a key"),
        ("garbage", "This key is not known"),
        ("unknown virtual key", "This key is not known"),
        ("expired", "The access token has expired. Sign in again."),
        ("wrong audience", "not for this service"),
        ("wrong signature", "signature is wrong"),
        ("another issuer", "issued by another issuer"),
        ("id token", "not an access token"),
    ],
)
def test_a_refusal_is_401_with_its_reason(
    stock: Proxy, realm: Issuer, path: str, what: str, reason: str
) -> None:
    keys = {
        "none": "",
        "garbage": "garbage",
        "unknown virtual key": "sk-0123456789abcdef",
        "expired": realm.token(exp=1),
        "wrong audience": realm.token(aud="account"),
        "wrong signature": realm.token()[:-8] + "AAAAAAAA",
        "another issuer": realm.token(iss="http://127.0.0.1:1/realms/rag"),
        "id token": realm.token(typ="ID"),
    }
    answer = get(stock, path, keys[what])
    assert answer.status_code == 401, answer.text
    error = answer.json()["error"]
    assert reason in error["message"]
    assert (error["type"], error["code"], error["param"]) == ("authentication_error", "invalid_api_key", None)
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token", error_description="')
    assert answer.headers["x-litellm-call-id"]
    assert keys[what] == "" or keys[what] not in answer.text


def test_the_openai_client_understands_the_refusal(stock: Proxy, realm: Issuer) -> None:
    with pytest.raises(openai.AuthenticationError, match="has expired"):
        chat(stock, realm.token(exp=1))


def test_what_was_not_foreseen_lets_nobody_in_and_is_logged(stock: Proxy) -> None:
    answer = get(stock, "/v1/models", "broken", **{"x-litellm-call-id": "call-of-the-test"})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["error"]["code"] == "identity_unavailable"
    assert "secret" not in answer.text
    assert "call-of-the-test" in stock.log


def test_the_models_of_a_user_are_enforced_and_listed(stock: Proxy, realm: Issuer) -> None:
    token = realm.token("bob")
    assert [model["id"] for model in get(stock, "/v1/models", token).json()["data"]] == ["open"]
    with pytest.raises(openai.PermissionDeniedError):
        chat(stock, token, "secret")


def status(stock: Proxy, token: str, model: str) -> int:
    try:
        chat(stock, token, model)
    except openai.RateLimitError:
        return 429
    return 200


def test_requests_per_minute_are_counted_per_user_and_not_per_token(stock: Proxy, realm: Issuer) -> None:
    bobs = [status(stock, realm.token("bob", jti=str(n)), "open") for n in range(6)]
    assert bobs.count(429) >= 3
    assert [status(stock, realm.token("carol"), "open") for _ in range(6)] == [200] * 6


def test_parallel_requests_of_one_user_do_not_touch_another(stock: Proxy, realm: Issuer) -> None:
    tokens = [realm.token("erin", jti=str(n)) for n in range(3)] + [realm.token("frank")]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda token: status(stock, token, "slow"), tokens))
    assert sorted(statuses[:3]) == [200, 429, 429]
    assert statuses[3] == 200


def test_our_routes_win_over_litellms_patterns(stock: Proxy, realm: Issuer) -> None:
    for path in ("/v1/tools", "/v1/collections/x/documents"):
        assert get(stock, path, realm.token("carol")).json()["user"] == "keycloak/carol"
    lazy = "Lazy-loaded optional feature 'tools'"
    assert lazy not in stock.log, "our route waits for no import"
    assert get(stock, "/v1/tool/list", MASTER_KEY).status_code != 404, "LiteLLM's own are still there"
    assert lazy in stock.log
    assert get(stock, "/v1/tools", realm.token("carol")).json()["user"] == "keycloak/carol"


def test_the_openapi_page_shows_our_routes_and_their_sign_in(stock: Proxy) -> None:
    paths = get(stock, "/openapi.json", MASTER_KEY).json()["paths"]
    assert paths["/v1/whoami"]["get"]["security"]
