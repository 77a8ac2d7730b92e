"""Proxies forked from a process that has imported LiteLLM and the plugins: most of what a start costs.

That process has no Python threads and no event loop, and does nothing but wait. A fork gets a session, a
folder, an environment and a log of its own, and goes on with LiteLLM's command as its script does.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MODULES = ("litellm.proxy.proxy_cli", "litellm.proxy.proxy_server", "plugins.bundle.process")


@dataclass(frozen=True)
class Forked:
    """A running fork: what tests need of `subprocess.Popen`."""

    pid: int
    origin: Preloaded

    def poll(self) -> int | None:
        status: int | None = self.origin.ask({"pid": self.pid})
        return status

    def wait(self, timeout: float) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.02)
        return status

    def send_signal(self, sig: int) -> None:
        os.kill(self.pid, sig)


class Preloaded:
    """The process that has imported, with the variables that imports read; it ends when this one does."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(theirs.fileno())],
                cwd="/",
                env={**environment, "OPENBLAS_NUM_THREADS": "1"},  # another thread would not be in the forks
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        self._answers = self._socket.makefile("r", encoding="utf-8")
        atexit.register(self.end)

    def start(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], log: Path
    ) -> Forked:
        """Run LiteLLM's command in the folder, with its output appended to the log."""
        question = {"command": list(command), "folder": str(folder), "log": str(log)}
        return Forked(self.ask({**question, "environment": dict(environment)}), self)

    def ask(self, question: Mapping[str, Any]) -> Any:
        self._socket.sendall(f"{json.dumps(question)}\n".encode())
        answer = self._answers.readline()
        assert answer, "the process that proxies are forked from ended"
        return json.loads(answer)

    def end(self) -> None:
        self._answers.close()
        self._socket.close()
        self._process.wait(10)


def is_read_by_imports(name: str) -> bool:
    """Whether it must be set before LiteLLM is imported; `LITELLM_LOG` is read once more by a start."""
    prefixes = ("JSON_LOGS", "LITELLM_", "OTEL_", "PROMETHEUS_", "PYTHON")
    return name.startswith(prefixes) and name != "LITELLM_LOG"


def wait_for_starts(connection: socket.socket) -> dict[str, Any] | None:
    """Fork until the other end closes: nothing then; in a fork, what it was asked to start."""
    ended: dict[int, int] = {}
    with connection, connection.makefile("r", encoding="utf-8") as questions:
        for line in questions:
            question: dict[str, Any] = json.loads(line)
            if "command" in question:
                answer: int | None = os.fork()
                if answer == 0:
                    return question
            else:
                answer = status(question["pid"], ended)
            connection.sendall(f"{json.dumps(answer)}\n".encode())
    return None


def status(pid: int, ended: dict[int, int]) -> int | None:
    """As `subprocess.Popen.poll` says it; those that ended are noted."""
    if pid not in ended:
        found, how = os.waitpid(pid, os.WNOHANG)
        if found:
            ended[pid] = os.waitstatus_to_exitcode(how)
    return ended.get(pid)


def become(start: Mapping[str, Any]) -> None:
    """What was asked for, in this process."""
    os.setsid()
    os.chdir(start["folder"])
    sys.path.append(start["folder"])  # as LiteLLM does when it is imported
    os.environ.clear()
    os.environ.update(start["environment"])
    log = os.open(start["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for output in (1, 2):
        os.dup2(log, output)
    os.close(log)
    sys.argv = start["command"]


if __name__ == "__main__":
    for module in MODULES:
        importlib.import_module(module)
    gc.freeze()
    asked = wait_for_starts(socket.socket(fileno=int(sys.argv[1])))
    if asked:
        become(asked)
        from litellm import run_server

        sys.exit(run_server())
