"""The stock LiteLLM proxy as a process, for tests that go the whole way."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import httpx
import yaml

from tests.support.preloaded import Preloaded, is_read_by_imports

ROOT = Path(__file__).parents[2]
STARTUP = ROOT / "tests" / "support" / "startup"
"""On the path of Python, makes programs start sooner."""
MASTER_KEY = "sk-master-key-of-the-tests-0123456789"
START_S = 120.0
STOP_S = 20.0


class Process(Protocol):
    """What is needed of `subprocess.Popen`."""

    @property
    def pid(self) -> int: ...

    def poll(self) -> int | None: ...

    def wait(self, timeout: float) -> int: ...

    def send_signal(self, sig: int) -> None: ...


@dataclass(frozen=True)
class Proxy:
    url: str
    log_file: Path
    process: Process

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")


@contextmanager
def proxy(
    folder: Path,
    litellm_config: Mapping[str, Any],
    config: Mapping[str, Mapping[str, Any]] | Path,
    environment: Mapping[str, str] | None = None,
    port: int | None = None,
    start_s: float = START_S,
) -> Iterator[Proxy]:
    """Start `litellm` on loopback, wait until it is ready, and end it in any case.

    ``folder`` takes the configuration, the data and the log. ``config`` is the configuration folder, or
    what its files hold by their names without `.yaml`. Of this process's environment only what a program
    needs to run is passed on. ``port`` is a free one by default; ``start_s`` is how long it may take.

    Raises:
        AssertionError: It ended or was not ready in time; with the end of its log.
    """
    path, log_file = write(folder, litellm_config, config), folder / "proxy.log"
    port = port or free_port()
    binary = Path(sys.executable).parent / "litellm"
    options = ["--config", str(folder / "litellm_config.yaml"), "--host", "127.0.0.1", "--port", str(port)]
    process = start([str(binary), *options], folder, path, environment or {}, log_file)
    running = Proxy(f"http://127.0.0.1:{port}", log_file, process)
    try:
        wait_until_ready(running, start_s)
        yield running
    finally:
        end(process)


def start(
    command: Sequence[str], folder: Path, config: Path, environment: Mapping[str, str], log_file: Path
) -> Process:
    """LiteLLM's script, or, among many tests, a fork of a process that has its imports."""
    everything = variables(folder, config) | dict(environment)
    log_file.write_bytes(b"")
    if "PYTEST_XDIST_WORKER" in os.environ and not any(map(is_read_by_imports, environment)):
        return preloaded().start(command, folder, everything, log_file)
    with log_file.open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=everything,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@cache
def preloaded() -> Preloaded:
    """One for this process."""
    everything = variables(Path("/"), Path("/"))
    names = ("PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "LITELLM_LOCAL_MODEL_COST_MAP")
    return Preloaded({name: everything[name] for name in names} | {"TMPDIR": tempfile.gettempdir()})


def write(
    folder: Path, litellm_config: Mapping[str, Any], config: Mapping[str, Mapping[str, Any]] | Path
) -> Path:
    """Write the configuration; answers the folder of ours."""
    (folder / "litellm_config.yaml").write_text(yaml.safe_dump(dict(litellm_config)), encoding="utf-8")
    if isinstance(config, Path):
        return config
    path = folder / "config"
    path.mkdir(exist_ok=True)
    for name, content in config.items():
        (path / f"{name}.yaml").write_text(yaml.safe_dump(dict(content)), encoding="utf-8")
    return path


def variables(folder: Path, config: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{STARTUP}",
        "COLLECTIONS_CONFIG": str(config),
        "DATA_DIR": str(folder / "data"),
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "PYTHONUNBUFFERED": "1",
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until_ready(running: Proxy, start_s: float = START_S) -> None:
    deadline = time.monotonic() + start_s
    while time.monotonic() < deadline:
        status = running.process.poll()
        assert status is None, f"the proxy ended with status {status}:\n{running.log[-4000:]}"
        try:
            if httpx.get(f"{running.url}/health/readiness", timeout=5, trust_env=False).is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"the proxy was not ready in {start_s:.0f} s:\n{running.log[-4000:]}")


def end(process: Process) -> None:
    """End the process and its group, politely first."""
    for kind in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, kind)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue
