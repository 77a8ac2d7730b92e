"""`make run` in a folder of its own: the repository's configuration and samples, the proxy, its children."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import yaml
from dotenv import dotenv_values

from tests.support.proxy import ROOT, STARTUP, Process, free_port

START_S = 120.0
STOP_S = 40.0
"""Longer than the worker's own grace when its parent is gone."""


@dataclass
class Quickstart:
    """One running `examples/quickstart.py` and what it printed."""

    folder: Path
    port: int
    log_file: Path
    process: Process
    clients: dict[str, httpx.Client] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def key(self, person: str) -> str:
        name = "LITELLM_MASTER_KEY" if person == "master" else f"DEMO_{person.upper()}_KEY"
        return dotenv_values(self.folder / ".env")[name] or ""

    def http(self, person: str) -> httpx.Client:
        """A client with the person's key; closed when the proxy ends."""
        if person not in self.clients:
            self.clients[person] = httpx.Client(
                base_url=self.url,
                headers={"Authorization": f"Bearer {self.key(person)}"},
                trust_env=False,
                timeout=60,
            )
        return self.clients[person]

    def openai(self, person: str) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=self.key(person), max_retries=0, http_client=self.http(person)
        )

    def processes(self) -> dict[int, str]:
        """The command lines, by their ids, of all processes that run with this folder's data."""
        mark = f"DATA_DIR={self.folder / 'data'}".encode()
        found = {}
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    found[int(entry.name)] = command
            except OSError:
                continue  # it ended meanwhile, or is not ours
        return found

    def child(self, command: str) -> int | None:
        """The id of the process whose command line has these words."""
        return next((pid for pid, line in self.processes().items() if command in line), None)


STORE, WORKER = "crawler.stores._lite_server", "plugins.worker --child"


def until(condition: Callable[[], Any], what: str, limit_s: float = 60.0) -> Any:
    """What the condition answers as soon as that is true."""
    deadline = time.monotonic() + limit_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {limit_s:.0f} s: {what}"
        time.sleep(0.05)
    return found


def copy(folder: Path) -> Path:
    """What `make run` needs of the repository, copied."""
    for name in ("config", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "litellm_config.yaml", folder)
    return folder


def change(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit a YAML file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(content)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def variables(folder: Path) -> dict[str, str]:
    """The environment of a person who has nothing set."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "HOME": str(folder),
        "PYTHONPATH": str(STARTUP),
        "DATA_DIR": str(folder / "data"),
        "OLLAMA_BASE_URL": "http://127.0.0.1:9",  # the discard port: nobody listens
    }


@contextmanager
def quickstart(
    folder: Path, environment: Mapping[str, str] | None = None, port: int | None = None
) -> Iterator[Quickstart]:
    """Start it in a copy of the repository, wait for its hints, and end all of it in any case.

    Raises:
        AssertionError: It ended or was not ready in time; with the end of its log.
    """
    port, log_file = port or free_port(), folder / "quickstart.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "examples/quickstart.py", "--port", str(port)],
            cwd=folder,
            env=variables(folder) | dict(environment or {}),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Quickstart(folder, port, log_file, process)
    try:
        wait_for_hints(running)
        yield running
    finally:
        for client in running.clients.values():
            client.close()
        end(running)


def wait_for_hints(running: Quickstart) -> None:
    deadline = time.monotonic() + START_S
    while "Ctrl-C ends it." not in running.log:
        status = running.process.poll()
        assert status is None, f"it ended with status {status}:\n{running.log[-4000:]}"
        assert time.monotonic() < deadline, f"not ready in {START_S:.0f} s:\n{running.log[-4000:]}"
        time.sleep(0.1)


def end(running: Quickstart) -> None:
    """End the proxy, politely first; then its children, should they outlive it."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if running.process.poll() is None:
            running.process.send_signal(kind)
            try:
                running.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                continue
    try:
        until(lambda: not running.processes(), "its processes end", STOP_S)
    finally:
        for pid in running.processes():
            os.kill(pid, signal.SIGKILL)
