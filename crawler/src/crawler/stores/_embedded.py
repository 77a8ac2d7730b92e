"""The embedded store's process: who starts it, where its socket is, and that it comes back.

One process serves milvus-lite for all others on this machine. Whoever holds the lock in the store's
directory starts it and starts it again when it dies; the others connect, and take over when the
holder is gone. Nothing here may await: LiteLLM imports us inside its running loop.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket as sockets
import stat
import sys
import tempfile
import time
from pathlib import Path

from crawler.errors import ConfigError
from crawler.supervisor import Supervisor

# sun_path is 108 bytes on Linux and 104 on macOS, with the closing NUL.
MAX_SOCKET_BYTES = 103
# HTTP/2's connection preface (RFC 9113, 3.4) and an empty SETTINGS frame: a gRPC server answers with its own.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


def private_directory(path: Path) -> Path:
    """``path`` as a directory that only we may enter (mode 0700), made when it is missing.

    Raises:
        ConfigError: It belongs to another user, or others may enter it, or it cannot be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError([f"{path}: the store's directory cannot be made ({error.strerror})"]) from error
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise ConfigError([f"{path}: must be a directory that belongs to the user who runs this"])
    if found.st_mode & 0o077:
        raise ConfigError([f"{path}: others can enter it; run `chmod 700` on it"])
    return path


def socket_path(directory: Path) -> Path:
    """Where the store in ``directory`` listens: inside it, or where that path is too long for a socket
    (or has characters that gRPC's ``unix:`` addresses do not take), in a directory of ours under the
    system's temporary one.

    Raises:
        ConfigError: That directory is not ours alone, or its path is too long as well.
    """
    path = directory.absolute() / "milvus.sock"
    if _usable(path):
        return path
    name = hashlib.sha256(os.fsencode(directory.resolve())).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"litellm-collections-{os.geteuid()}"
    path = folder / f"{name}.sock"
    if not _usable(path):
        raise ConfigError([f"{path}: too long for a socket; set TMPDIR to a short path"])
    private_directory(folder)
    return path


def _usable(path: Path) -> bool:
    plain = re.fullmatch(r"[\w/.+-]+", str(path), re.ASCII)
    return plain is not None and len(os.fsencode(path)) <= MAX_SOCKET_BYTES


def answers(socket: Path, timeout_s: float = 1.0) -> bool:
    """Whether a gRPC server answers on ``socket``."""
    try:
        with sockets.socket(sockets.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(socket))
            connection.sendall(PREFACE)
            return bool(connection.recv(1))
    except OSError:
        return False


class LiteSupervisor(Supervisor):
    """Keeps the embedded store of ``path`` running.

    ``start`` blocks until the store answers, whichever process runs it.

    Args:
        path: The store's directory; made when missing, else it must be ours with mode 0700.
        socket: Where to listen; None = ``socket_path(path)``, which is where the store looks.

    Raises:
        ConfigError: The directory is not ours alone.
    """

    def __init__(self, path: Path, socket: Path | None = None) -> None:
        self.path = private_directory(path)
        self.socket = socket or socket_path(path)
        command = [
            sys.executable,
            "-m",
            "crawler.stores._lite_server",
            str(path / "milvus"),
            str(self.socket),
        ]
        super().__init__(command, path / "supervisor.lock", "embedded store")

    @property
    def alive(self) -> bool:
        """Whether the store answers; waits at most a second."""
        return answers(self.socket)

    def start(self, timeout_s: float = 30.0) -> None:
        """Start the store, or wait for the process that does.

        Raises:
            ConfigError: It does not answer within ``timeout_s``.
        """
        super().start()
        deadline = time.monotonic() + timeout_s
        while not self.alive:
            if time.monotonic() > deadline:
                self.stop()
                raise ConfigError([f"{self.path}: the embedded store did not start; its log says why"])
            time.sleep(0.05)
