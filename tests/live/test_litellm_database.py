"""LiteLLM's own virtual keys with its real database, and what it writes there of people who sign in by us."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.live.litellm_database import Database, litellm_database
from tests.support.limits import Chats, until
from tests.support.proxy import MASTER_KEY, Proxy, proxy

ALICE, ROOT_USER = "sk-alice-of-the-tests-0123456789", "sk-root-of-the-tests-0123456789"
PRICED = {"input_cost_per_token": 0.01, "output_cost_per_token": 0.01}
MODELS: list[dict[str, Any]] = [
    {
        "model_name": name,
        "litellm_params": {"model": "openai/x", "api_key": "x", "mock_response": "hi", **params},
    }
    for name, params in (("open", {}), ("secret", {}), ("dear", PRICED))
]
LITELLM: dict[str, Any] = {
    "model_list": [
        *MODELS,
        {
            "model_name": "local/minilm",
            "litellm_params": {"model": "local/minilm"},
            "model_info": {"mode": "embedding"},
        },
    ],
    "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
    "general_settings": {
        "master_key": "os.environ/LITELLM_MASTER_KEY",
        "database_url": "os.environ/DATABASE_URL",
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}


@dataclass(frozen=True)
class Stand:
    proxy: Proxy
    database: Database

    def chats(self, key: str) -> Chats:
        return Chats(self.proxy.url, key)

    @property
    def master(self) -> Chats:
        return self.chats(MASTER_KEY)

    def virtual_key(self, **options: Any) -> Chats:
        """A new key that LiteLLM's `/key/generate` makes."""
        made = self.master.post("/key/generate", options)
        assert made.status_code == 200, made.text
        return self.chats(made.json()["key"])


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    folder = tmp_path_factory.mktemp("proxy")
    keys = [
        {"key": ALICE, "user": "alice", "email": "alice@example.test"},
        {"key": ROOT_USER, "user": "root"},
    ]
    allowances: list[dict[str, Any]] = [
        {"subjects": ["user:local/root"], "user_role": "proxy_admin"},
        {
            "subjects": ["user:local/alice"],
            "tags": ["finance"],
            "metadata": {"cost_center": "4711"},
            "max_budget": 2,
        },
    ]
    sources = [{"use": "api_keys", "name": "local", "keys": keys}, {"use": "litellm"}]
    (folder / "config" / "prompts").mkdir(parents=True)
    (folder / "config" / "prompts" / "answer.md").write_text("Cite.", encoding="utf-8")
    config: dict[str, Any] = {
        "identity": {"sources": sources, "allowances": allowances},
        "collections": {"create": [{"names": "dora-*", "subjects": ["user:litellm/dora"]}]},
        "worker": {"embedded": False},
        "storage": {"data_dir": str(folder / "data")},
    }
    files = {name: {name: content} for name, content in config.items()}
    with (
        litellm_database(tmp_path_factory.mktemp("database")) as database,
        proxy(folder, LITELLM, files, database.environment) as running,
    ):
        yield Stand(running, database)


def test_a_virtual_key_works_on_litellms_routes_and_on_ours(stand: Stand) -> None:
    dora = stand.virtual_key(user_id="dora", models=["open"])
    assert dora.ask("open").status_code == 200
    assert [model["id"] for model in dora.get("/v1/models").json()["data"]] == ["open"]
    assert dora.get("/v1/collections").json()["data"] == []
    made = dora.post("/v1/collections/new", {"name": "dora-notes"})
    assert made.status_code == 201, made.text
    assert [one["name"] for one in dora.get("/v1/collections").json()["data"]] == ["dora-notes"]
    other = stand.virtual_key(user_id="emil")
    assert other.get("/v1/collections").json()["data"] == []
    assert other.post("/v1/collections/new", {"name": "dora-more"}).status_code == 403


def test_two_keys_of_one_user_are_the_same_person_to_us(stand: Stand) -> None:
    first, second = stand.virtual_key(user_id="dora"), stand.virtual_key(user_id="dora")
    name = f"dora-{uuid.uuid4().hex}"
    assert first.post("/v1/collections/new", {"name": name}).status_code == 201
    assert second.get(f"/v1/collections/{name}").status_code == 200


def test_litellm_enforces_what_a_virtual_key_is_limited_to(stand: Stand) -> None:
    refused = stand.virtual_key(models=["open"]).ask("secret")
    assert (refused.status_code, refused.json()["error"]["type"]) == (403, "key_model_access_denied")
    minute = stand.virtual_key(rpm_limit=2)
    assert [minute.ask("open").status_code for _ in range(3)] == [200, 200, 429]
    assert stand.virtual_key(rpm_limit=2).ask("open").status_code == 200
    chat_only = stand.virtual_key(allowed_routes=["/v1/chat/completions"])
    assert chat_only.ask("open").status_code == 200
    assert chat_only.get("/v1/collections").status_code == 403


def test_a_budget_of_a_virtual_key_ends_with_what_was_spent(stand: Stand) -> None:
    key = stand.virtual_key(max_budget=1)
    statuses = [key.ask("dear", max_tokens=5).status_code for _ in range(12)]
    assert statuses[0] == 200
    assert statuses[-1] == 422
    assert "budget" in key.ask("dear", max_tokens=5).text.lower()


@pytest.mark.parametrize("how", ["deleted", "blocked", "expired", "never made"])
def test_a_key_that_is_no_longer_good_is_401_everywhere(stand: Stand, how: str) -> None:
    key = stand.chats("sk-0123456789abcdef0123456789")
    if how != "never made":
        key = stand.virtual_key(**({"duration": "1s"} if how == "expired" else {}))
        if how == "expired":
            until(lambda: key.get("/v1/models").status_code != 200)
        else:
            assert key.get("/v1/models").status_code == 200
    if how == "deleted":
        assert stand.master.post("/key/delete", {"keys": [key.key]}).status_code == 200
    if how == "blocked":
        assert stand.master.post("/key/block", {"key": key.key}).status_code == 200
    for path in ("/v1/models", "/v1/collections"):
        answer = key.get(path)
        assert answer.status_code in (401, 403), answer.text
        assert key.key not in answer.text


def test_an_admin_who_signs_in_manages_litellms_keys_and_nobody_else_sees_them(stand: Stand) -> None:
    root = stand.chats(ROOT_USER)
    made = root.post("/key/generate", {"key_alias": f"made-{uuid.uuid4().hex}"})
    assert made.status_code == 200, made.text
    assert stand.chats(made.json()["key"]).ask("open").status_code == 200
    assert made.json()["token"] in root.get("/key/list?size=100").json()["keys"]
    shown = stand.chats(ALICE).get("/key/list?size=100")
    assert shown.status_code != 200 or made.json()["token"] not in shown.json()["keys"]


def test_the_spend_log_names_the_person_with_tags_and_metadata(stand: Stand) -> None:
    alice = stand.chats(ALICE)
    assert alice.ask("dear", max_tokens=5, user="local/bob").status_code == 200
    query = (
        'SELECT "user", end_user, request_tags, metadata, spend FROM "LiteLLM_SpendLogs" '
        "WHERE \"user\" = 'local/alice' AND status = 'success'"
    )
    rows: list[list[str]] = []

    def is_written() -> bool:
        rows[:] = stand.database.rows(query)
        return bool(rows)

    until(is_written)
    user, end_user, tags, metadata, spend = rows[0]
    assert (user, end_user) == ("local/alice", "local/alice")
    assert "finance" in json.loads(tags)
    assert json.loads(metadata)["spend_logs_metadata"] == {"cost_center": "4711"}
    assert float(spend) > 0
    assert ALICE not in "".join(rows[0])


def test_with_a_database_a_persons_budget_ends_with_what_was_spent(stand: Stand) -> None:
    alice = stand.chats(ALICE)
    statuses = [alice.ask("dear", max_tokens=5).status_code for _ in range(12)]
    assert statuses[-1] == 422
    assert statuses.count(200) >= 3, "each costs a fraction of the budget"
    assert alice.ask("open").status_code == 200
