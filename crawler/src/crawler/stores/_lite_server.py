"""The embedded Milvus: ``python -m crawler.stores._lite_server DIRECTORY SOCKET``.

Serves the milvus-lite database in ``DIRECTORY`` on the unix socket ``SOCKET`` until its standard input
ends, which is when the process that started it is gone, however it went.

milvus-lite allows one writer at a time for each collection and does not enforce it: four concurrent
writers corrupt its log, and a flush beside an insert loses rows. So every call that is not known to
read only goes through one lock. Reads work on snapshots and run beside it.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
from milvus_lite.adapter.grpc.servicer import MilvusServicer  # type: ignore[import-untyped]
from milvus_lite.db import MilvusLite  # type: ignore[import-untyped]
from milvus_lite.exceptions import DataDirLockedError  # type: ignore[import-untyped]
from pymilvus.grpc_gen import milvus_pb2, milvus_pb2_grpc  # type: ignore[import-untyped]

log = logging.getLogger("crawler.stores.lite_server")

READS = frozenset(
    {
        "AllocTimestamp",
        "CheckHealth",
        "Connect",
        "DescribeCollection",
        "DescribeIndex",
        "GetCollectionStatistics",
        "GetFlushState",
        "GetLoadState",
        "GetLoadingProgress",
        "GetVersion",
        "HasCollection",
        "HybridSearch",
        "Query",
        "Search",
        "ShowCollections",
    }
)
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
# Writers that wait for the lock hold a thread each and must not keep searches waiting.
THREADS = 32
SHUTDOWN_S = 1.0


class Database(MilvusLite):  # type: ignore[misc]  # milvus-lite is not typed
    """Opens each collection once, and loads it, since milvus-lite does neither.

    milvus-lite writes the files of its indexes in place and trusts them when it starts: a kill in the
    middle would leave a collection that never opens again. They hold nothing that its data does not.
    """

    def __init__(self, directory: str, lock: threading.RLock) -> None:
        self._lock = lock
        super().__init__(directory)

    def get_collection(self, name: str, database_name: str = "default") -> Any:
        opened = self._collections.get((database_name, name))
        if opened is not None:
            return opened
        with self._lock:
            collection = super().get_collection(name, database_name)
            try:
                collection.load()
            except Exception:  # noqa: BLE001  # each index type fails in its own way on half a file
                log.warning("An index cannot be read; building the collection's indexes anew")
                for folder in Path(collection.data_dir).glob("partitions/*/indexes"):
                    shutil.rmtree(folder)
                collection.load()
            return collection


def serialised(servicer: MilvusServicer, lock: threading.RLock) -> MilvusServicer:
    """``servicer`` with every call that may write behind ``lock``."""
    for name in dir(milvus_pb2_grpc.MilvusServiceServicer):
        if not name.startswith("_") and name not in READS:
            setattr(servicer, name, _behind(lock, getattr(servicer, name)))
    return servicer


def _behind(lock: threading.RLock, call: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def locked(request: Any, context: Any) -> Any:
        with lock:
            return call(request, context)

    return locked


class Servicer(MilvusServicer):  # type: ignore[misc]  # milvus-lite is not typed
    """With the one call of pymilvus's asynchronous client that milvus-lite lacks."""

    def AllocTimestamp(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Milliseconds since the epoch, 18 bits to the left, as Milvus's hybrid timestamps."""
        return milvus_pb2.AllocTimestampResponse(timestamp=int(time.time() * 1000) << 18)


class WithoutContent(logging.Formatter):
    """The event and the type of the error: messages of milvus-lite quote filters and documents."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else ""
        event = record.getMessage() if record.name == log.name else record.funcName
        return f"{record.levelname} {record.name} {event} {error}".rstrip()


def serve(directory: Path, socket: Path) -> None:
    """Serve until standard input ends, the parent is another, or SIGTERM.

    Raises:
        milvus_lite.exceptions.DataDirLockedError: Another process has the database open.
    """
    parent = os.getppid()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    lock = threading.RLock()
    database = Database(str(directory), lock)
    socket.unlink(missing_ok=True)
    server = grpc.server(
        ThreadPoolExecutor(THREADS),
        options=[
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ],
    )
    milvus_pb2_grpc.add_MilvusServiceServicer_to_server(serialised(Servicer(database), lock), server)
    server.add_insecure_port(f"unix:{socket}")
    server.start()
    while not stopped.is_set() and os.getppid() == parent:
        if select.select([sys.stdin], [], [], 0.5)[0] and not os.read(sys.stdin.fileno(), 4096):
            break
    server.stop(grace=SHUTDOWN_S).wait(SHUTDOWN_S)
    # Everything acknowledged is flushed or in the log: a write that still runs may be cut off.
    if lock.acquire(timeout=SHUTDOWN_S):
        socket.unlink(missing_ok=True)


def main() -> None:
    os.umask(0o077)
    handler = logging.StreamHandler()
    handler.setFormatter(WithoutContent())
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    try:
        serve(Path(sys.argv[1]), Path(sys.argv[2]))
    except DataDirLockedError:
        sys.exit("The embedded store's database is open in another process")
    sys.stderr.flush()
    # Background compaction may run for minutes; it is safe to cut off and goes on at the next start.
    os._exit(0)


if __name__ == "__main__":
    main()
