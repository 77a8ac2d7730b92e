"""The figures that an operator scrapes, on the real proxy beside LiteLLM's own, and on its worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.support.proxy import MASTER_KEY, ROOT, free_port, proxy
from tests.support.quickstart import until

KEYS = {name: f"sk-of-{name}-0123456789abcdef" for name in ("alice", "bob", "scraper")}
COLLECTION = "handbook-of-staff"
LEAVE = "# Leave\n\nThere are 28 days of paid annual leave."
QUESTION = "How many days of paid annual leave are there?"
NAMELESS = [
    "user",
    "user_email",
    "user_alias",
    "end_user",
    "api_key_alias",
    "hashed_api_key",
    "client_ip",
    "user_agent",
]
"""As `litellm_config.yaml` recommends."""
SCRAPER = {"subjects": ["user:local/scraper"], "user_role": "proxy_admin"}
SETTLES_S = 40.0
"""Longer than two looks at the gauges."""
DROPPED = ["encoding_format", "user"]
LITELLM: dict[str, Any] = {
    "model_list": [
        {
            "model_name": "local/minilm",
            "litellm_params": {
                "model": "local/minilm",
                "additional_drop_params": ["encoding_format", "user"],
            },
        },
        {
            "model_name": "extractive",
            "litellm_params": {"model": "local/extractive"},
            "model_info": {"rag": True},
        },
    ],
    "litellm_settings": {
        "callbacks": ["plugins.entry.hooks", "prometheus"],
        "prometheus_exclude_labels": NAMELESS,
    },
    "general_settings": {
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
        "master_key": "os.environ/LITELLM_MASTER_KEY",
    },
}


@dataclass
class Scraped:
    """The proxy and its worker, and what their pages said."""

    url: str
    worker_url: str
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    def families(self, url: str | None = None) -> list[Metric]:
        """Of the proxy's page, or of the one at ``url``."""
        answer = httpx.get(
            url or f"{self.url}/metrics/",
            headers={"Authorization": f"Bearer {MASTER_KEY}"},
            trust_env=False,
            timeout=30,
        )
        assert answer.status_code == 200, answer.text
        return list(text_string_to_metric_families(answer.text))

    def value(self, name: str, url: str | None = None, **labels: str) -> float:
        """The sum of the samples with these labels."""
        samples = [sample for family in self.families(url) for sample in family.samples]
        return sum(s.value for s in samples if s.name == name and labels.items() <= s.labels.items())

    def moves(self, action: Callable[[], Any], name: str, **labels: str) -> float:
        """By how much the action moves it."""
        before = self.value(name, **labels)
        action()
        return self.value(name, **labels) - before

    def post(self, person: str, path: str, body: dict[str, Any]) -> httpx.Response:
        return self.clients[person].post(path, json=body)


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    folder, port = tmp_path_factory.mktemp("metrics"), free_port()
    prompts = folder / "config" / "prompts"
    prompts.mkdir(parents=True)
    prompt = ROOT / "config" / "prompts" / "answer.md"
    (prompts / "answer.md").write_text(prompt.read_text(encoding="utf-8"), encoding="utf-8")
    with proxy(folder, LITELLM, configuration(port)) as running:
        made = Scraped(running.url, f"http://127.0.0.1:{port}/metrics")
        for person, key in KEYS.items():
            headers = {"Authorization": f"Bearer {key}"}
            made.clients[person] = httpx.Client(
                base_url=running.url, headers=headers, trust_env=False, timeout=60
            )
        access = {"discover": ["user:local/bob"]}
        new = {"name": COLLECTION, "access": access}
        assert made.post("alice", "/v1/collections/new", new).status_code == 201
        path = f"/v1/collections/{COLLECTION}/add?wait=true"
        document = {"markdown": LEAVE, "filename": "leave.md"}
        assert made.post("alice", path, {"documents": [document]}).status_code == 200
        yield made
        for client in made.clients.values():
            client.close()


def configuration(metrics_port: int) -> dict[str, dict[str, Any]]:
    keys = [{"key": key, "user": name} for name, key in KEYS.items()]
    sources = [
        {"use": "api_keys", "name": "local", "keys": keys},
        {"use": "litellm", "master_key": "os.environ/LITELLM_MASTER_KEY"},
    ]
    return {
        "identity": {"identity": {"sources": sources, "allowances": [SCRAPER]}},
        "collections": {"collections": {"create": [{"subjects": ["user:local/alice"]}]}},
        "tools": {"tools": [{"use": "search_documents", "allow": ["user:local/alice"]}]},
        "storage": {"storage": {"data_dir": "os.environ/DATA_DIR"}},
        "worker": {"worker": {"metrics_port": metrics_port}},
    }


def chat(on: Scraped, person: str = "alice", **body: Any) -> httpx.Response:
    messages = [{"role": "user", "content": QUESTION}]
    return on.post(person, "/v1/chat/completions", {"model": "extractive", "messages": messages, **body})


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_moves_its_rounds_passages_and_tool_runs(scraped: Scraped, stream: bool) -> None:
    names = {
        "collections_answer_rounds_count": 1,
        "collections_answer_rounds_sum": 2,
        "collections_passages_given_total": 1,
        "collections_passages_cited_total": 1,
        "collections_tool_runs_total": 1,
        "collections_searches_total": 1,
    }
    before = {name: scraped.value(name) for name in names}
    answer = chat(scraped, stream=stream)
    assert "28 days" in answer.text
    assert {name: scraped.value(name) - before[name] for name in names} == names
    ran = {"tool": "search_documents", "result": "ok"}
    assert scraped.value("collections_tool_runs_total", **ran) > 0
    for stage in ("auth", "tool", "search", "embed", "store"):
        assert scraped.value("collections_stage_seconds_count", stage=stage) > 0


