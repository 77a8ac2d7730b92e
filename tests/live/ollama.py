"""A real Ollama: the one that `OLLAMA_BASE_URL` names, or one of our own with a tiny model.

Our own is built by Go once, from the sources of a pinned version, and kept under the cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.tiny_ollama import embedder
from tests.live.tiny_ollama import model as tiny
from tests.live.tiny_ollama.model import READ_MARKER, TOOLLESS
from tests.support.proxy import end, free_port

VERSION = "0.6.5"
"""`go install` builds it with a C++ compiler alone: later modules lack a part of their sources."""
MODULE = f"github.com/ollama/ollama@v{VERSION}"
MODEL, WITHOUT_TOOLS, EMBEDDER = "tiny", "tiny-without-tools", "tiny-embed"
BUILD_S = 1800.0
"""At the lowest priority, beside other work."""
START_S = 60.0
MISSING = (
    "Ollama needs Go 1.24 or later (https://go.dev/dl) and a C++ compiler to be built. "
    "Or set OLLAMA_BASE_URL and OLLAMA_MODEL to a server that runs and to a model of it that calls tools."
)


class CannotRun(Exception):
    """This machine has no Ollama for the tests, and why."""


@dataclass(frozen=True)
class Ollama:
    url: str
    model: str
    tiny: bool
    """The model is ours, so what it answers is known; of another only what any model does can be told."""
    models: Path | None = None
    """Where it keeps its models, where the server is ours."""


@contextmanager
def server(folder: Path) -> Iterator[Ollama]:
    """An Ollama of our own on loopback with our models; ended in any case.

    Args:
        folder: Takes its models, its key and its log.

    Raises:
        CannotRun: This machine cannot build it, or it did not start.
    """
    binary, port = installed(), free_port()
    log_file = folder / "ollama.log"
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "OLLAMA_HOST": f"127.0.0.1:{port}",
        "OLLAMA_MODELS": str(folder / "models"),
    }
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [str(binary), "serve"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=START_S, trust_env=False) as client:
            wait_until_ready(client, process, log_file)
            create(client, MODEL, tiny.gguf(), READ_MARKER)
            create(client, WITHOUT_TOOLS, tiny.gguf(), TOOLLESS)
            create(client, EMBEDDER, embedder.gguf())
        yield Ollama(f"http://127.0.0.1:{port}", MODEL, tiny=True, models=folder / "models")
    finally:
        end(process)


def wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/api/version").json()["version"] == VERSION:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise CannotRun(f"Ollama did not start: {log_file.read_text(encoding='utf-8', errors='replace')[-500:]}")


def create(client: httpx.Client, name: str, content: bytes, template: str | None = None) -> None:
    """A model of these weights, with this template if it is one to chat with.

    https://github.com/ollama/ollama/blob/v0.6.5/docs/api.md#create-a-model
    """
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    client.post(f"/api/blobs/{digest}", content=content).raise_for_status()
    request: dict[str, Any] = {"model": name, "files": {"tiny.gguf": digest}, "stream": False}
    made = client.post("/api/create", json=request | ({"template": template} if template else {}))
    assert made.json() == {"status": "success"}, made.text


def installed() -> Path:
    """The program: built once, then kept.

    Raises:
        CannotRun: It cannot be built here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections"
    binary = cache / f"ollama-{VERSION}"
    if binary.exists():
        return binary
    if not shutil.which("go") or not shutil.which("g++"):
        raise CannotRun(MISSING)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        build(Path(folder))
        (Path(folder) / "ollama").replace(binary)
    return binary


def build(folder: Path) -> None:
    """By Go, which checks the sources against its public checksums; the program is put into the folder."""
    said = f"-s -w -X github.com/ollama/ollama/version.Version={VERSION}"
    log_file = folder / "build.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            ["nice", "-n", "19", "go", "install", "-ldflags", said, MODULE],
            env={**os.environ, "CGO_ENABLED": "1", "GOBIN": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        status = process.wait(BUILD_S)
    except subprocess.TimeoutExpired:
        raise CannotRun(f"Ollama was not built in {BUILD_S:.0f} s.") from None
    finally:
        end(process)
    if status:
        output = log_file.read_text(encoding="utf-8", errors="replace")
        raise CannotRun(f"Ollama {VERSION} cannot be built: {output[-500:]}")


@pytest.fixture(scope="session")
def ollama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ollama]:
    """OLLAMA_BASE_URL with OLLAMA_MODEL, of which nothing is changed; or else one that is started here.

    The address alone does not count: LiteLLM puts that of `.env` into the environment when it is imported.
    Where there is no Ollama, the tests are skipped with the reason.
    """
    url, model = os.environ.get("OLLAMA_BASE_URL"), os.environ.get("OLLAMA_MODEL")
    if url and model:
        yield Ollama(url.rstrip("/"), model, tiny=False)
        return
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server(tmp_path_factory.mktemp("ollama")))
        except CannotRun as error:
            pytest.skip(str(error))
        yield running
