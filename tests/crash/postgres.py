"""A Postgres that can be killed and started again on the same data and port."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.limits import is_listening, until
from tests.support.proxy import STOP_S, free_port

SETTINGS = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_connections": "200"}


class Postgres:
    """A server of the distribution's package; durable, as by default."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self._folder, self._binaries = folder, binaries
        self._user = "nobody" if os.geteuid() == 0 else None  # Postgres refuses to run as root
        self._port = free_port()
        if self._user:
            shutil.chown(folder, self._user)
        subprocess.run(
            [str(binaries / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "collections"],
            user=self._user,
            cwd=folder,
            check=True,
            capture_output=True,
        )
        self._process = self._start()

    @property
    def url(self) -> str:
        return f"postgresql://collections@127.0.0.1:{self._port}/postgres"

    @property
    def pid(self) -> int:
        return self._process.pid

    def _start(self) -> subprocess.Popen[bytes]:
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        settings += ["-p", str(self._port)]
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(self._binaries / "postgres"), "-D", str(self._folder / "data"), *settings],
                cwd=self._folder,
                user=self._user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until(lambda: is_listening(self._port) or process.poll() is not None)
        return process

    def kill(self) -> None:
        """Kill -9 of the server; its other processes end when they notice."""
        self._process.kill()
        self._process.wait(STOP_S)

    def restart(self) -> None:
        """Start it again as soon as what is left of the killed one lets it."""

        def started() -> bool:
            self._process = self._start()
            return self._process.poll() is None

        until(started)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGINT)  # its fast shutdown: does not wait for clients
        self._process.wait(STOP_S)


@contextmanager
def postgres() -> Iterator[Postgres]:
    """Started in a folder of its own; skips where the machine has none."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not binaries:
        pytest.skip("Postgres not found (package postgresql)")
    # not in pytest's folder, which is closed to others
    with tempfile.TemporaryDirectory(prefix="collections-postgres-", ignore_cleanup_errors=True) as name:
        server = Postgres(Path(name), binaries[-1])
        try:
            yield server
        finally:
            server.stop()
