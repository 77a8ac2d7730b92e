"""One child process for a whole machine: started by whoever holds a lock, and again when it dies."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

FIRST_BACKOFF_S, MAX_BACKOFF_S = 0.1, 5.0
STEADY_S = 30.0
POLL_S = 0.5
STOP_S = 5.0


class Supervisor:
    """Keeps a child process running, as long as this process holds the lock.

    A thread takes the lock as soon as it is free, starts the child, and starts it again when it dies.
    The child has a pipe as standard input and must end when that pipe closes: so it does not outlive
    us, however we end. Nothing here awaits: LiteLLM imports us inside its running loop.

    Args:
        command: The child's command line.
        lock: A file in an existing directory; only one process at a time holds it.
        name: What logs call the child.
    """

    def __init__(self, command: Sequence[str], lock: Path, name: str) -> None:
        self._command = list(command)
        self._lock_path = lock
        self._name = name
        self.restarts = 0
        self._lock: IO[bytes] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._stopping = threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def holder(self) -> bool:
        """Whether it is this process that runs the child."""
        return self._lock is not None

    @property
    def pid(self) -> int | None:
        """The child's process id, where this process runs it."""
        return self._child.pid if self._child else None

    def acquire(self) -> bool:
        """Take the lock; False when another process has it. Never waits."""
        if self._lock is not None:
            return True
        file = os.fdopen(os.open(self._lock_path, os.O_RDWR | os.O_CREAT, 0o600), "rb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._lock = file
        return True

    def start(self) -> None:
        """Begin to watch; harmless when repeated. Does not wait for the child."""
        if self._watcher is None:
            self._watcher = threading.Thread(target=self._watch, name=self._name, daemon=True)
            self._watcher.start()

    def stop(self) -> None:
        """End the child, where this process runs it, and give the lock back; harmless when repeated."""
        self._stopping.set()
        if self._watcher is not None:
            self._watcher.join(STOP_S + MAX_BACKOFF_S)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _watch(self) -> None:
        while not self._stopping.is_set() and not self.acquire():
            self._stopping.wait(POLL_S)
        backoff = FIRST_BACKOFF_S
        while not self._stopping.is_set():
            started = time.monotonic()
            status = self._run()
            if status is None:
                return
            backoff = FIRST_BACKOFF_S if time.monotonic() - started > STEADY_S else backoff
            log.error("%s ended with status %s; starting it again", self._name, status)
            self._stopping.wait(backoff)
            backoff = min(2 * backoff, MAX_BACKOFF_S)
            self.restarts += 1

    def _run(self) -> int | None:
        """Run the child until it ends (its exit status) or we are to stop (None)."""
        # A group of its own, so that Ctrl-C reaches only us, who end it. Not a session of its own: Linux
        # gives each an equal share (sched(7), autogroup), and the child's niceness would not count.
        try:
            child = subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603
        except OSError as error:
            return error.errno
        self._child = child
        while not self._stopping.is_set():
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = child.wait(POLL_S)
                child.communicate()
                return status
        try:
            child.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
        return None
