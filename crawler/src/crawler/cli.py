"""The console command ``crawler``.

``crawl`` is a client of the proxy, so that rights and rows are the same as for any other upload; ``convert``
shows locally what would become of a file, and stores nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from crawler.contracts import Document
from crawler.crawler import CrawlerConfig, Preparer, check
from crawler.errors import ConfigError, CrawlError
from crawler.settings import read_yaml, validate

_POLL_S = 0.5
_TIMEOUT = httpx.Timeout(30, read=120, write=300)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when every file succeeded, 1 when one failed, 2 when the command line is wrong."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "convert":
            return asyncio.run(_convert(options))
        return _crawl(options)
    except ConfigError as error:
        _say("\n".join(error.mistakes), error=True)
    except KeyboardInterrupt:
        _say("Interrupted. What was uploaded goes on being processed.", error=True)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crawler", description="Documents to searchable passages.")
    commands = parser.add_subparsers(dest="command", required=True)
    crawl = commands.add_parser("crawl", help="upload files into a collection of a running proxy")
    crawl.add_argument("files", nargs="+", type=Path, metavar="FILE")
    crawl.add_argument("--collection", required=True, metavar="NAME", help="name or id of the collection")
    crawl.add_argument("--url", default="http://127.0.0.1:4000", help="the proxy (default: %(default)s)")
    crawl.add_argument(
        "--key-env",
        default="LITELLM_API_KEY",
        metavar="NAME",
        help="environment variable that holds the key or token (default: %(default)s)",
    )
    crawl.add_argument(
        "--timeout",
        type=float,
        default=3600,
        metavar="S",
        help="seconds to wait for each file (default: 3600)",
    )
    convert = commands.add_parser(
        "convert", help="show a file's markdown, metadata and chunks; stores nothing"
    )
    convert.add_argument("file", type=Path, metavar="FILE")
    convert.add_argument("--config", type=Path, help="YAML file with a pipeline's settings")
    convert.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _say(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


# --- crawl -------------------------------------------------------------------------------------------


class _Failed(Exception):
    """A file's upload or processing failed; the text says why."""


def _crawl(options: argparse.Namespace) -> int:
    key = os.environ.get(options.key_env)
    if not key:
        raise ConfigError([f"Set the environment variable {options.key_env} to your key or token."])
    failed = 0
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=options.url.rstrip("/"), headers=headers, timeout=_TIMEOUT) as client:
        for number, file in enumerate(options.files, start=1):
            name = f"[{number}/{len(options.files)}] {file.name}"
            try:
                job = _upload(client, options.collection, file)
                _say(f"{name}: {_follow(client, job, name, options.timeout)}")
            except _Failed as error:
                failed += 1
                _say(f"{name}: failed: {error}", error=True)
    if failed:
        _say(f"{failed} of {len(options.files)} failed", error=True)
    return 1 if failed else 0


def _upload(client: httpx.Client, collection: str, file: Path) -> str:
    """The id of the job that processes the file."""
    try:
        with file.open("rb") as stream:
            answer = _request(
                client,
                "POST",
                f"/v1/collections/{quote(collection, safe='')}/add",
                files={"files": (file.name, stream)},
            )
    except OSError as error:
        raise _Failed(f"the file cannot be read ({error.strerror})") from error
    try:
        return str(answer["data"][0]["job"]["id"])
    except (KeyError, IndexError, TypeError) as error:
        raise _Failed("the server's answer is not one of this API; check --url") from error


def _follow(client: httpx.Client, job: str, name: str, timeout_s: float) -> str:
    """Show the job's progress until it ends; the last line's text."""
    deadline = time.monotonic() + timeout_s
    shown = ""
    while time.monotonic() < deadline:
        status = _request(client, "GET", f"/v1/jobs/{quote(job, safe='')}")
        stage, done, total = status.get("stage"), status.get("done"), status.get("total")
        state = status.get("status")
        if state in {"failed", "cancelled"}:
            reason = (status.get("last_error") or {}).get("message")
            raise _Failed(str(reason or state))
        if state == "completed" or stage == "done":
            return f"done, {total} chunks" if total else "done"
        line = f"{stage} {done}/{total}" if total else str(stage)
        if line != shown:
            _say(f"{name}: {line}")
            shown = line
        time.sleep(_POLL_S)
    raise _Failed(f"still not done after {timeout_s:g} s; it goes on being processed")


def _request(client: httpx.Client, method: str, path: str, **content: Any) -> dict[str, Any]:
    try:
        response = client.request(method, path, **content)
        answer = response.json()
    except httpx.HTTPError as error:
        raise _Failed(f"the server cannot be reached ({type(error).__name__}); check --url") from error
    except ValueError as error:
        raise _Failed(
            f"the server answered status {response.status_code} without JSON; check --url"
        ) from error
    if not isinstance(answer, dict):
        raise _Failed("the server's answer is not one of this API; check --url")
    if response.is_error:
        details = answer.get("error")
        message = details.get("message") if isinstance(details, dict) else None
        raise _Failed(f"{message or 'refused'} (status {response.status_code})")
    return answer


# --- convert -----------------------------------------------------------------------------------------


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
        _say(f"{options.file}: the file cannot be read ({error.strerror})", error=True)
        return 1
    except CrawlError as error:
        _say(f"{options.file}: {error.message}", error=True)
        return 1
    _say(_as_json(document) if options.json else _as_text(document))
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
