"""What an identity means to LiteLLM, through the stock proxy: models, limits, budgets, roles, logs."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.issuer import Issuer, issuer
from tests.support.limits import LITELLM, Chats, in_the_tool, until
from tests.support.proxy import MASTER_KEY, Proxy, proxy

SERVICE_KEY = "sk-service-of-the-tests-0123456789"
ALLOWANCES: list[dict[str, Any]] = [
    {"subjects": ["role:keycloak/proxy-admin"], "user_role": "proxy_admin"},
    {"subjects": ["group:keycloak/viewers"], "user_role": "proxy_admin_viewer"},
    {"subjects": ["user:keycloak/poor", "user:keycloak/thrifty"], "max_budget": 2},
    {"subjects": ["group:keycloak/three"], "max_parallel_requests": 3},
    {"subjects": ["group:keycloak/one"], "max_parallel_requests": 1},
    {"subjects": ["group:keycloak/minute"], "rpm_limit": 2},
    {"subjects": ["group:keycloak/tokens"], "tpm_limit": 40},
    {"subjects": ["group:keycloak/plenty"], "tpm_limit": 100_000},
    {
        "subjects": ["group:keycloak/finance"],
        "models": ["open", "scripted"],
        "priority": "high",
        "tags": ["finance"],
        "metadata": {"cost_center": "4711"},
    },
    {"subjects": ["user:local/service"], "end_user": "request"},
]


@dataclass(frozen=True)
class Stand:
    proxy: Proxy
    realm: Issuer
    folder: Path

    def chats(self, username: str, *groups: str) -> Chats:
        return Chats(self.proxy.url, self.realm.token(username, groups=[f"/{name}" for name in groups]))

    def payload(self, user: str) -> dict[str, Any]:
        """What LiteLLM's loggers got last of this user, once it is there."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            lines = self.payloads.read_text().splitlines(keepends=True) if self.payloads.exists() else []
            found.extend(json.loads(line) for line in lines if line.endswith("\n"))
            return any(one["metadata"]["user_api_key_user_id"] == user for one in found)

        until(is_there)
        return next(one for one in reversed(found) if one["metadata"]["user_api_key_user_id"] == user)

    def settle(self) -> None:
        """Wait until LiteLLM has logged the rounds that are over, and so given back their slots."""
        marker = f"settle-{uuid.uuid4().hex}"
        assert self.chats(marker).ask("open").status_code == 200
        self.payload(f"keycloak/{marker}")

    @property
    def payloads(self) -> Path:
        return self.folder / "payloads"


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("allowances")
    with issuer() as realm:
        sources = [
            {"use": "oidc", "name": "keycloak", "issuer": realm.url, "audience": "litellm"},
            {"use": "api_keys", "name": "local", "keys": [{"key": SERVICE_KEY, "user": "service"}]},
            {"use": "litellm"},
        ]
        config = {"identity": {"identity": {"sources": sources, "allowances": ALLOWANCES}}}
        environment = {"PAYLOADS": str(folder / "payloads"), "LITELLM_LOG": "INFO"}
        with proxy(folder, LITELLM, config, environment) as running:
            yield Stand(running, realm, folder)


def test_the_models_page_lists_only_what_this_person_may_use(stand: Stand) -> None:
    def listed(chats: Chats) -> set[str]:
        return {model["id"] for model in chats.get("/v1/models").json()["data"]}

    assert listed(stand.chats("alice", "finance")) == {"open", "scripted"}
    assert listed(stand.chats("bob", "hr")) == {"open", "secret", "dear", "scripted", "plain"}


def test_a_forbidden_model_is_refused_as_litellm_says_it(stand: Stand) -> None:
    refused = stand.chats("alice", "finance").ask("secret")
    assert refused.status_code == 403, refused.text
    assert refused.json()["error"]["type"] == "key_model_access_denied"
    assert stand.chats("bob", "hr").ask("secret").status_code == 200


