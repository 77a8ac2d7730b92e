"""The stack of `deploy/compose.yaml` without its containers: the same configuration, commands and settings,
with the servers that this machine can run, and only their addresses changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deploy import setup as stack
from deploy.keycloak.keycloak import Server as Keycloak
from tests.crash.postgres import postgres
from tests.live.keycloak_realm import SECRETS, Realm, throwaway
from tests.live.milvus import CannotRun as NoMilvus
from tests.live.milvus import server as milvus_server
from tests.live.ollama import Ollama, ollama
from tests.live.open_webui import TASKS, artefacts
from tests.live.open_webui_page import person
from tests.live.open_webui_server import CannotRun, Connection
from tests.live.open_webui_server import server as open_webui_server
from tests.live.tiny_ollama.model import CITED
from tests.support.limits import is_listening
from tests.support.proxy import ROOT, STARTUP, Proxy, end, free_port, wait_until_ready
from tests.support.quickstart import until

__all__ = ["artefacts", "ollama"]

DEPLOY = ROOT / "deploy"
SERVICES: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
DOCUMENTS = {"finance": "annual-report-2025.pdf", "handbook": "employee-handbook.md"}
QUESTION = "What is the notice period? Search the documents."
COMMAND_S = 180
QUIET = {"Answers whose budget was spent", "Not done", "Tried again"}
"""Panels that have something to show only when something is wrong."""


@dataclass
class Stack:
    proxy: Proxy
    realm: Realm
    ollama: Ollama
    redis: Mapping[str, Any]
    folder: Path
    environment: Mapping[str, str]
    metrics_ports: Mapping[str, int]
    """Of the proxy and of the worker."""

    def http(self, who: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.realm.tokens(who)['access_token']}"}
        return httpx.Client(base_url=self.proxy.url, headers=headers, timeout=120, trust_env=False)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """A command in the container of the proxy."""
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )


@contextmanager
def redis(folder: Path, secrets: Path) -> Iterator[Mapping[str, Any]]:
    """By the stack's own command."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed (Debian's package `redis-server`)")
    port, script = free_port(), SERVICES["redis"]["command"][-1].replace("$$", "$")
    script = f"{script.replace('/run/secrets', str(secrets))} --bind 127.0.0.1 --port {port} --dir {folder}"
    with (folder / "redis.log").open("wb") as log:
        process = subprocess.Popen(["bash", "-c", script], stdout=log, stderr=log, start_new_session=True)
    try:
        until(lambda: is_listening(port), "Redis listens")
        yield {"port": port, "password": (secrets / "redis_password").read_text(encoding="utf-8")}
    finally:
        end(process)


def realm_settings(public_url: str) -> dict[str, Any]:
    """The clients that `make setup` makes, as Keycloak reads them from its environment."""
    known = {"PUBLIC_BASE_URL": public_url, "OPEN_WEBUI_URL": "http://127.0.0.1:9"}
    known |= {f"{name.replace('-', '_').upper()}_CLIENT_SECRET": value for name, value in SECRETS.items()}
    text = re.sub(r"\$\{([A-Z_]+)\}", lambda match: known[match[1]], json.dumps(stack.realm(people=True)))
    return {"clients": json.loads(text)["clients"]}


def set_by(service: str) -> dict[str, Any]:
    """The variables that the compose file gives a service; those without a value are the operator's."""
    given: dict[str, Any] = SERVICES[service]["environment"]
    return {name: value for name, value in given.items() if value is not None}


