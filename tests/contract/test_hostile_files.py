"""Hostile and broken files through the default pipeline: each is one document's failure or success, in words
for its owner, and neither this process nor the next document knows of it."""

from __future__ import annotations

import asyncio
import gc
import re
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from crawler.contracts import Document
from crawler.crawler import CrawlerConfig, Limits, Preparer
from crawler.errors import CrawlError
from crawler.links import without_active_links
from tests.support.hostile_files import INJECTION, SECRET, HostileFile, hostile_files
from tests.unit.crawler.samples import pdf

LIMITS = Limits.model_validate({"timeout_s": 30, "cpu_s": 30, "memory_bytes": "1GiB"})
FILES = {str(file): file for file in hostile_files()}
LONG_LINE = "line.txt"
"""Of 100 MB: tried once."""
_INTERNAL = re.compile(r"Traceback|/tmp|/work|site-packages|\.py\b|Error\b|Exception|0x[0-9a-f]{6}")


def document(name: str, content: bytes) -> Document:
    return Document(collection="c", document_id="d", revision="r", source=name, content=content)


async def prepared(name: str, content: bytes) -> Document:
    return await Preparer(CrawlerConfig(limits=LIMITS)).prepare(document(name, content))


async def outcome(file: HostileFile) -> tuple[str, str]:
    try:
        result = await prepared(file.name, file.content)
    except CrawlError as error:
        return "fails", error.message
    return "succeeds", "\n".join(chunk.indexed_text(None) for chunk in result.chunks)


@pytest.mark.parametrize("name", [name for name in FILES if name != LONG_LINE])
async def test_a_hostile_file_fails_or_succeeds_in_words_for_its_owner(name: str) -> None:
    file = FILES[name]
    how, text = await outcome(file)
    assert file.outcome in (how, "either"), text[:300]
    if how == "fails":
        assert 10 < len(text) < 400
        assert not _INTERNAL.search(text), text
    assert SECRET not in text
    assert without_active_links(text) == text
    assert "document.write" not in text


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_returns_and_the_next_document_is_unharmed() -> None:
    # In a process of its own: here, memory that other tests gave back would be taken up again.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        grown, text = process.submit(grown_by_hostile_files).result()
    assert grown < 64 * 2**20
    assert "Revenue grew" in text


def grown_by_hostile_files() -> tuple[int, str]:
    """Bytes by which the process has grown, and the text of a good document after them."""

    async def grow() -> tuple[int, str]:
        await prepared("first.pdf", pdf())
        gc.collect()
        before = resident()
        gc.disable()  # nobody knows when garbage is collected
        for name in (LONG_LINE, "bomb.docx", "bomb.odt"):
            how, text = await outcome(FILES[name])
            assert (how, "larger" in text or "limits" in text) == ("fails", True), text
        grown = resident() - before
        good = await prepared("good.pdf", pdf())
        return grown, "".join(chunk.content for chunk in good.chunks)

    return asyncio.run(grow())


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_instructions_in_a_document_stay_its_text() -> None:
    file = FILES["injection.md"]
    how, text = await outcome(file)
    assert (how, INJECTION in text) == ("succeeds", True)
