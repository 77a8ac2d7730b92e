"""All of it together: Postgres, Redis, Milvus and Keycloak, two proxies and two workers, and the load."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from deploy.keycloak.keycloak import Unavailable
from tests.crash.postgres import postgres
from tests.faults.load import LIMIT_S, Load
from tests.faults.services import KeycloakService, MilvusService, PostgresService, RedisService, Service
from tests.live.cluster import PROMPTS, Cluster, Worker, configuration
from tests.live.milvus import CannotRun
from tests.live.milvus import Server as MilvusServer
from tests.support.proxy import Proxy, write
from tests.support.upstream import upstream


@dataclass
class House:
    running: Cluster
    services: dict[str, Service]
    keycloak: KeycloakService
    load: Load

    @property
    def _all(self) -> list[Proxy | Worker]:
        return [*self.running.proxies, *self.running.workers]

    def pids(self) -> list[int]:
        """Of what must go on."""
        return [one.process.pid for one in self._all]

    def alive(self) -> list[bool]:
        return [one.process.poll() is None for one in self._all]

    def caught_up(self) -> bool:
        """Whether all uploads that were acknowledged are processed."""
        done = self.running.rows("SELECT id FROM documents WHERE status = 'completed'")
        return set(self.load.acknowledged) <= {row[0] for row in done}

    def logs(self) -> str:
        return "\n".join(one.log for one in self._all)


def build(folder: Path, stack: ExitStack) -> House:
    running = stack.enter_context(postgres())
    for name in ("redis", "milvus"):
        (folder / name).mkdir()
    redis = RedisService(folder / "redis", stack)
    try:
        milvus = MilvusService(folder / "milvus", stack)
        keycloak = KeycloakService(folder / "keycloak.log", stack)
    except (CannotRun, Unavailable) as error:
        pytest.skip(str(error))
    model = stack.enter_context(upstream())
    address = MilvusServer(f"http://127.0.0.1:{milvus.port}", "root", "Milvus", "", milvus.process)
    store = {"use": "milvus", "uri": address.uri, "user": address.user, "password": address.password}
    config = configuration(folder, {"store": store, "database": running.url})
    issuer = {"use": "oidc", "name": "keycloak", "issuer": keycloak.realm.url, "audience": "litellm"}
    config["identity"]["identity"]["sources"].insert(0, issuer)
    counted = {"subjects": ["*"], "rpm_limit": 100_000, "max_parallel_requests": 1_000}
    config["identity"]["identity"]["allowances"] = [counted]
    rights = {right: ["*"] for right in ("discover", "query", "add", "manage")}
    config["collections"]["collections"] = {
        "policy": [{"names": "*", **rights}],
        "create": [{"subjects": ["*"]}],
    }
    write(folder, {}, config)
    shutil.copytree(PROMPTS, folder / "config" / "prompts")
    cluster = Cluster(folder, running, redis.running, address, model, stack, 1)
    for _ in range(2):
        cluster.start_worker()
    cluster.proxies.extend(cluster.start_proxy() for _ in range(2))
    known = keycloak.token()
    with httpx.Client(
        base_url=cluster.proxies[0].url,
        headers={"Authorization": f"Bearer {known}"},
        timeout=LIMIT_S,
        trust_env=False,
    ) as client:
        for name in ("handbook", "uploads"):
            made = client.post("/v1/collections/new", json={"name": name})
            assert made.status_code == 201, made.text
        text = {"markdown": "The notice period is ninety days.", "filename": "n.md"}
        added = client.post("/v1/collections/handbook/add", json={"documents": [text]})
        assert added.status_code == 202, added.text
    services: dict[str, Service] = {
        "redis": redis,
        "postgres": PostgresService(running),
        "milvus": milvus,
        "keycloak": keycloak,
    }
    load = Load([one.url for one in cluster.proxies], known)
    stack.callback(load.stop)
    return House(cluster, services, keycloak, load)