def environment(folder: Path, secrets: Path, metrics_port: int, **addresses: str) -> dict[str, str]:
    """What the proxy's container has but for its figures, with other addresses.

    Args:
        metrics_port: Of the worker.
    """
    shutil.copytree(DEPLOY / "compose" / "config", folder / "config")
    shutil.copytree(ROOT / "config" / "prompts", folder / "config" / "prompts", dirs_exist_ok=True)
    shutil.copy(DEPLOY / "compose" / "litellm_config.yaml", folder)
    worker = folder / "config" / "worker.yaml"
    content = yaml.safe_load(worker.read_text(encoding="utf-8"))
    content["worker"] |= {"metrics_port": metrics_port, "metrics_host": "127.0.0.1"}
    worker.write_text(yaml.safe_dump(content), encoding="utf-8")
    figures = {"PROMETHEUS_METRICS_PORT", "PROMETHEUS_MULTIPROC_DIR"}
    given = {name: str(value) for name, value in set_by("proxy").items() if name not in figures}
    given = {name: value.replace("/run/secrets", str(secrets)) for name, value in given.items()} | addresses
    assert not [value for value in given.values() if "${" in value], "each address is replaced"
    return given | {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{STARTUP}",
        "COLLECTIONS_CONFIG": str(folder / "config"),
        "DATA_DIR": str(folder / "data"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


@contextmanager
def started(command: Sequence[str], log_file: Path, environ: Mapping[str, str]) -> Iterator[Any]:
    """A service's command as the compose file has it, in its folder; ended in any case."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command[1:]],
            cwd=log_file.parent,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        end(process)


@contextmanager
def prometheus(folder: Path, ports: Mapping[str, int]) -> Iterator[httpx.Client]:
    """By the stack's own configuration, which looks once a second here; a client of it."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian's package `prometheus`)")
    folder.mkdir()
    settings = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yaml").read_text(encoding="utf-8"))
    settings["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job in settings["scrape_configs"]:
        [target] = job["static_configs"][0]["targets"]
        job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[target.partition(':')[0]]}"]}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    shutil.copy(DEPLOY / "monitoring" / "alerts.yaml", folder)
    address = f"127.0.0.1:{free_port()}"
    options = (f"--web.listen-address={address}", "--config.file=prometheus.yaml", "--storage.tsdb.path=data")
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(
            ["prometheus", *options], cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        with httpx.Client(base_url=f"http://{address}", timeout=30, trust_env=False) as client:
            until(lambda: is_listening(int(address.rpartition(":")[2])), "Prometheus listens")
            yield client
    finally:
        end(process)


@pytest.fixture(scope="module")
def running(keycloak: Keycloak, ollama: Ollama, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder, port = tmp_path_factory.mktemp("stack"), free_port()
    metrics_ports = {"proxy": free_port(), "worker": free_port()}
    url = f"http://127.0.0.1:{port}"
    stack.setup(folder)
    secrets = folder / ".secrets" / "dev"
    with ExitStack() as opened:
        try:
            milvus = opened.enter_context(milvus_server())
        except NoMilvus as error:
            pytest.skip(str(error))
        database = opened.enter_context(postgres())
        cache = opened.enter_context(redis(folder, secrets))
        realm = opened.enter_context(throwaway(keycloak, **realm_settings(url)))
        for name, value in {
            "database_url": database.url,
            "milvus_password": milvus.password,
            "litellm_client_secret": SECRETS["litellm"],
        }.items():
            (secrets / name).chmod(0o600)
            (secrets / name).write_text(value, encoding="utf-8")
        environ = environment(
            folder,
            secrets,
            metrics_ports["worker"],
            PUBLIC_BASE_URL=url,
            KEYCLOAK_ISSUER=realm.url,
            MILVUS_URI=milvus.uri,
            MILVUS_USER=milvus.user,
            REDIS_HOST="127.0.0.1",
            REDIS_PORT=str(cache["port"]),
            CHAT_MODEL=f"ollama_chat/{ollama.model}",
            FORWARDED_ALLOW_IPS="127.0.0.1",
            OLLAMA_BASE_URL=ollama.url,
        )
        of_proxy = set_by("proxy").keys() - set_by("worker").keys()
        assert {"LITELLM_MASTER_KEY_FILE", "REDIS_PASSWORD_FILE"} <= of_proxy
        of_worker = {name: value for name, value in environ.items() if name not in of_proxy}
        with started(SERVICES["migrate"]["command"], folder / "migrate.log", of_worker) as migration:
            assert migration.wait(COMMAND_S) == 0, (folder / "migrate.log").read_text(encoding="utf-8")
        opened.enter_context(started(SERVICES["worker"]["command"], folder / "worker.log", of_worker))
        command = [*SERVICES["proxy"]["command"][:-4], "--host", "127.0.0.1", "--port", str(port)]
        figures = {"PROMETHEUS_METRICS_PORT": str(metrics_ports["proxy"])}
        figures["PROMETHEUS_MULTIPROC_DIR"] = str(folder / "metrics")
        assert figures.keys() == set_by("proxy").keys() - environ.keys()
        process = opened.enter_context(started(command, folder / "proxy.log", environ | figures))
        proxy = Proxy(url, folder / "proxy.log", process)
        wait_until_ready(proxy)
        made = Stack(proxy, realm, ollama, cache, folder, environ, metrics_ports)
        upload(made)
        yield made


def upload(made: Stack) -> None:
    with made.http("admin") as admin:
        for name, file in DOCUMENTS.items():
            assert admin.post("/v1/collections/new", json={"name": name}).status_code == 201
            content = (ROOT / "examples" / "documents" / file).read_bytes()
            added = admin.post(f"/v1/collections/{name}/add", files={"files": (file, content)})
            assert added.status_code == 202, added.text

        def ready() -> bool:
            lists = [admin.get(f"/v1/collections/{name}/documents").json()["data"] for name in DOCUMENTS]
            states = [document["status"] for found in lists for document in found]
            assert "failed" not in states, (made.folder / "worker.log").read_text(encoding="utf-8")
            return states == ["completed"] * len(DOCUMENTS)

        until(ready, "the documents are searchable", 180)


def test_the_healthcheck_of_the_proxy_is_content(running: Stack) -> None:
    answer = httpx.get(f"{running.proxy.url}/health/collections", timeout=30, trust_env=False)
    assert answer.status_code == 200
    assert set(answer.json().values()) == {"ok"}


def test_people_of_the_realm_see_both_collections_and_query_one(running: Stack) -> None:
    with running.http("bob") as bob:
        listed = {one["name"]: one["permissions"] for one in bob.get("/v1/collections").json()["data"]}
        assert listed == {"finance": ["discover"], "handbook": ["discover", "query"]}
        assert bob.post("/v1/collections/finance/search", json={"query": "revenue"}).status_code == 403


def test_a_model_of_ollama_answers_with_a_citation(running: Stack) -> None:
    body = {"model": "chat", "messages": [{"role": "user", "content": QUESTION}]}
    with running.http("bob") as bob:
        answer = bob.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200, answer.text
    message = answer.json()["choices"][0]["message"]
    assert answer.json()["model"] != "extractive"
    if running.ollama.tiny:
        assert message["content"] == "".join(CITED)
        assert message["annotations"][0]["url_citation"]["url"].startswith(running.proxy.url)


def test_limits_are_counted_in_redis(running: Stack) -> None:
    with running.http("carol") as carol:
        body = {"model": "extractive", "messages": [{"role": "user", "content": QUESTION}]}
        assert carol.post("/v1/chat/completions", json=body).status_code == 200
    keys = subprocess.run(
        ["redis-cli", "-p", str(running.redis["port"]), "keys", "*"],
        env={"PATH": os.environ["PATH"], "REDISCLI_AUTH": running.redis["password"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "keycloak/carol" in keys.stdout


def test_prometheus_reads_the_figures_at_ports_of_their_own_without_a_key(running: Stack) -> None:
    with httpx.Client(base_url=running.proxy.url, timeout=60, trust_env=False) as client:
        figures = client.get(f"http://127.0.0.1:{running.metrics_ports['proxy']}/metrics/")
        assert figures.status_code == 200, figures.text
        assert 'collections_sign_ins_total{result="ok",source="keycloak"}' in figures.text
        assert 'collections_queue_documents{stage="' in figures.text
        assert "litellm_proxy_total_requests" in figures.text
        assert client.get("/metrics/").status_code == 401
        with running.http("bob") as bob:
            assert bob.get("/metrics/").status_code in (401, 403)
        worker = client.get(f"http://127.0.0.1:{running.metrics_ports['worker']}/metrics")
    assert 'collections_documents_total{result="completed"} 2.0' in worker.text


def test_each_panel_of_the_dashboard_has_data_and_each_alert_can_be_evaluated(
    running: Stack, tmp_path: Path
) -> None:
    dashboard = json.loads((DEPLOY / "monitoring/grafana/dashboard.json").read_text(encoding="utf-8"))
    panels = {
        panel["title"]: [target["expr"].replace("$__rate_interval", "1m") for target in panel["targets"]]
        for panel in dashboard["panels"]
        if panel["type"] != "row"
    }
    with prometheus(tmp_path / "prometheus", running.metrics_ports) as client:

        def results(expression: str) -> list[Any]:
            answer = client.get("/api/v1/query", params={"query": expression}).json()
            assert answer["status"] == "success", (expression, answer)
            return list(answer["data"]["result"])

        def empty() -> set[str]:
            use(running)
            return {title for title, queries in panels.items() if not any([*map(results, queries)])}

        left: set[str] = set()

        def shown() -> bool:
            left.clear()
            left.update(empty() - QUIET)
            return not left

        with suppress(AssertionError):
            until(shown, "the panels have data", 120)
        assert left == set(), "panels without data"
        [group] = client.get("/api/v1/rules").json()["data"]["groups"]
        assert {(rule["name"], rule["health"]) for rule in group["rules"] if rule["health"] != "ok"} == set()
        assert {rule["name"] for rule in group["rules"] if rule["state"] == "firing"} == set()


def use(running: Stack) -> None:
    """What moves the figures: questions, a search, a refusal, an upload, and a token that is none."""
    body = {"model": "extractive", "messages": [{"role": "user", "content": QUESTION}]}
    with running.http("bob") as bob, running.http("admin") as admin:
        assert bob.post("/v1/chat/completions", json=body).status_code == 200
        assert bob.post("/v1/collections/handbook/search", json={"query": "notice"}).status_code == 200
        assert bob.post("/v1/collections/finance/search", json={"query": "revenue"}).status_code == 403
        note = {"documents": [{"text": "The lift is repaired."}]}
        assert admin.post("/v1/collections/finance/add?wait=true", json=note).status_code == 200
        headers = {"Authorization": "Bearer nobody"}
        assert httpx.get(f"{running.proxy.url}/v1/collections", headers=headers).status_code == 401


def test_the_doctor_finds_nothing_wrong(running: Stack) -> None:
    done = running.run("-m", "plugins", "doctor", "--no-models", "--json")
    findings = json.loads(done.stdout)["findings"]
    assert not [finding for finding in findings if finding["level"] == "fail"]
    assert {finding["part"] for finding in findings} >= {"identity keycloak", "vector store", "redis"}


async def test_people_sign_in_to_open_webui_at_keycloak_and_ask(
    running: Stack, artefacts: Path, tmp_path: Path
) -> None:
    with ExitStack() as opened:
        try:
            web = opened.enter_context(
                open_webui_server(tmp_path / "web", running.realm.url, running.proxy.url, [Connection(TASKS)])
            )
        except CannotRun as error:
            pytest.skip(str(error))
        running.realm.change_client("open-webui", redirectUris=[f"{web.url}/*"])
        async with person("bob", web.url, tmp_path, artefacts) as bob:
            await bob.choose("chat")
            await bob.ask(QUESTION)
            await bob.page.until("!!document.querySelector('[id^=speak-button]')")
            await bob.screenshot("stack")
            if running.ollama.tiny:
                await bob.shows("1 Source")
                assert "".join(CITED)[:20] in await bob.text()