def test_the_fourth_of_three_parallel_requests_is_429_and_touches_nobody_else(
    stand: Stand, tmp_path: Path
) -> None:
    three = stand.chats("trish", "three")
    with three.held(tmp_path, 3, model="plain"):
        fourth = three.ask("open")
        assert fourth.status_code == 429, fourth.text
        assert int(fourth.headers["retry-after"]) > 0
        assert stand.chats("trish", "three").ask("open").status_code == 429, (
            "another token is the same person"
        )
        assert stand.chats("tom", "three").ask("open").status_code == 200
    until(lambda: three.ask("open").status_code == 200)


def test_requests_a_minute_are_counted_for_each_person(stand: Stand) -> None:
    answers = [stand.chats("mia", "minute").ask("open") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert int(answers[-1].headers["retry-after"]) > 0
    assert stand.chats("max", "minute").ask("open").status_code == 200


def test_tokens_a_minute_are_counted_for_each_person(stand: Stand) -> None:
    statuses = [stand.chats("tina", "tokens").ask("open").status_code for _ in range(6)]
    assert statuses[0] == 200
    assert statuses[-1] == 429
    assert stand.chats("timo", "tokens").ask("open").status_code == 200


def test_without_a_database_a_budget_counts_what_each_request_could_cost_at_most(stand: Stand) -> None:
    poor, thrifty = stand.chats("poor"), stand.chats("thrifty")
    assert poor.ask("dear").status_code == 200
    refused = poor.ask("dear")
    assert refused.status_code == 422, refused.text
    assert refused.json()["error"]["type"] == "budget_exceeded"
    assert poor.ask("open").status_code == 200, "a model without a price costs nothing"
    assert [thrifty.ask("dear", max_tokens=5).status_code for _ in range(3)] == [200] * 3


MANAGEMENT = [
    "/get/config/callbacks",
    "/settings",
    "/cache/settings",
    "/config/list?config_type=general_settings",
]


@pytest.mark.parametrize("path", MANAGEMENT)
def test_litellms_management_is_for_the_admin_role_alone(stand: Stand, path: str) -> None:
    admin = Chats(stand.proxy.url, stand.realm.token("root", realm_access={"roles": ["proxy-admin"]}))
    assert admin.get(path).status_code == Chats(stand.proxy.url, MASTER_KEY).get(path).status_code != 401
    same_name_in_groups = stand.chats("mallory", "proxy-admin")
    for other in (same_name_in_groups, stand.chats("vera", "viewers"), Chats(stand.proxy.url, SERVICE_KEY)):
        refused = other.get(path)
        assert refused.status_code == 401, refused.text
        assert "Only proxy admin can be used" in refused.text


def test_only_an_admin_may_change_litellms_configuration(stand: Stand) -> None:
    change = {"general_settings": {"max_parallel_requests": 1}}
    admin = Chats(stand.proxy.url, stand.realm.token("root", realm_access={"roles": ["proxy-admin"]}))
    assert admin.post("/config/update", change).status_code not in (401, 403)
    assert stand.chats("bob", "hr").post("/config/update", change).status_code == 401


def test_what_loggers_get_names_the_person_with_tags_and_metadata(stand: Stand) -> None:
    alice = stand.chats("alice", "finance")
    forged: dict[str, Any] = {
        "user": "keycloak/bob",
        "metadata": {"tags": ["mine"], "user_api_key_user_id": "keycloak/bob"},
    }
    assert alice.ask("open", **forged).status_code == 200
    found = stand.payload("keycloak/alice")
    assert found["end_user"] == "keycloak/alice"
    assert found["metadata"]["user_api_key_user_email"] == "alice@example.test"
    assert found["metadata"]["user_api_key_alias"] == "keycloak/alice"
    assert found["metadata"]["spend_logs_metadata"] == {"cost_center": "4711"}
    assert {"finance", "mine"} <= set(found["request_tags"])
    text = json.dumps(found)
    assert "keycloak/bob" not in json.dumps(found["metadata"])
    for secret in (alice.key, alice.key.rpartition(".")[2], "id-of-alice", "Principal("):
        assert secret not in text


def test_a_service_may_name_its_own_end_users_where_yaml_says_so(stand: Stand) -> None:
    service = Chats(stand.proxy.url, SERVICE_KEY)
    assert service.ask("open", user="customer-17").status_code == 200
    found = stand.payload("local/service")
    assert (found["end_user"], found["metadata"]["user_api_key_user_id"]) == ("customer-17", "local/service")
    assert SERVICE_KEY not in json.dumps(found)


@pytest.mark.parametrize("stream", [False, True])
def test_the_later_rounds_of_a_chat_are_one_of_the_parallel_requests(
    stand: Stand, tmp_path: Path, stream: bool
) -> None:
    one = stand.chats(f"olga-{stream}", "one")
    begun, go = tmp_path / "begun", tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(one.ask, "scripted", in_the_tool(begun, go), stream=stream)
        try:
            until(begun.exists)
            stand.settle()
            refused = one.ask("open")
            assert refused.status_code == 429, refused.text
            assert "max_parallel_requests" in refused.text
            assert int(refused.headers["retry-after"]) > 0
            assert stand.chats("oscar", "one").ask("open").status_code == 200
        finally:
            go.touch()
        assert "done" in first.result().text
    until(lambda: one.ask("open").status_code == 200)


def test_a_chat_in_its_later_rounds_is_counted_once(stand: Stand, tmp_path: Path) -> None:
    three = stand.chats("thea", "three")
    begun, go = tmp_path / "begun", tmp_path / "go"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(three.ask, "scripted", in_the_tool(begun, go))
        try:
            until(begun.exists)
            stand.settle()
            with three.held(tmp_path, 2, model="plain", go="go-2"):
                assert three.ask("open").status_code == 429
            until(lambda: three.ask("open").status_code == 200)
        finally:
            go.touch()
        assert first.result().status_code == 200


def test_a_tool_that_fails_leaves_no_slot_taken(stand: Stand, tmp_path: Path) -> None:
    one = stand.chats("otto", "one")
    rounds = [{"calls": [{"name": "search_documents", "arguments": {"query": "fail"}}]}, {"text": ["done"]}]
    assert one.ask("scripted", rounds).status_code == 200
    until(lambda: one.ask("open").status_code == 200)
    assert one.ask("scripted", [rounds[0], {"text": ["fail"]}]).status_code >= 500
    until(lambda: one.ask("open").status_code == 200)


def test_a_client_that_goes_away_leaves_no_slot_taken(stand: Stand, tmp_path: Path) -> None:
    one = stand.chats("olaf", "one")
    begun, go = tmp_path / "begun", tmp_path / "go"
    rounds = in_the_tool(begun, go)
    try:
        with one.streamed("scripted", [{"text": ["I look. "], **rounds[0]}, rounds[1]]) as answer:
            assert answer.status_code == 200
            until(begun.exists)
            stand.settle()
            assert one.ask("open").status_code == 429
        until(lambda: one.ask("open").status_code == 200)
    finally:
        go.touch()


def test_the_tokens_of_later_rounds_count(stand: Stand) -> None:
    def left_after(username: str, rounds: list[dict[str, Any]]) -> int:
        """Tokens of this minute that are left after a chat, once it is logged."""
        chats = stand.chats(username, "plenty")
        assert chats.ask("scripted", rounds, max_tokens=10).status_code == 200
        stand.settle()
        headers = chats.ask("open", max_tokens=10).headers
        return int(headers["x-ratelimit-api_key-remaining-tokens"])

    call = {"name": "search_documents", "arguments": {"query": "x"}}
    two_rounds = left_after("una", [{"calls": [call]}, {"text": ["done"]}])
    assert two_rounds == left_after("uma", [{"text": ["done"]}]) - 13, (
        "the scripted model's tokens of a round"
    )
