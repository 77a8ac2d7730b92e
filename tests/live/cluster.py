"""Several proxies and workers on one Postgres, Redis and Milvus, behind a real load balancer (HAProxy)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.crash.postgres import Postgres, postgres
from tests.live.milvus import CannotRun, Server, server
from tests.live.test_redis import Redis, redis_server
from tests.support.limits import is_listening, until
from tests.support.proxy import MASTER_KEY, ROOT, START_S, STOP_S, Proxy, free_port, proxy, variables, write
from tests.support.upstream import Upstream, upstream

DRAIN_S = float(os.environ.get("DRAIN_S", "3"))
CHECK_MS = 250
"""How often the load balancer asks whether a proxy is ready; two refusals take it out."""
PEOPLE = ("alice", "bob", "cem")
CEMS_RPM = 6
PROMPTS = ROOT / "config" / "prompts"
BALANCER = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 120s
    timeout server 120s
    timeout check 5s
    retries 0
frontend all
    bind 127.0.0.1:{port}
    default_backend proxies
backend proxies
    balance roundrobin
    option httpchk GET /health/readiness
    http-check expect status 200
    default-server check inter {check}ms fall 2 rise 1
"""
STOCK: dict[str, Any] = {
    "model_list": [
        {
            "model_name": "local/minilm",
            "litellm_params": {
                "model": "local/minilm",
                "additional_drop_params": ["encoding_format", "user"],
            },
            "model_info": {"mode": "embedding"},
        }
    ],
    "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
    "general_settings": {
        "master_key": MASTER_KEY,
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}


def key(person: str) -> str:
    return f"sk-of-{person}-0123456789abcdef"


def processes(count: int) -> dict[str, str]:
    """LiteLLM's options for so many: one that is slow to start is killed after 5 s unless told otherwise."""
    return {"NUM_WORKERS": str(count), "TIMEOUT_WORKER_HEALTHCHECK": "60"}


def bearer(person: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key(person)}"}


@dataclass
class Worker:
    """`python -m plugins.worker` of its own."""

    log_file: Path
    process: subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@dataclass
class Cluster:
    """What runs, and how to start more of it; all of it ends with the stack."""

    folder: Path
    postgres: Postgres
    redis: Redis
    milvus: Server
    model: Upstream
    stack: ExitStack
    processes: int
    """Of each proxy (`--num_workers`)."""
    proxies: list[Proxy] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)
    url: str = ""
    """Of the load balancer."""

    @property
    def environment(self) -> dict[str, str]:
        return {
            "DATA_DIR": str(self.folder / "data"),
            "LITELLM_LOG": "INFO",
            **processes(self.processes),
        }

    def start_proxy(self, port: int | None = None) -> Proxy:
        folder = self.folder / f"proxy-{len(list(self.folder.glob('proxy-*')))}"
        folder.mkdir()
        config = self.folder / "config"
        return self.stack.enter_context(
            proxy(
                folder,
                litellm(self.redis, self.model),
                config,
                self.environment,
                port,
                self.processes * START_S,
            )
        )

    def start_worker(self) -> Worker:
        """One that takes jobs; ended in any case."""
        log_file = self.folder / f"worker-{len(self.workers)}.log"
        with log_file.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "plugins.worker"],
                cwd=self.folder,
                env=variables(self.folder, self.folder / "config") | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.stack.callback(process.wait, STOP_S)
        self.stack.callback(process.kill)
        self.workers.append(Worker(log_file, process))
        return self.workers[-1]

    def restart(self, number: int) -> int:
        """SIGTERM to a proxy, and another one on its port once it has ended; its exit status."""
        old = self.proxies[number]
        old.process.send_signal(signal.SIGTERM)
        status = old.process.wait(120)
        self.proxies[number] = self.start_proxy(int(old.url.rsplit(":", 1)[1]))
        return status

    def client(self, person: str, url: str | None = None) -> httpx.Client:
        made = httpx.Client(base_url=url or self.url, headers=bearer(person), timeout=60, trust_env=False)
        return self.stack.enter_context(made)

    def rows(self, query: str) -> list[list[str]]:
        """What Postgres answers."""
        done = subprocess.run(
            ["psql", "-qAt", "-F", "\t", "-d", self.postgres.url, "-c", query],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        return [line.split("\t") for line in done.stdout.splitlines()]

    def balance(self) -> None:
        """Start the load balancer in front of the proxies."""
        binary = shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if binary is None:
            pytest.skip("haproxy is not installed (Debian's package `haproxy`)")
        port, path = free_port(), self.folder / "haproxy.cfg"
        servers = "".join(
            f"    server proxy{number} {running.url.removeprefix('http://')}\n"
            for number, running in enumerate(self.proxies)
        )
        path.write_text(BALANCER.format(port=port, check=CHECK_MS) + servers, encoding="utf-8")
        log = self.stack.enter_context((self.folder / "haproxy.log").open("wb"))
        process = subprocess.Popen(
            [binary, "-db", "-f", str(path)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        self.stack.callback(process.wait, STOP_S)
        self.stack.callback(process.kill)
        self.url = f"http://127.0.0.1:{port}"
        until(lambda: is_listening(port))


def litellm(redis: Redis, model: Upstream) -> dict[str, Any]:
    """LiteLLM's YAML: one language model with documents, limits counted in Redis."""
    served = {"model": "openai/standin", "api_base": model.url, "api_key": "sk-upstream", "num_retries": 0}
    models = [
        {"model_name": "chat", "litellm_params": served, "model_info": {"rag": True}},
        {"model_name": "plain", "litellm_params": {**served, "mock_response": "hi"}},
    ]
    shared = {"coordination_redis": {"host": "127.0.0.1", "port": redis.port}}
    return {
        **STOCK,
        "model_list": [*STOCK["model_list"], *models],
        "general_settings": STOCK["general_settings"] | shared,
    }


def configuration(folder: Path, storage: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Our YAML: alice does everything, bob queries, cem may ask a few times a minute."""
    everything = {right: ["user:local/alice"] for right in ("discover", "add", "manage")}
    return {
        "identity": {
            "identity": {
                "sources": [
                    {
                        "use": "api_keys",
                        "name": "local",
                        "keys": [{"key": key(name), "user": name} for name in PEOPLE],
                    },
                    {"use": "litellm"},
                ],
                "allowances": [{"subjects": ["user:local/cem"], "rpm_limit": CEMS_RPM}],
            }
        },
        "collections": {
            "collections": {
                "policy": [{"names": "*", "query": ["*"], **everything}],
                "create": [{"subjects": ["user:local/alice"]}],
            }
        },
        "storage": {"storage": {"data_dir": str(folder / "data"), **storage}},
        "tools": {"tools": [{"use": "search_documents", "allow": ["*"]}]},
        "worker": {"worker": {"embedded": False}},
        "shutdown": {"shutdown": {"drain_s": DRAIN_S}},
    }


@contextmanager
def cluster(folder: Path, *, proxies: int, processes: int = 1, workers: int) -> Iterator[Cluster]:
    """All of it; skips where the machine lacks a part. The proxies start one after another."""
    with ExitStack() as stack:
        running = stack.enter_context(postgres())
        redis_folder = folder / "redis"
        redis_folder.mkdir()
        redis = stack.enter_context(redis_server(redis_folder))
        try:
            milvus = stack.enter_context(server())
        except CannotRun as error:
            pytest.skip(str(error))
        model = stack.enter_context(upstream())
        store = {"use": "milvus", "uri": milvus.uri, "user": milvus.user, "password": milvus.password}
        config = configuration(folder, {"store": store, "database": running.url})
        write(folder, {}, config)
        shutil.copytree(PROMPTS, folder / "config" / "prompts")
        made = Cluster(folder, running, redis, milvus, model, stack, processes)
        for _ in range(workers):
            made.start_worker()
        made.proxies.extend(made.start_proxy() for _ in range(proxies))
        made.balance()
        yield made


def collection(client: httpx.Client, name: str) -> str:
    """A new one; its id."""
    created = client.post("/v1/collections/new", json={"name": name})
    assert created.status_code == 201, created.text
    return str(created.json()["id"])


def add(client: httpx.Client, name: str, documents: Sequence[Mapping[str, str]], wait: bool = False) -> None:
    """Markdown documents; with ``wait`` searchable."""
    answer = client.post(
        f"/v1/collections/{name}/add", params={"wait": wait}, json={"documents": list(documents)}
    )
    assert answer.status_code == (200 if wait else 202), answer.text
