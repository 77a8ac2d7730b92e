"""Open WebUI's people and GitLab's tokens through the stock proxy: who is served, what the others read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from tests.support import open_webui
from tests.support.gitlab import Gitlab, gitlab
from tests.support.issuer import Issuer, issuer
from tests.support.open_webui import HEADER, plain_headers, user_token
from tests.support.proxy import Proxy, proxy

LOCAL_KEY = "sk-local-alice-0123456789"
LITELLM: dict[str, Any] = {
    "model_list": [
        {"model_name": name, "litellm_params": {"model": "openai/x", "api_key": "x", "mock_response": "hi"}}
        for name in ("open", "secret")
    ],
    "litellm_settings": {"callbacks": ["tests.support.sign_in_entry.hooks"]},
    "general_settings": {
        "custom_auth": "tests.support.sign_in_entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}
TASK = "### Task:\nGenerate a concise title for the chat history."
Headers = Sequence[tuple[str, str]]


@pytest.fixture(scope="module")
def realm() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture(scope="module")
def git() -> Iterator[Gitlab]:
    with gitlab() as running:
        yield running


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, realm: Issuer, git: Gitlab) -> Iterator[Proxy]:
    sources = [
        {"use": "oidc", "name": "keycloak", "issuer": realm.url, "audience": "litellm"},
        {"use": "open_webui", "name": "webui", "key": open_webui.KEY, "jwt_secret": open_webui.SECRET},
        {"use": "api_keys", "name": "local", "keys": [{"key": LOCAL_KEY, "user": "alice"}]},
        {"use": "litellm"},
        {"use": "gitlab", **git.settings},
    ]
    allowances = [{"subjects": ["user:gitlab/bob"], "models": ["open"]}]
    config = {"identity": {"identity": {"sources": sources, "allowances": allowances}}}
    folder = tmp_path_factory.mktemp("proxy")
    with proxy(folder, LITELLM, config, {"LITELLM_LOG": "INFO"}) as running:
        yield running


def bearer(key: str) -> tuple[str, str]:
    return ("Authorization", f"Bearer {key}")


def get(stock: Proxy, path: str, headers: Headers = ()) -> httpx.Response:
    return httpx.get(f"{stock.url}{path}", headers=list(headers), timeout=30, trust_env=False)


def ask(stock: Proxy, headers: Headers = (), text: str = "who am I?", **body: Any) -> httpx.Response:
    """A chat request as Open WebUI sends it."""
    sent = {"model": "open", "stream": True, "messages": [{"role": "user", "content": text}], **body}
    url = f"{stock.url}/v1/chat/completions"
    return httpx.post(url, headers=list(headers), json=sent, timeout=30, trust_env=False)


def said(answer: httpx.Response) -> str:
    """The text of a streamed or a plain answer."""
    assert answer.is_success, answer.text
    if not answer.headers["content-type"].startswith("text/event-stream"):
        return str(answer.json()["choices"][0]["message"]["content"])
    lines = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: {")]
    return "".join(json.loads(line)["choices"][0]["delta"].get("content") or "" for line in lines)


def message(answer: httpx.Response) -> str:
    """What Open WebUI shows in the chat: ``error.message`` of a JSON body, and of nothing else."""
    assert answer.status_code == 401, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert (error["type"], error["code"]) == ("authentication_error", "invalid_api_key")
    return str(error["message"])


@pytest.mark.parametrize("stream", [True, False])
def test_an_expired_user_token_tells_the_person_to_sign_in_again(
    stock: Proxy, realm: Issuer, stream: bool
) -> None:
    answer = ask(stock, [bearer(realm.token(exp=1))], stream=stream)
    assert message(answer) == "The access token has expired. Sign in again."
    assert message(get(stock, "/v1/models", [bearer(realm.token(exp=1))])).endswith("Sign in again.")


@pytest.mark.parametrize("stream", [True, False])
def test_a_person_without_a_session_at_the_issuer_is_told_to_sign_in(stock: Proxy, stream: bool) -> None:
    headers = list(plain_headers("alice").items())
    assert message(ask(stock, headers, stream=stream)).startswith("Sign in: ")
    assert message(get(stock, "/v1/models", headers)).startswith("Sign in: ")


def test_the_users_own_token_is_served(stock: Proxy, realm: Issuer) -> None:
    assert said(ask(stock, [bearer(realm.token("alice"))])) == "keycloak/alice"


def test_behind_the_service_key_each_person_is_themselves(stock: Proxy) -> None:
    for name in ("alice", "bob"):
        headers = [bearer(open_webui.KEY), (HEADER, user_token(name))]
        assert get(stock, "/v1/models", headers).is_success
        user = f"webui/{name}@example.test"
        assert get(stock, "/v1/whoami", headers).json()["user"] == user
        assert said(ask(stock, headers)) == user
        assert said(ask(stock, headers, TASK, stream=False)) == user, "titles and tags are the person's too"


def test_the_service_key_alone_says_what_to_set_in_open_webui(stock: Proxy) -> None:
    for headers in ([], list(plain_headers("alice").items())):
        for answer in (
            ask(stock, [bearer(open_webui.KEY), *headers]),
            get(stock, "/v1/models", [bearer(open_webui.KEY), *headers]),
        ):
            assert "FORWARD_USER_INFO_HEADER_JWT_SECRET" in message(answer)


def test_the_headers_without_the_service_key_are_ignored(stock: Proxy, realm: Issuer) -> None:
    headers = [(HEADER, user_token("bob")), *plain_headers("bob").items()]
    for key, user in ((LOCAL_KEY, "local/alice"), (realm.token("alice"), "keycloak/alice")):
        assert get(stock, "/v1/whoami", [bearer(key), *headers]).json()["user"] == user
        assert said(ask(stock, [bearer(key), *headers])) == user
    assert message(ask(stock, headers)).startswith("Sign in: ")
    assert "not known" in message(ask(stock, [bearer("sk-guessed-0123456789"), *headers]))


def test_a_user_header_that_comes_twice_is_refused(stock: Proxy) -> None:
    for first, second in (("alice", "bob"), ("bob", "alice"), ("alice", "alice")):
        headers = [bearer(open_webui.KEY), (HEADER, user_token(first)), (HEADER.lower(), user_token(second))]
        assert "came twice" in message(ask(stock, headers))
        assert "came twice" in message(get(stock, "/v1/whoami", headers))


def test_a_gitlab_token_is_served_and_another_applications_is_not(stock: Proxy, git: Gitlab) -> None:
    assert said(ask(stock, [bearer(git.token("alice"))])) == "gitlab/alice"
    theirs = git.token("alice", application={"uid": "of-another"})
    assert "another GitLab application" in message(ask(stock, [bearer(theirs)]))


def test_while_gitlab_is_down_who_is_signed_in_goes_on_and_others_get_503(stock: Proxy, git: Gitlab) -> None:
    known, new = git.token("alice"), git.token("alice")
    assert said(ask(stock, [bearer(known)])) == "gitlab/alice"
    git.down = True
    try:
        assert said(ask(stock, [bearer(known)])) == "gitlab/alice"
        answer = ask(stock, [bearer(new)])
    finally:
        git.down = False
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "identity_unavailable")
    assert answer.headers["retry-after"]


def test_no_log_has_the_credential_of_a_failed_request(stock: Proxy, git: Gitlab) -> None:
    forbidden: Headers = [bearer(git.token("bob"))]
    of_another: Headers = [bearer(git.token("bob", application={"uid": "another"}))]
    wrong: Headers = [bearer(open_webui.KEY), (HEADER, user_token("alice") + "x")]
    for headers, model in ((forbidden, "secret"), (of_another, "open"), (wrong, "open")):
        assert ask(stock, headers, model=model).status_code in (401, 403)
        failed = get(stock, "/v1/seen", [bearer(LOCAL_KEY)]).json()["failed"]
        for _, value in headers:
            assert value.removeprefix("Bearer ") not in failed
            assert value.removeprefix("Bearer ") not in stock.log


def test_no_log_has_the_credential_of_a_request_that_was_served(stock: Proxy, git: Gitlab) -> None:
    for headers in ([bearer(open_webui.KEY), (HEADER, user_token("carol"))], [bearer(git.token("carol"))]):
        user = said(ask(stock, headers))
        logged = wait_for(
            lambda: get(stock, "/v1/seen", [bearer(LOCAL_KEY)]).json().get("logged", {}),
            lambda found, user=user: found.get("user") == user,
        )
        for _, value in headers:
            assert value.removeprefix("Bearer ") not in f"{logged}{stock.log}"


def wait_for(look: Any, good: Any) -> Any:
    """What ``look`` answers as soon as it is good; it is asked at most 200 times, each a request."""
    for _ in range(200):
        found = look()
        if good(found):
            return found
    raise AssertionError("it did not come")
