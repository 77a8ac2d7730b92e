"""The store, the worker and the proxy are killed; nothing that was acknowledged is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.proxy import free_port
from tests.support.quickstart import (
    STORE,
    WORKER,
    Quickstart,
    change,
    copy,
    quickstart,
    until,
    variables,
)

MODEL = "second/minilm"


class Installation:
    """One data directory, and the proxy that runs on it at the moment."""

    def __init__(self, running: Quickstart, stack: ExitStack, keys: str) -> None:
        self.running = running
        self.keys = keys
        """The `.env` as it was before the first start."""
        self._stack = stack

    def alice(self) -> httpx.Client:
        return self.running.http("alice")

    def restart(self) -> None:
        """Another proxy on the same folder and port; the one before must have ended."""
        self._stack.close()
        self.running = self._stack.enter_context(quickstart(self.running.folder, port=self.running.port))

    @property
    def has_model(self) -> bool:
        return MODEL in (self.running.folder / "litellm_config.yaml").read_text(encoding="utf-8")

    def drop_model(self) -> None:
        """Take the second embedding model out of the YAML; for the next start."""
        change(
            self.running.folder / "litellm_config.yaml",
            lambda content: content["model_list"].remove(
                next(model for model in content["model_list"] if model["model_name"] == MODEL)
            ),
        )


def write_env(path: Path) -> str:
    """Keys of one's own; what the file holds."""
    names = ("LITELLM_MASTER_KEY", "DEMO_ALICE_KEY", "DEMO_BOB_KEY", "DEMO_CAROL_KEY")
    content = "".join(f"{name}=sk-mine-{name.lower()}-0123456789abcdef\n" for name in names)
    path.write_text(content + "CHAT_MODEL=ollama_chat/mine\n", encoding="utf-8")
    return path.read_text(encoding="utf-8")


