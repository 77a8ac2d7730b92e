"""A real S3 server: the one that `S3_ENDPOINT_URL` names, or one of our own.

Our own is the Versity S3 Gateway, built by Go once, of a pinned version, and kept under the cache folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.bucket import Endpoint
from tests.support.proxy import end, free_port

VERSION = "1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}"
BUILD_S = 1800.0
"""At the lowest priority, beside other work."""
START_S = 30.0
MISSING = (
    "An S3 server needs Go 1.24 or later (https://go.dev/dl) to be built. Or set S3_ENDPOINT_URL, "
    "S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY to one that runs, where buckets may be made."
)


class CannotRun(Exception):
    """This machine has no S3 server for the tests, and why."""


class Gateway:
    """The server, over a folder; it can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._binary = installed()
        self._process: subprocess.Popen[bytes] | None = None
        self.endpoint = Endpoint(f"http://127.0.0.1:{free_port()}", "tests", secrets.token_hex(16), real=True)

    def start(self) -> None:
        """Raises CannotRun when it does not answer in time."""
        (self._folder / "buckets").mkdir(exist_ok=True)
        (self._folder / "meta").mkdir(exist_ok=True)
        address = self.endpoint.url.removeprefix("http://")
        command = [str(self._binary), "--port", address, "--quiet", "posix"]
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "HOME": str(self._folder),
            "ROOT_ACCESS_KEY": self.endpoint.access_key_id,
            "ROOT_SECRET_KEY": self.endpoint.secret_access_key,
        }
        with (self._folder / "s3.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "--sidecar", str(self._folder / "meta"), str(self._folder / "buckets")],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        host, port = address.split(":")
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((host, int(port)), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        output = (self._folder / "s3.log").read_text(encoding="utf-8", errors="replace")
        raise CannotRun(f"The S3 server did not start: {output[-500:]}")

    def kill(self) -> None:
        """As if the machine went away."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        if self._process is not None:
            end(self._process)


@contextmanager
def gateway(folder: Path) -> Iterator[Gateway]:
    """One that runs, ended in any case.

    Raises:
        CannotRun: This machine cannot build it, or it did not start.
    """
    made = Gateway(folder)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def installed() -> Path:
    """The program: built once, then kept.

    Raises:
        CannotRun: It cannot be built here.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "litellm-collections"
    binary = cache / f"versitygw-{VERSION}"
    if binary.exists():
        return binary
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin")
    if go is None:
        raise CannotRun(MISSING)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        done = subprocess.run(
            ["nice", "-n", "19", go, "install", MODULE],
            env={**os.environ, "CGO_ENABLED": "0", "GOBIN": folder},
            capture_output=True,
            text=True,
            timeout=BUILD_S,
        )
        if done.returncode:
            raise CannotRun(f"The S3 server {VERSION} cannot be built: {done.stderr[-500:]}")
        (Path(folder) / "versitygw").replace(binary)
    return binary
