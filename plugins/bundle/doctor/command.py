"""The doctor on a terminal: lines as they are found, then how many; or one JSON object."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TextIO

from pydantic import SecretStr

from plugins.bundle.doctor import examine
from plugins.bundle.doctor.findings import Finding, summary, written

WIDTH = 22
"""Of the column with the parts' names."""


def run(folder: Path, proxy_config: Path, token_file: Path | None, *, models: bool, as_json: bool) -> int:
    """Print what is found; 0 when nothing failed, else 1."""
    # Libraries' records and warnings may name anything; what matters of them is a finding.
    logging.disable(logging.CRITICAL)
    try:
        token = SecretStr(token_file.read_text(encoding="utf-8").strip()) if token_file else None
    except (OSError, ValueError):
        print(f"The file {token_file} cannot be read.", file=sys.stderr)
        return 1
    out = None if as_json else sys.stdout
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        # libraries print what they like, with addresses and keys in it
        findings = asyncio.run(_printed(examine(folder, proxy_config, token=token, models=models), out))
    failed = any(finding.level == "fail" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "findings": [found.as_json() for found in findings]}, indent=2))
    else:
        print(f"\n{summary(findings)}.")
    return int(failed)


async def _printed(parts: AsyncIterator[list[Finding]], out: TextIO | None) -> list[Finding]:
    """All findings; each is written to ``out`` as soon as its part was examined."""
    findings: list[Finding] = []
    async for part in parts:
        findings += part
        for line in written(part, WIDTH) if out else ():
            print(line, file=out, flush=True)
    return findings
