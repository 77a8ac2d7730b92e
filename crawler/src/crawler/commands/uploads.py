"""Documents into a collection: sent in batches, many in one request."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crawler.commands.client import Collection, Failed, Refused
from crawler.commands.jobs import Jobs

BATCH_FILES = 50
BATCH_BYTES = 32 * 2**20
ABOUT_A_FILE = {400, 409, 413, 415}
"""Refusals that may be due to one document of a batch: its documents are then sent one by one."""

INTERRUPTED = "What was uploaded goes on being processed."


@dataclass(frozen=True)
class Item:
    """A document to be uploaded: the file of a path, or what an address answers with."""

    name: str
    """As it is shown."""
    path: Path | None = None
    url: str | None = None
    document_id: str | None = None
    """It replaces the document that has this id."""


def upload(collection: Collection, items: Sequence[Item], jobs: Jobs) -> None:
    """Send the documents, and hand their jobs over. One that is refused or cannot be read is told to
    ``jobs`` as failed, and the others go on.

    Args:
        collection: Where to.
        items: Either all of them files, or all addresses.
        jobs: Follows them.

    Raises:
        Failed: The server cannot be reached, or refuses the key, the collection or any further document.
    """
    total, number = len(items), 0
    for batch in _batches(items):
        named = [(f"[{number + at}/{total}] {item.name}", item) for at, item in enumerate(batch, start=1)]
        number += len(batch)
        if not _sent(collection, named, jobs):
            for name, item in named:
                _sent(collection, [(name, item)], jobs)


def _sent(collection: Collection, named: Sequence[tuple[str, Item]], jobs: Jobs) -> bool:
    """Whether the documents were sent; of a single one the failure is told to ``jobs``."""
    try:
        _send(collection, named, jobs)
        return True
    except Refused as error:
        if error.status not in ABOUT_A_FILE:
            raise
        reason = str(error)
    except OSError as error:
        reason = f"the file cannot be read ({error.strerror})"
    if len(named) == 1:
        jobs.fail(named[0][0], reason)
    return False


def _send(collection: Collection, named: Sequence[tuple[str, Item]], jobs: Jobs) -> None:
    items = [item for _, item in named]
    ids = [item.document_id for item in items]
    with ExitStack() as stack:
        content: dict[str, Any]
        if items[0].path is None:
            content = {"json": {"documents": [{"url": item.url, "id": item.document_id} for item in items]}}
        else:
            files = [
                ("files", (readable(item.path.name), stack.enter_context(item.path.open("rb"))))
                for item in items
                if item.path
            ]
            content = {"files": files, "data": {"ids": json.dumps(ids)} if all(ids) else {}}
        answer = collection.request("POST", "/add", **content)
    documents = answer.get("data")
    if not isinstance(documents, list) or len(documents) != len(named):
        raise Failed("the server's answer is not one of this API; check --url")
    for (name, _), document in zip(named, documents, strict=True):
        jobs.follow(name, document, answer.get("batch_id"))


def readable(name: str) -> str:
    """The name of a file as text that can be shown and sent, also where it is none in the file system."""
    return os.fsencode(name).decode(errors="replace")


def _batches(items: Sequence[Item]) -> Iterator[list[Item]]:
    batch: list[Item] = []
    size = 0
    for item in items:
        length = _size(item)
        if batch and (len(batch) == BATCH_FILES or size + length > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += length
    if batch:
        yield batch


def _size(item: Item) -> int:
    try:
        return item.path.stat().st_size if item.path else 0
    except OSError:
        return 0
