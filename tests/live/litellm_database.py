"""A real Postgres with LiteLLM's schema, and Prisma's query engine, for a proxy with LiteLLM's own keys."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.limits import is_listening, until
from tests.support.proxy import ROOT, STOP_S, free_port

ENGINE = Path(__file__).parent / "prisma_engine"
NEEDED = {
    "node": "nodejs",
    "npm": "npm",
    "initdb": "postgresql",
    "postgres": "postgresql",
    "psql": "postgresql-client",
}
STEP_S = 180.0
"""Of npm, of the migrations, of each other step."""


@dataclass(frozen=True)
class Database:
    url: str
    environment: Mapping[str, str]
    """What a proxy needs to use it."""

    def rows(self, query: str) -> list[list[str]]:
        """The answer of psql, without a header."""
        answer = run(["psql", "-qAt", "-F", "\t", "-d", self.url, "-c", query])
        return [line.split("\t") for line in answer.splitlines()]


@contextmanager
def litellm_database(folder: Path) -> Iterator[Database]:
    """Make and start all of it in ``folder``; skips where something is missing on this machine."""
    path = f"{os.environ.get('PATH', '')}:{postgres_folder()}"
    if missing := [name for name in NEEDED if shutil.which(name, path=path) is None]:
        packages = sorted({NEEDED[name] for name in missing})
        pytest.skip(f"{', '.join(missing)} not found (packages {', '.join(packages)})")
    tools, client = folder / "engine", folder / "client"
    shutil.copytree(ENGINE, tools)
    engine = tools / "query-engine"
    engine.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && echo query-engine && exit\nexec node "{tools}/engine.js" "$@"\n',
        encoding="utf-8",
    )
    engine.chmod(0o755)
    try:
        run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=tools)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"npm cannot install Prisma's engine: {error.stderr[-200:]}")
    generate(tools, client, engine)
    with postgres(path) as url:
        migrate(url)
        yield Database(url, variables(url, engine, client))


def generate(tools: Path, client: Path, engine: Path) -> None:
    """Prisma's Python client for LiteLLM's schema, beside a copy of the package: the installed one stays."""
    shutil.copytree(folder_of("prisma"), client / "prisma", ignore=shutil.ignore_patterns("__pycache__"))
    schema = client / "schema.prisma"
    lines = (folder_of("litellm") / "proxy" / "schema.prisma").read_text(encoding="utf-8").splitlines()
    schema.write_text("\n".join(line for line in lines if "binaryTargets" not in line), encoding="utf-8")
    engines = ("PRISMA_QUERY_ENGINE_BINARY", "PRISMA_QUERY_ENGINE_LIBRARY", "PRISMA_SCHEMA_ENGINE_BINARY")
    run(
        ["node", str(tools / "node_modules/prisma/build/index.js"), "generate", "--schema", str(schema)],
        cwd=client,
        PYTHONPATH=str(client),
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        **dict.fromkeys(engines, str(engine)),  # none is run for this; given, none is downloaded
    )


@contextmanager
def postgres(path: str) -> Iterator[str]:
    """A server on a free port of loopback; its URL."""
    # not in pytest's folder, which is closed to others: Postgres refuses to run as root
    user = "nobody" if os.geteuid() == 0 else None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="litellm-database-")))
        if user:
            shutil.chown(folder, user)
        data, port = folder / "data", free_port()
        run(["initdb", "-D", str(data), "-A", "trust", "-U", "litellm"], cwd=folder, user=user, PATH=path)
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off"}
        settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        server = subprocess.Popen(
            ["postgres", "-D", str(data), "-p", str(port), *settings],
            cwd=folder,
            env=os.environ | {"PATH": path},
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=stack.enter_context((folder / "log").open("wb")),
            stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: is_listening(port))
            yield f"postgresql://litellm@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # its fast shutdown: does not wait for clients
            server.wait(STOP_S)


def migrate(url: str) -> None:
    """LiteLLM's own migrations, in their order; its command for it needs an engine that no registry has."""
    files = sorted((folder_of("litellm_proxy_extras") / "migrations").glob("*/migration.sql"))
    assert files
    run(
        ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-d", url, *(f"--file={file}" for file in files)],
        PGOPTIONS="-c client_min_messages=error",
    )


def variables(url: str, engine: Path, client: Path) -> dict[str, str]:
    return {
        "DATABASE_URL": url,
        "PRISMA_QUERY_ENGINE_BINARY": str(engine),
        "PYTHONPATH": f"{client}:{ROOT}",
        "DISABLE_SCHEMA_UPDATE": "true",
        # the command line of Prisma, which compares schemas at start, needs the other engine
        "LITELLM_PRISMA_BOOTSTRAP_TIMEOUT": "1",
        "LITELLM_PRISMA_COMMAND_TIMEOUT": "1",
        "PROXY_BATCH_WRITE_AT": "1",
    }


def run(command: list[str], cwd: Path | None = None, user: str | None = None, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | environment,
        user=user,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=STEP_S,
        check=False,
    )
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr[-2000:])
    return done.stdout


def postgres_folder() -> str:
    """Where Debian puts what it keeps off the PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return str(found[-1]) if found else ""


def folder_of(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent
