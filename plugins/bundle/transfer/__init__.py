"""``crawler export`` and ``crawler import``: a whole collection as files, for who runs the service."""

from __future__ import annotations

import argparse
from pathlib import Path

from crawler.commands import Command


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("collection", metavar="COLLECTION", help="its name or id")
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; is made, and must be empty")


def _import_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="what `crawler export` made")
    parser.add_argument("--collection", metavar="NAME", help="its name here, where it is to have another")


def _export(options: argparse.Namespace) -> int:
    from plugins.bundle.transfer.command import run_export

    return run_export(options.collection, options.folder)


def _import(options: argparse.Namespace) -> int:
    from plugins.bundle.transfer.command import run_import

    return run_import(options.folder, options.collection)


EXPORT = Command(
    "write a whole collection into a folder (reads the configuration)",
    _export_arguments,
    _export,
    "What is in the folder is no export; delete it.",
)
IMPORT = Command(
    "make a collection of what was exported (reads the configuration)",
    _import_arguments,
    _import,
    "The worker clears away what was written.",
)
