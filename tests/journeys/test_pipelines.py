"""Pipelines through the real proxy: a model fills in a form about a document, its owner looks at it, edits it
and adds it, and finds it by what the form says. The model is a stand-in that does as it is told."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from crawler.crawler import check
from crawler.settings import validate
from plugins.core.config import WorkerConfig
from tests.support.library import key, litellm_config, our_config
from tests.support.proxy import MASTER_KEY, ROOT, Proxy, free_port, proxy
from tests.support.quickstart import until
from tests.support.scripted_upstream import KEY, ScriptedUpstream, scripted_upstream

GUIDE = (ROOT / "docs" / "pipelines.md").read_text(encoding="utf-8")
SHOWN, PICTURES = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", GUIDE, re.DOTALL))
[EXAMPLE] = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
FORM = SHOWN["pipelines"]["invoices"]["extractor"]["metadata_schema"]
GOOD = {"title": "Invoice of ACME", "kind": "invoice", "amount": 1200, "parties": ["ACME", "Ada"]}
AGAIN = "This does not fit"


class Forms(dict[str, Any]):
    """What the model answers, by a word of the document that it is asked about."""

    def get(self, question: str, default: Any = None) -> Any:
        return next((rounds for word, rounds in self.items() if word in question), default)


FORMS = Forms(
    {
        "'opera'": [{"text": ['{"kind": "opera"}']}],
        "LEMUR": [{"text": ['{"kind": "opera"}']}],
        AGAIN: [{"text": [json.dumps(GOOD)]}],
        "ZEBRA": [{"text": ['{"kind": "novel"}']}],
        "Northwind": [{"text": [json.dumps(GOOD)]}],
        "WALRUS": [{"text": [json.dumps(GOOD)]}],
        "OCELOT": [{"down": ["reader"]}],
        "GIBBON": [{"text": ["hang"]}],
    }
)


@dataclass
class House:
    proxy: Proxy
    upstream: ScriptedUpstream
    folder: Path
    collection: str

    def http(self, person: str = "alice") -> httpx.Client:
        headers = {"Authorization": f"Bearer {key(person)}"}
        return httpx.Client(base_url=self.proxy.url, headers=headers, timeout=90, trust_env=False)

    def path(self, end: str) -> str:
        return f"/v1/collections/{self.collection}/{end}"

    def preview(self, text: str) -> httpx.Response:
        files = {"file": ("paper.md", text.encode(), "text/markdown")}
        with self.http() as client:
            return client.post(self.path("preview"), files=files)

    def add(self, document: dict[str, Any]) -> dict[str, Any]:
        with self.http() as client:
            answer = client.post(self.path("add?wait=true"), json={"documents": [document]})
        assert answer.status_code == 200, answer.text
        [view] = answer.json()["data"]
        assert view["status"] == "completed", view
        return dict(view)

    def found(self, query: str, **filters: Any) -> list[dict[str, Any]]:
        with self.http() as client:
            body = {"query": query, "filters": filters or None}
            answer = client.post(self.path("search"), json=body)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])

    def children(self) -> list[int]:
        """The processes that make previews."""
        mark = f"DATA_DIR={self.folder / 'data'}".encode()
        found = []
        for entry in Path("/proc").iterdir():
            try:
                if (
                    not entry.name.isdigit()
                    or b"plugins.worker.preview" not in (entry / "cmdline").read_bytes()
                ):
                    continue
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
            except OSError:
                continue  # it ended meanwhile, or is not ours
        return found


def our_files(folder: Path, port: int) -> Mapping[str, Any]:
    config = our_config(folder, port)
    config["collections"]["collections"]["fields"] = {"amount": "number", "kind": "string"}
    return {
        **config,
        "pipelines": {"pipelines": SHOWN["pipelines"]},
        "worker": {"worker": {**SHOWN["worker"], "proxy_url": f"http://127.0.0.1:{port}"}},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder, port = tmp_path_factory.mktemp("pipelines"), free_port()
    with scripted_upstream(FORMS) as upstream:
        params = {"model": "openai/reader", "api_base": upstream.url, "api_key": KEY, "num_retries": 0}
        # It answers from documents when people ask it: not so when the pipeline does.
        reader = {
            "model_name": "reader",
            "litellm_params": params,
            "model_info": {"mode": "chat", "rag": True},
        }
        config = litellm_config([reader])
        with proxy(folder, config, our_files(folder, port), {"WORKER_KEY": MASTER_KEY}, port) as running:
            house = House(running, upstream, folder, "")
            with house.http() as alice:
                created = alice.post("/v1/collections/new", json={"name": "invoices", "pipeline": "invoices"})
            assert created.status_code == 201, created.text
            assert created.json()["pipeline"] == "invoices"
            house.collection = created.json()["id"]
            yield house


@pytest.fixture
def house(made: House) -> House:
    made.upstream.asked.clear()
    return made


def test_pipelines_say_what_they_look_for(house: House) -> None:
    with house.http("bob") as bob:
        answer = bob.get("/v1/pipelines").json()
    invoices = next(pipeline for pipeline in answer["data"] if pipeline["id"] == "invoices")
    assert invoices["description"].endswith("for accounting")
    assert invoices["metadata_schema"] == FORM
    assert (invoices["extractor"], invoices["embedding_model"]) == ("llm", "local/minilm")
    assert "metadata_schema" in invoices["schema"]["$defs"]["extractor.llm"]["properties"]


def test_what_the_guide_shows_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_KEY", "sk-worker")
    for shown in (SHOWN, PICTURES):
        for name, pipeline in shown["pipelines"].items():
            assert check(pipeline, f"pipelines.{name}") == []
        assert validate(WorkerConfig, shown["worker"], "worker").api_key


def test_what_the_guide_shows_can_be_done(house: House, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "documents" / "annual-report-2025.pdf", tmp_path / "invoice.pdf")
    done = subprocess.run(
        [sys.executable, "-c", EXAMPLE],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PROXY_URL": house.proxy.url, "PROXY_KEY": key("alice")},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "'title': 'Invoice of ACME'" in done.stdout
    assert done.stdout.splitlines()[-1] == "The bill that nobody paid"
    assert len(house.upstream.asked) == 1, "the model is asked by the preview alone"


def test_a_preview_is_edited_added_and_found_without_asking_the_model_again(house: House) -> None:
    answer = house.preview("# ZEBRA 12\n\nACME asks Ada for 1200 euros.")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["metadata"]["title"] == "Invoice of ACME"
    assert (found["metadata"]["amount"], found["warnings"]) == (1200, [])
    first, second = house.upstream.asked
    assert first.body["response_format"]["json_schema"]["schema"] == FORM
    assert "'novel' is not one of" in second.messages[-1]["content"]
    assert not first.body.get("tools"), "no documents are looked for on behalf of the worker's key"

    metadata = {**found["metadata"], "title": "Unpaid marmalade bill"}
    edited = {"markdown": found["markdown"], "metadata": metadata, "filename": "zebra.md"}
    view = house.add(edited)
    assert len(house.upstream.asked) == 2, "the model is not asked again"
    assert view["attributes"] == {"kind": "invoice", "amount": 1200}
    with house.http() as alice:
        shown = alice.get(house.path(f"documents/{view['id']}")).json()
    assert shown["properties"]["title"] == "Unpaid marmalade bill"
    assert shown["properties"]["parties"] == ["ACME", "Ada"]
    [hit] = house.found("marmalade", type="eq", key="amount", value=1200)
    assert (hit["file_id"], hit["attributes"]["title"]) == (view["id"], "Unpaid marmalade bill")
    assert house.found("marmalade", type="gt", key="amount", value=1200) == []


def test_a_document_that_is_added_without_a_preview_is_found_by_what_the_model_said(house: House) -> None:
    view = house.add({"text": "WALRUS: ACME asks for money.", "filename": "walrus.txt"})
    assert len(house.upstream.asked) == 1
    assert view["attributes"] == {}, "attributes are what the uploader says"
    assert view["properties"]["kind"] == "invoice"
    named = {"type": "eq", "key": "kind", "value": "invoice"}
    assert view["id"] in [hit["file_id"] for hit in house.found("money", **named)]


def test_a_document_that_the_model_makes_nothing_of_is_stored_with_a_warning(house: House) -> None:
    view = house.add({"text": "LEMUR: a song about marmots.", "filename": "lemur.txt"})
    assert len(house.upstream.asked) == 2
    [warning] = view["warnings"]
    assert "$.kind: 'opera' is not one of" in warning
    assert view["properties"]["title"] == "lemur"
    assert view["id"] in [hit["file_id"] for hit in house.found("marmots")]


def test_a_model_that_is_down_makes_no_preview_and_leaks_nothing(house: House) -> None:
    answer = house.preview("OCELOT")
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_failed")
    assert house.upstream.url not in answer.text
    assert KEY not in answer.text


def test_the_child_of_a_client_that_leaves_ends(house: House) -> None:
    with ThreadPoolExecutor() as pool, house.http() as client:
        files = {"file": ("paper.md", b"GIBBON", "text/markdown")}
        asking = pool.submit(
            client.post, house.path("preview"), files=files, timeout=httpx.Timeout(90, read=8)
        )
        [asked] = until(lambda: house.upstream.of("GIBBON"), "the model is asked")
        assert asked.hanging.wait(10)
        [child] = house.children()
        assert os.getpriority(os.PRIO_PROCESS, child) > os.getpriority(os.PRIO_PROCESS, 0)
        with pytest.raises(httpx.ReadTimeout):
            asking.result(30)
    until(lambda: not house.children(), "the child is gone", 15)
    with house.http() as alice:
        assert alice.get(house.path("documents")).is_success
