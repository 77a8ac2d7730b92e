"""A real Milvus server with authorization on: one of our own, or the one that `MILVUS_URI` names.

Our own is `milvus==2.3.5` from PyPI, installed once into an environment of its own under the cache folder,
with a fresh data directory each time.
"""

from __future__ import annotations

import os
import secrets
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr
from pymilvus import MilvusClient, MilvusException  # type: ignore[import-untyped]

from crawler.stores.milvus import MilvusSettings

PACKAGE = "milvus==2.3.5"
START_S = 120.0
STOP_S = 20.0


class CannotRun(Exception):
    """This machine has no Milvus server for the tests, and why."""


@dataclass
class Server:
    """A running server, and what tests made there: it is removed at the end."""

    uri: str
    user: str
    password: str
    prefix: str
    """What the names of all that tests make begin with."""
    process: subprocess.Popen[str] | None = None
    users: list[str] = field(default_factory=list)
    roles: dict[str, list[tuple[str, str, str]]] = field(default_factory=dict)

    @property
    def settings(self) -> MilvusSettings:
        return MilvusSettings(uri=self.uri, user=self.user, password=SecretStr(self.password), timeout_s=20.0)

    def client(self) -> MilvusClient:
        return MilvusClient(self.uri, user=self.user, password=self.password)

    def person(self, name: str, *grants: tuple[str, str, str]) -> str:
        """A new user with a role of these grants (object type, object, privilege); their credential."""
        user, password = f"{self.prefix}{name}", secrets.token_hex(8)
        client = self.client()
        client.create_user(user, password)
        self.users.append(user)
        if grants:
            self.roles[f"{user}_role"] = []
            client.create_role(f"{user}_role")
            client.grant_role(user, f"{user}_role")
            self.grant(name, *grants)
        return f"{user}:{password}"

    def grant(self, name: str, *grants: tuple[str, str, str]) -> None:
        role = f"{self.prefix}{name}_role"
        for kind, thing, privilege in grants:
            self.client().grant_privilege(role, kind, privilege, thing)
            self.roles[role].append((kind, thing, privilege))

    def revoke(self, name: str, *grants: tuple[str, str, str]) -> None:
        role = f"{self.prefix}{name}_role"
        for kind, thing, privilege in grants:
            self.client().revoke_privilege(role, kind, privilege, thing)
            self.roles[role].remove((kind, thing, privilege))

    def clean(self) -> None:
        """Remove what tests made."""
        client = self.client()
        for role, grants in self.roles.items():
            for kind, thing, privilege in grants:
                with suppress(MilvusException):
                    client.revoke_privilege(role, kind, privilege, thing)
            with suppress(MilvusException):
                client.drop_role(role)
        for user in self.users:
            with suppress(MilvusException):
                client.drop_user(user)
        for name in client.list_collections():
            if name.startswith(self.prefix):
                client.drop_collection(name)
        self.roles.clear()
        self.users.clear()


@contextmanager
def server() -> Iterator[Server]:
    """The server of `MILVUS_URI` (with `MILVUS_USER` and `MILVUS_PASSWORD`), or one of our own.

    Raises:
        CannotRun: There is none, and this machine cannot run one.
    """
    prefix = f"t{secrets.token_hex(4)}_"
    uri = os.environ.get("MILVUS_URI")
    if uri:
        user, password = os.environ.get("MILVUS_USER", "root"), os.environ.get("MILVUS_PASSWORD", "Milvus")
        running = Server(uri, user, password, prefix)
        try:
            yield running
        finally:
            running.clean()
        return
    with tempfile.TemporaryDirectory(prefix="milvus-") as data, started(Path(data)) as (process, port):
        yield Server(f"http://127.0.0.1:{port}", "root", "Milvus", prefix, process)


@contextmanager
def started(data: Path, port: int = 0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server of our own, and the port of loopback that it is reached by (0 = a free one)."""
    program = Path(__file__).with_name("milvus_server.py")
    command = [str(environment()), "-I", str(program), str(data), str(port)]
    log = data / "launcher.log"
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        ready, _, _ = select.select([process.stdout], [], [], START_S)
        line = process.stdout.readline().strip() if ready else ""
        if not line.isdigit():
            raise CannotRun(f"the Milvus server did not start: {log.read_text(encoding='utf-8')[-300:]}")
        yield process, int(line)
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def environment() -> Path:
    """The Python that has the server's package; made at first use.

    Raises:
        CannotRun: It cannot be installed here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "litellm-collections" / PACKAGE.replace("==", "-")
    python = folder / "bin" / "python"
    if not (folder / "installed").exists():
        install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", PACKAGE]
        for command in ([sys.executable, "-m", "venv", str(folder)], [str(python), *install]):
            done = subprocess.run(command, capture_output=True, text=True, timeout=600)
            if done.returncode:
                raise CannotRun(f"{PACKAGE} cannot be installed: {done.stderr[-300:]}")
        (folder / "installed").touch()
    return python


@pytest.fixture(scope="session")
def milvus() -> Iterator[Server]:
    """The server; tests are skipped with the reason where there is none."""
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server())
        except CannotRun as error:
            pytest.skip(str(error))
        yield running
