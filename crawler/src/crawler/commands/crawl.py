"""``crawler crawl``: upload files. A client of the proxy, so that rights and rows are the same as for any
other upload."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from crawler.commands import Command, say
from crawler.commands.client import Failed, add_arguments, opened
from crawler.commands.jobs import Jobs
from crawler.commands.uploads import INTERRUPTED, Item, readable, upload


def add_timeout(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600,
        metavar="S",
        help="give up when nothing moves for so many seconds (default: 3600)",
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="a file, or a folder with all that is in it"
    )
    add_arguments(parser)
    add_timeout(parser)


def _run(options: argparse.Namespace) -> int:
    items = [Item(readable(path.name), path) for path in _files(options.files)]
    if not items:
        say("There is no file to upload.", error=True)
        return 1
    with opened(options) as collection:
        jobs = Jobs(collection, len(items), options.timeout)
        try:
            upload(collection, items, jobs)
            jobs.wait()
        except Failed as error:
            say(f"failed: {error}", error=True)
            return 1
    if jobs.failed:
        say(f"{jobs.failed} of {len(items)} failed", error=True)
    return 1 if jobs.failed else 0


def _files(given: Iterable[Path]) -> Iterator[Path]:
    for path in given:
        if path.is_dir():
            yield from below(path)
        else:
            yield path


def below(folder: Path) -> Iterator[Path]:
    """All files in the folder and its folders, by name. Left out: what is hidden (``.git``), links, and what
    is no file.

    Raises:
        OSError: A folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    for root, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(root, name)
            if not name.startswith(".") and path.is_file() and not path.is_symlink():
                yield path


CRAWL = Command("upload files into a collection of a running proxy", _add_arguments, _run, INTERRUPTED)
