"""``crawler convert``: what would become of a file; nothing is stored."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

from crawler.commands import Command, say
from crawler.contracts import Document
from crawler.crawler import CrawlerConfig, Preparer, check
from crawler.errors import ConfigError, CrawlError
from crawler.settings import read_yaml, validate


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE")
    parser.add_argument("--config", type=Path, help="YAML file with a pipeline's settings")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _run(options: argparse.Namespace) -> int:
    return asyncio.run(_convert(options))


async def _convert(options: argparse.Namespace) -> int:
    config = read_yaml(options.config) if options.config else {}
    if mistakes := check(config, str(options.config)):
        raise ConfigError(mistakes)
    preparer = Preparer(validate(CrawlerConfig, config, str(options.config)))
    try:
        content = await asyncio.to_thread(options.file.read_bytes)
        document = await preparer.prepare(
            Document(
                collection="local",
                document_id="local",
                revision="local",
                source=options.file.name,
                content=content,
            )
        )
    except OSError as error:
        say(f"{options.file}: the file cannot be read ({error.strerror})", error=True)
        return 1
    except CrawlError as error:
        say(f"{options.file}: {error.message}", error=True)
        return 1
    say(_as_json(document) if options.json else _as_text(document))
    return 0


def _as_json(document: Document) -> str:
    fields = {"source", "markdown", "metadata", "pages", "chunks", "warnings"}
    shown = document.model_dump(mode="json", include=fields)
    for chunk in shown["chunks"]:
        del chunk["dense"]
    return json.dumps(shown, ensure_ascii=False, indent=2)


def _as_text(document: Document) -> str:
    lines = [f"{key}: {value}" for key, value in (document.metadata or {}).items()]
    lines += [f"warning: {warning}" for warning in document.warnings]
    lines += ["", document.markdown or "", ""]
    for chunk in document.chunks:
        pages = f" page {chunk.page_first}-{chunk.page_last}" if chunk.page_first else ""
        path = " > ".join(chunk.headings)
        lines += [
            f"--- chunk {chunk.index} [{chunk.start}:{chunk.end}]{pages} {path}".rstrip(),
            chunk.content,
        ]
    return "\n".join(lines)


CONVERT = Command("show a file's markdown, metadata and chunks; stores nothing", _add_arguments, _run)
