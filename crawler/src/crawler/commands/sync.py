"""``crawler sync``: a collection follows a folder, or a list of addresses.

A document's id is made of the source's name and its own, so that a run finds what the ones before it
uploaded, on any machine, and touches nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crawler.commands import Command, say
from crawler.commands.client import Collection, Failed, Refused, add_arguments, opened
from crawler.commands.crawl import add_timeout, below
from crawler.commands.jobs import Jobs
from crawler.commands.uploads import INTERRUPTED, Item, readable, upload


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", type=Path, metavar="FOLDER_OR_URL_LIST", help="a folder, or a file with an address a line"
    )
    add_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--name",
        help="what the source is called, where its path differs from run to run (default: its whole path)",
    )
    add_timeout(parser)


def _run(options: argparse.Namespace) -> int:
    prefix = _prefix(options.name or str(options.source.resolve()))
    try:
        items = list(_items(options.source, prefix))
        with opened(options) as collection:
            plan = _plan(items, collection, prefix)
            return _show(plan) if options.dry_run else _do(plan, collection, options.timeout)
    except OSError as error:
        say(f"failed: {error.filename} cannot be read ({error.strerror})", error=True)
    except Failed as error:
        say(f"failed: {error}", error=True)
    return 1


def _prefix(name: str) -> str:
    """What the ids of all documents of a source begin with."""
    return f"sync_{hashlib.sha256(name.encode()).hexdigest()[:16]}_"


def _items(source: Path, prefix: str) -> Iterator[Item]:
    """All documents that the source has now.

    Raises:
        Failed: Neither a folder nor a list of addresses.
        OSError: It cannot be read.
    """
    if source.is_dir():
        for path in below(source):
            name = path.relative_to(source).as_posix()
            yield Item(readable(name), path=path, document_id=_id(prefix, name))
        return
    for url in _addresses(source):
        yield Item(url, url=url, document_id=_id(prefix, url))


def _addresses(source: Path) -> Iterator[str]:
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise Failed(f"{source} is neither a folder nor a text file with an address a line") from error
    for number, line in enumerate(lines, start=1):
        url = line.strip()
        if not url or url.startswith("#"):
            continue
        if not re.fullmatch(r"https?://\S+", url):
            raise Failed(f"{source}:{number} is no address; a line is http(s)://..., or begins with #")
        yield url


def _id(prefix: str, name: str) -> str:
    return prefix + hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:40]


@dataclass
class _Plan:
    new: list[Item] = field(default_factory=list)
    changed: list[Item] = field(default_factory=list)
    unchanged: list[tuple[Item, dict[str, Any]]] = field(default_factory=list)
    vanished: list[dict[str, Any]] = field(default_factory=list)
    """Documents as the server shows them."""


def _plan(items: Sequence[Item], collection: Collection, prefix: str) -> _Plan:
    """What is to be done.

    Raises:
        Failed: The source is empty, though it was not.
    """
    wanted = {str(item.document_id): item for item in items}
    there = {
        document["id"]: document
        for document in collection.list("/documents")
        if document["id"].startswith(prefix) and not document.get("parent_id")
    }
    if there and not wanted:
        raise Failed(
            f"the source is empty, and the collection has {len(there)} documents of it; if that is meant, "
            "delete them in the collection"
        )
    plan = _Plan(vanished=[document for key, document in there.items() if key not in wanted])
    for key, item in wanted.items():
        document = there.get(key)
        if document is None:
            plan.new.append(item)
        elif item.path is not None and _same(item.path, document):
            plan.unchanged.append((item, document))
        else:  # what is behind an address is for the server to see
            plan.changed.append(item)
    return plan


def _same(path: Path, document: dict[str, Any]) -> bool:
    """Whether the document is of this content; one that failed is tried again."""
    if document.get("status") not in ("completed", "in_progress"):
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == document.get("sha256")


def _show(plan: _Plan) -> int:
    for word, items in (("add", plan.new), ("change", plan.changed)):
        for item in items:
            say(f"would {word} {item.name}")
    for document in plan.vanished:
        say(f"would delete {_shown(document)}")
    say(
        f"would add {len(plan.new)}, change {len(plan.changed)}, delete {len(plan.vanished)}; "
        f"{len(plan.unchanged)} unchanged"
    )
    return 0


def _do(plan: _Plan, collection: Collection, stalled_s: float) -> int:
    """Upload first, and delete then: what was only renamed is never missing."""
    items = [*plan.new, *plan.changed]
    jobs = Jobs(collection, len(items), stalled_s)
    upload(collection, items, jobs)
    for item, document in plan.unchanged:
        if document.get("status") == "in_progress":  # of a run that was interrupted
            jobs.follow(item.name, document)
    jobs.wait()
    for document in plan.vanished:
        try:
            collection.request("DELETE", f"/documents/{document['id']}")
            say(f"{_shown(document)}: deleted")
        except Refused as error:
            if error.status != 404:  # else somebody else deleted it
                jobs.fail(_shown(document), str(error))
    say(
        f"{len(plan.new)} added, {len(plan.changed)} changed, {len(plan.vanished)} deleted, "
        f"{len(plan.unchanged)} unchanged; {jobs.failed} failed"
    )
    return 1 if jobs.failed else 0


def _shown(document: dict[str, Any]) -> str:
    return f"{document.get('filename')} ({document['id']})"


SYNC = Command("make a collection follow a folder or a list of addresses", _add_arguments, _run, INTERRUPTED)
