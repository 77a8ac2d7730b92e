"""A Milvus server with authorization on, for as long as standard input is open.

Run by the environment that has the package `milvus`, isolated (`python -I`). The server binds all addresses,
so it runs in a network namespace of its own; what it is reached by is a port of loopback outside, whose
listener was opened before the namespace was entered.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import os
import socket
import struct
import sys
import threading

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 1


def enter_namespace() -> None:
    """A new network namespace with only loopback; where we are not root, in a user namespace of our own.

    Raises:
        OSError: This machine does not allow it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    kind = CLONE_NEWNET if os.geteuid() == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(kind) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"no network namespace: {os.strerror(number)}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | IFF_UP))


async def relay(listener: socket.socket, port: int) -> None:
    """Pass connections of the listener on to the port inside."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other end is gone
        finally:
            writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))

    server = await asyncio.start_server(connected, sock=listener)
    await server.serve_forever()


def main(data: str, port: str) -> None:
    listener = socket.create_server(("127.0.0.1", int(port)))
    enter_namespace()
    from milvus import MilvusServer, MilvusServerConfig  # type: ignore[import-not-found]

    server = MilvusServer(MilvusServerConfig(data_dir=data))
    server.config.set("authorization_enabled", True)
    try:
        server.start()
        threading.Thread(target=asyncio.run, args=(relay(listener, server.listen_port),), daemon=True).start()
        print(listener.getsockname()[1], flush=True)  # noqa: T201 - that is how the port is told
        sys.stdin.read()
    finally:
        server.stop()


if __name__ == "__main__":
    main(*sys.argv[1:])
