"""Redis, Postgres, Milvus and Keycloak, each of which can be killed and started again, or fall silent."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from keycloak import KeycloakError

from deploy.keycloak.keycloak import realm, server
from tests.crash.postgres import Postgres
from tests.live import milvus
from tests.live.keycloak_realm import UNLOCKED, Realm
from tests.live.test_redis import redis_server
from tests.support.limits import until
from tests.support.proxy import STOP_S

TOKEN_S = 7200
REALM = "faults"
EVERY_S = 2.0


class Service(Protocol):
    """What the proxies and workers need."""

    def kill(self) -> None:
        """As a machine that loses power: connections are refused from now on."""

    def restart(self) -> None:
        """On the same port, with the same data; returns when it takes connections."""

    def pids(self) -> Iterable[int]:
        """Those that give no answer when they are halted: connections hang."""


def halt(service: Service) -> Callable[[], None]:
    """Let it fall silent; what is returned lets it go on."""
    halted: list[int] = []
    for pid in service.pids():  # the parent first: it can start no other
        os.kill(pid, signal.SIGSTOP)
        halted.append(pid)

    def go_on() -> None:
        for pid in halted:
            os.kill(pid, signal.SIGCONT)

    return go_on


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants, each before its children."""
    yield pid
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split():
        yield from family(int(child))


class PostgresService:
    def __init__(self, running: Postgres) -> None:
        self.running = running

    def kill(self) -> None:
        self.running.kill()

    def restart(self) -> None:
        self.running.restart()

    def pids(self) -> Iterator[int]:
        return family(self.running.pid)


@dataclass
class RedisService:
    folder: Path
    stack: ExitStack

    def __post_init__(self) -> None:
        self.running = self.stack.enter_context(redis_server(self.folder))

    def kill(self) -> None:
        self.running.process.kill()
        self.running.process.wait(STOP_S)

    def restart(self) -> None:
        self.running = self.stack.enter_context(redis_server(self.folder, self.running.port))

    def pids(self) -> list[int]:
        return [self.running.process.pid]


class MilvusService:
    """Milvus 2.3.5 with its data in a folder; what is halted is the way to it, as where a network hangs:
    the server's own clocks go on."""

    def __init__(self, data: Path, stack: ExitStack) -> None:
        self._data, self._stack = data, stack
        self.process, self.port = stack.enter_context(milvus.started(data))

    def kill(self) -> None:
        for pid in list(family(self.process.pid)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait(STOP_S)

    def restart(self) -> None:
        self.process, _ = self._stack.enter_context(milvus.started(self._data, self.port))

    def pids(self) -> list[int]:
        return [self.process.pid]


def new_key() -> str:
    """A private key as PEM."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


class NewTokens:
    """Tokens that no proxy has seen, one every so often.

    Args:
        keycloak: Gives them.
        kept: So many are had at once, for when Keycloak is gone.
    """

    def __init__(self, keycloak: KeycloakService, kept: int) -> None:
        self._keycloak = keycloak
        self._kept = [keycloak.token() for _ in range(kept)]
        self._lock = threading.Lock()
        self._next = 0.0

    def __call__(self) -> str | None:
        """None where it is too early, or Keycloak gives none."""
        with self._lock:
            if time.monotonic() < self._next:
                return None
            self._next = time.monotonic() + EVERY_S
            if self._kept:
                return self._kept.pop()
        try:
            return self._keycloak.token()
        except (AssertionError, httpx.HTTPError, KeycloakError):  # it starts, or is gone
            return None


class KeycloakService:
    """Its database is in memory: started again, it is given the same realm, people and keys."""

    def __init__(self, log: Path, stack: ExitStack) -> None:
        self._log, self._stack = log, stack
        self._keys = [new_key()]
        self.running = stack.enter_context(server(log))
        self._fill()

    @property
    def realm(self) -> Realm:
        return Realm(self.running, REALM)

    def token(self) -> str:
        """A new one of alice, signed with the newest key."""
        realm = self.realm
        try:
            return realm.tokens("alice")["access_token"]
        finally:
            realm.close()

    def new_key(self) -> None:
        """The realm's next tokens are signed with it."""
        self._keys.append(new_key())
        self.realm.add_key(100 + len(self._keys), "rsa", privateKey=self._keys[-1])

    def _fill(self) -> None:
        """At once with its keys: else its tokens would be refused for a moment."""
        made: dict[str, Any] = realm(REALM)
        people = [user | {"id": f"00000000-0000-4000-8000-{n:012}"} for n, user in enumerate(made["users"])]
        keys = [
            {
                "name": f"key-{number}",
                "providerId": "rsa",
                "config": {"priority": [str(number)], "algorithm": ["RS256"], "privateKey": [pem]},
            }
            for number, pem in enumerate(self._keys, start=101)
        ]
        made |= UNLOCKED | {"users": people, "accessTokenLifespan": TOKEN_S}
        made["components"] |= {"org.keycloak.keys.KeyProvider": keys}
        with suppress(TimeoutError):  # it goes on with it
            self.running.create_realm(made)
        until(lambda: self.realm.http.get(self.realm.url).is_success)

    def kill(self) -> None:
        assert self.running.process
        os.killpg(self.running.process.pid, signal.SIGKILL)
        self.running.process.wait(STOP_S)

    def restart(self) -> None:
        port = int(self.running.url.rsplit(":", 1)[1])
        self.running = self._stack.enter_context(server(self._log, port))
        self._fill()

    def pids(self) -> Iterator[int]:
        assert self.running.process
        return family(self.running.process.pid)
