"""A bad line to a server: hands requests on, and stalls or breaks off in the answer."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal
from urllib.parse import urlsplit

Fault = Literal["stalls", "breaks off"]
START_S = 10.0
LINES = 2
"""Of the answer's stream, before it breaks off."""


async def hand_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, lines: int | None) -> None:
    """Everything, or until so many objects of the answer have passed."""
    passed, sent = b"", 0
    while part := await source.read(4096):
        passed += part
        ends = [found.end() for found in re.finditer(rb'"done":false\}', passed)]
        is_over = lines is not None and len(ends) >= lines
        upto = ends[lines - 1] if lines is not None and is_over else len(passed)
        sink.write(passed[sent:upto])
        await sink.drain()
        sent = upto
        if is_over:
            return


async def serve(target: str, fault: Fault, ready: asyncio.Future[int], done: asyncio.Event) -> None:
    url = urlsplit(target)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault == "stalls":
            await done.wait()
            writer.close()
            return
        there_reader, there_writer = await asyncio.open_connection(url.hostname, url.port)
        with contextlib.suppress(OSError):
            back = asyncio.create_task(hand_on(there_reader, writer, LINES))
            there = asyncio.create_task(hand_on(reader, there_writer, None))
            await asyncio.wait({back, there}, return_when=asyncio.FIRST_COMPLETED)
            for task in (back, there):
                task.cancel()
            await asyncio.gather(back, there, return_exceptions=True)
        for each in (writer, there_writer):
            each.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    ready.set_result(server.sockets[0].getsockname()[1])
    await done.wait()
    server.close()


@contextmanager
def relay(target: str, fault: Fault) -> Iterator[str]:
    """The address of a line to the target; ended in any case."""
    loop = asyncio.new_event_loop()
    ready: asyncio.Future[int] = loop.create_future()
    done, told, port = asyncio.Event(), threading.Event(), [0]

    def tell(future: asyncio.Future[int]) -> None:
        port[0] = future.result()
        told.set()

    ready.add_done_callback(tell)
    thread = threading.Thread(
        target=lambda: loop.run_until_complete(serve(target, fault, ready, done)), daemon=True
    )
    thread.start()
    try:
        assert told.wait(START_S)
        yield f"http://127.0.0.1:{port[0]}"
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(START_S)