def second_model(content: dict[str, Any]) -> None:
    model = {"model": "local/minilm", "additional_drop_params": ["encoding_format", "user"]}
    content["model_list"].append(
        {"model_name": MODEL, "litellm_params": model, "model_info": {"mode": "embedding"}}
    )


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The sample installation with a second embedding model, that the worker reaches through the proxy."""
    folder, port = copy(tmp_path_factory.mktemp("killed")), free_port()
    key = "os.environ/LITELLM_MASTER_KEY"
    worker = {"proxy_url": f"http://127.0.0.1:{port}", "api_key": key, "lease_s": 4}
    change(folder / "config" / "limits.yaml", lambda content: content["worker"].update(worker))
    change(folder / "litellm_config.yaml", second_model)
    keys = write_env(folder / ".env")
    with ExitStack() as stack:
        yield Installation(stack.enter_context(quickstart(folder, port=port)), stack, keys)


def kill(installation: Installation, command: str) -> int:
    pid = installation.running.child(command)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    until(lambda: pid not in installation.running.processes(), "it is dead")
    return pid


def texts(count: int, sections: int = 12) -> list[dict[str, str]]:
    """Documents of so many sections, each of which is one passage."""
    return [
        {
            "id": f"text-{number}",
            "markdown": "\n\n".join(f"# Part {s}\n\nMarker{number} is in part {s}." for s in range(sections)),
        }
        for number in range(count)
    ]


def create(installation: Installation, name: str, **options: str) -> None:
    created = installation.alice().post("/v1/collections/new", json={"name": name, **options})
    assert created.status_code == 201, created.text


def upload(installation: Installation, name: str, documents: list[dict[str, str]]) -> list[dict[str, Any]]:
    answer = installation.alice().post(f"/v1/collections/{name}/add", json={"documents": documents})
    assert answer.status_code == 202, answer.text
    return list(answer.json()["data"])


def listed(installation: Installation, name: str) -> list[dict[str, Any]]:
    return list(installation.alice().get(f"/v1/collections/{name}/documents").json()["data"])


def at_work(installation: Installation, name: str) -> bool:
    """Whether a job is in the middle of its stages."""
    return any(d["job"]["stage"] not in ("queued", "done") for d in listed(installation, name))


def completed(installation: Installation, name: str) -> list[dict[str, Any]]:
    """The documents, once none of them is in progress."""

    def idle() -> list[dict[str, Any]]:
        found = listed(installation, name)
        return [] if any(d["status"] == "in_progress" for d in found) else found

    found: list[dict[str, Any]] = until(idle, "all jobs have ended", 90)
    return found


def passages(installation: Installation, name: str, word: str, filters: Any = None) -> list[str]:
    body = {"query": word, "max_num_results": 50, "filters": filters, "ranking_options": {"ranker": "bm25"}}
    answer = installation.alice().post(f"/v1/collections/{name}/search", json=body)
    assert answer.status_code == 200, answer.text
    return [hit["content"][0]["text"] for hit in answer.json()["data"] if word in hit["content"][0]["text"]]


def test_a_store_that_is_killed_answers_503_comes_back_and_has_lost_nothing(
    installation: Installation,
) -> None:
    create(installation, "steady")
    upload(installation, "steady", texts(2))
    completed(installation, "steady")
    before = sorted(passages(installation, "steady", "Marker1"))
    kill(installation, STORE)
    seen: list[httpx.Response] = []

    def answers() -> bool:
        body = {"query": "Marker1", "max_num_results": 50}
        seen.append(installation.alice().post("/v1/collections/steady/search", json=body))
        return seen[-1].status_code == 200

    until(answers, "the store is back")
    refused = seen[:-1]
    assert refused, "a request in between was answered"
    for answer in refused:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "store_unavailable")
        assert int(answer.headers["retry-after"]) >= 1
        assert "sock" not in answer.text
    assert sorted(passages(installation, "steady", "Marker1")) == before
    health = installation.running.http("master").get("/health/collections").json()
    assert health["details"]["store"]["restarts"] >= 1


def test_a_store_that_is_killed_in_the_middle_of_jobs_costs_no_document(installation: Installation) -> None:
    create(installation, "stormy")
    documents = upload(installation, "stormy", texts(6))
    until(lambda: any(d["status"] == "completed" for d in listed(installation, "stormy")), "jobs run")
    kill(installation, STORE)
    done = completed(installation, "stormy")
    assert {(d["id"], d["status"], d["chunks"]) for d in done} == {
        (d["id"], "completed", 12) for d in documents
    }
    for number in range(6):
        assert len(passages(installation, "stormy", f"Marker{number}")) == 12, "neither less nor twice"


def test_a_worker_that_is_killed_in_the_middle_of_a_job_is_replaced_and_the_job_done_once(
    installation: Installation,
) -> None:
    create(installation, "worked")
    upload(installation, "worked", texts(6))
    until(lambda: at_work(installation, "worked"), "a job is being done")
    killed = kill(installation, WORKER)
    assert [(d["status"], d["chunks"]) for d in completed(installation, "worked")] == [("completed", 12)] * 6
    assert installation.running.child(WORKER) not in (None, killed)
    for number in range(6):
        assert len(passages(installation, "worked", f"Marker{number}")) == 12


@pytest.fixture(scope="module")
def aging(installation: Installation) -> str:
    """A collection of the second model, with one document."""
    create(installation, "aging", embedding_model=MODEL)
    upload(installation, "aging", [{"markdown": "# Tea\n\nTea is served at four."}])
    [document] = completed(installation, "aging")
    assert document["status"] == "completed", document
    return "aging"


def test_a_model_that_the_worker_reaches_through_the_proxy_embeds_documents(
    installation: Installation, aging: str
) -> None:
    body = {"query": "when is tea", "ranking_options": {"ranker": "dense"}}
    [hit] = installation.alice().post(f"/v1/collections/{aging}/search", json=body).json()["data"]
    assert hit["content"][0]["text"].endswith("Tea is served at four.")


def test_after_kill_9_of_the_proxy_its_children_end_and_the_next_one_completes_every_acknowledged_upload(
    installation: Installation,
) -> None:
    create(installation, "survived")
    old = [{"id": "text-0", "markdown": "# Part\n\nMarker0 of the first version."}]
    upload(installation, "survived", old)
    completed(installation, "survived")
    acknowledged = upload(installation, "survived", texts(8))  # text-0 is replaced
    running = installation.running
    broken = Unfinished(running)
    until(lambda: sum(d["status"] == "completed" for d in listed(installation, "survived")) > 1, "jobs run")
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait(10)
    broken.join()
    until(lambda: not running.processes(), "the children end by themselves")
    keys = (running.folder / ".env").read_bytes()
    installation.drop_model()
    installation.restart()
    assert "Uploading the sample documents" not in installation.running.log, "they are there"
    assert (running.folder / ".env").read_bytes() == keys
    done = completed(installation, "survived")
    assert {(d["id"], d["status"], d["chunks"]) for d in done} == {
        (d["id"], "completed", 12) for d in acknowledged
    }, "all that were acknowledged, and not the one that was cut off"
    for number in range(8):
        found = passages(installation, "survived", f"Marker{number}")
        assert len(found) == 12
        assert not any("first version" in text for text in found)
    assert len(passages(installation, "steady", "Marker1")) == 12, "what was there stays"


class Unfinished:
    """An upload that is still being sent when the proxy dies."""

    def __init__(self, running: Quickstart) -> None:
        self._begun, self._over = threading.Event(), threading.Event()
        self._client = httpx.Client(
            base_url=running.url,
            headers={"Authorization": f"Bearer {running.key('alice')}"},
            trust_env=False,
            timeout=60,
        )
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()
        assert self._begun.wait(10)

    def _send(self) -> None:
        def body() -> Iterator[bytes]:
            yield b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nhalf'
            self._begun.set()
            self._over.wait(60)

        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        with self._client, pytest.raises(httpx.HTTPError):
            self._client.post("/v1/collections/survived/add", content=body(), headers=headers)

    def join(self) -> None:
        self._over.set()
        self._thread.join(60)
        assert not self._thread.is_alive()


def test_a_model_that_is_no_longer_configured_is_told_on_use_and_the_rest_goes_on(
    installation: Installation, aging: str
) -> None:
    if installation.has_model:
        installation.drop_model()
        installation.restart()
    alice = installation.alice()
    answer = alice.post("/v1/collections/aging/search", json={"query": "tea"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "model_unavailable")
    assert f"`{MODEL}`" in answer.json()["error"]["message"]
    assert "ask the operator" in answer.json()["error"]["message"]
    health = installation.running.http("master").get("/health/collections").json()
    assert (health["status"], health["store"], health["worker"]) == ("degraded", "degraded", "ok")
    assert MODEL in health["details"]["messages"]["models"]
    upload(installation, "aging", [{"id": "late", "markdown": "# Late\n\nToo late."}])
    by_id = {d["id"]: d for d in completed(installation, "aging")}
    assert by_id["late"]["status"] == "failed"
    assert "model" in by_id["late"]["last_error"]["message"]
    assert passages(installation, "aging", "Tea"), "keywords need no model"
    assert "aging" in [c["name"] for c in alice.get("/v1/collections").json()["data"]]
    question: Any = [{"role": "user", "content": "How many days of annual leave are there?"}]
    chat = installation.running.openai("alice").chat.completions.create(model="extractive", messages=question)
    assert "28 days" in (chat.choices[0].message.content or "")


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ([sys.executable, "examples/quickstart.py"], 1),
        ([str(Path(sys.executable).parent / "litellm"), "--config", "litellm_config.yaml"], 3),
    ],
    ids=["make run", "litellm"],
)
def test_a_wrong_configuration_does_not_start_and_all_its_mistakes_are_told(
    tmp_path: Path, command: list[str], status: int
) -> None:
    folder = copy(tmp_path)
    write_env(folder / ".env")
    change(folder / "config" / "storage.yaml", lambda content: content["storage"].update(dir="x"))
    change(folder / "config" / "limits.yaml", lambda content: content["limits"].update(max_files=0))
    ended = subprocess.run(
        [*command, "--port", str(free_port())],
        cwd=folder,
        env=variables(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == status, ended.stderr
    told = (ended.stdout + ended.stderr).splitlines()
    for file, setting in (("storage.yaml", "storage.dir"), ("limits.yaml", "limits.max_files")):
        assert any(file in line and setting in line for line in told), told


def test_keys_that_were_there_are_kept_and_ctrl_c_ends_every_process(installation: Installation) -> None:
    running = installation.running
    assert (running.folder / ".env").read_text(encoding="utf-8") == installation.keys
    assert running.http("bob").get("/v1/collections").status_code == 200
    assert len(running.processes()) >= 3, "the proxy, the store and the worker"
    os.killpg(running.process.pid, signal.SIGINT)
    running.process.wait(40)
    until(lambda: not running.processes(), "all have ended", 5)
    assert "Traceback" not in running.log