def test_a_search_is_counted_by_what_came_of_it(scraped: Scraped) -> None:
    path = f"/v1/collections/{COLLECTION}/search"
    search = {"query": QUESTION}
    name = "collections_searches_total"
    assert scraped.moves(lambda: scraped.post("alice", path, search), name, result="found") == 1
    nothing = {**search, "filters": {"type": "eq", "key": "filename", "value": "none.md"}}
    assert scraped.moves(lambda: scraped.post("alice", path, nothing), name, result="nothing") == 1


@pytest.mark.parametrize(
    ("place", "status", "code"),
    [(COLLECTION, 403, "permission_denied"), ("nowhere", 404, "collection_not_found")],
)
def test_a_refused_search_is_counted_by_right_and_code(
    scraped: Scraped, place: str, status: int, code: str
) -> None:
    def search() -> None:
        answer = scraped.post("bob", f"/v1/collections/{place}/search", {"query": QUESTION})
        assert answer.status_code == status

    assert scraped.moves(search, "collections_refusals_total", right="query", code=code) == 1


def test_a_tool_that_is_not_ours_is_counted_without_its_name(scraped: Scraped) -> None:
    call = {"name": "rm_rf_of_an_attacker", "arguments": {}}
    name, labels = "collections_tool_runs_total", {"tool": "other", "result": "tool_not_found"}
    assert scraped.moves(lambda: scraped.post("alice", "/v1/tools", call), name, **labels) == 1


def test_sign_ins_are_counted_by_source_and_by_what_was_wrong(scraped: Scraped) -> None:
    def ask(token: str) -> Callable[[], httpx.Response]:
        headers = {"Authorization": f"Bearer {token}"}
        return lambda: httpx.get(f"{scraped.url}/v1/collections", headers=headers, trust_env=False)

    name = "collections_sign_ins_total"
    assert scraped.moves(ask(KEYS["bob"]), name, source="local", result="ok") == 1
    assert scraped.moves(ask("no-key-at-all"), name, source="none", result="unknown_key") == 1
    assert scraped.moves(ask("eyJh.eyJp.c2ln"), name, source="none", result="unknown_issuer") == 1


def test_an_upload_is_counted_with_its_bytes_and_the_worker_counts_what_it_did(scraped: Scraped) -> None:
    text = "# Parking\n\nThe garage opens at six."

    def upload() -> None:
        body = {"documents": [{"text": text, "filename": "parking.txt"}]}
        answer = scraped.post("alice", f"/v1/collections/{COLLECTION}/add?wait=true", body)
        assert answer.status_code == 200

    done = scraped.value("collections_documents_total", scraped.worker_url, result="completed")
    assert scraped.moves(upload, "collections_uploaded_bytes_total") == len(text)
    assert scraped.value("collections_uploads_total", kind="file") == 1
    page = scraped.worker_url
    until(
        lambda: scraped.value("collections_documents_total", page, result="completed") == done + 1,
        "the document is counted",
    )
    for stage in ("convert", "embed", "store"):
        labels = {"stage": stage, "format": "text"}
        assert scraped.value("collections_ingest_stage_seconds_count", page, **labels) == 1


def test_the_gauges_tell_the_queue_and_the_health_of_parts(scraped: Scraped) -> None:
    until(lambda: scraped.value("collections_workers") == 1, "the worker is seen", SETTLES_S)
    for part in ("store", "database", "worker", "identity.local"):
        assert scraped.value("collections_up", part=part) == 1
    queue = [f for f in scraped.families() if f.name == "collections_queue_documents"]
    assert {s.labels["state"] for f in queue for s in f.samples} == {"waiting", "in_progress", "failed"}


def test_only_admins_may_read_them(scraped: Scraped) -> None:
    for path in ("/metrics", "/metrics/"):
        assert httpx.get(f"{scraped.url}{path}", trust_env=False).status_code == 401
        assert scraped.clients["alice"].get(path).status_code == 401
    assert "collections_sign_ins_total" in scraped.clients["scraper"].get("/metrics/").text


def test_no_label_says_who_or_what(scraped: Scraped) -> None:
    chat(scraped)
    listed = scraped.clients["alice"].get(f"/v1/collections/{COLLECTION}/documents").json()["data"]
    told = [*KEYS, *KEYS.values(), COLLECTION, "leave", "parking", *(document["id"] for document in listed)]
    samples = [s for page in (None, scraped.worker_url) for f in scraped.families(page) for s in f.samples]
    values = {value for sample in samples for value in sample.labels.values()}
    assert "extractive" in values
    assert not [value for value in values if any(word in value for word in told)]


def test_the_configuration_file_recommends_these_labels_to_be_left_out() -> None:
    text = (ROOT / "litellm_config.yaml").read_text(encoding="utf-8")
    assert f"# prometheus_exclude_labels: [{', '.join(NAMELESS)}]" in text


def test_litellms_own_figures_are_on_the_same_page(scraped: Scraped) -> None:
    chat(scraped)
    assert "litellm_proxy_total_requests_metric" in {family.name for family in scraped.families()}
