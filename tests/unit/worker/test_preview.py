"""What the child of a preview finds in a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crawler.errors import FetchRefused
from plugins.core.preview_task import Task
from plugins.worker.models import NotConfigured
from plugins.worker.preview import OnDemand, models_of, preview
from tests.support.proxy import ROOT

MAIL = b"""From: ada@example.com\r
To: bob@example.com\r
Subject: The contract\r
MIME-Version: 1.0\r
Content-Type: multipart/mixed; boundary=b\r
\r
--b\r
Content-Type: text/plain\r
\r
Please sign the attached contract until Friday.\r
--b\r
Content-Type: text/plain; name=contract.txt\r
Content-Disposition: attachment; filename=contract.txt\r
\r
The parties agree.\r
--b--\r
"""


def task(**fields: Any) -> Task:
    usual: dict[str, Any] = {
        "pipeline": "default",
        "settings": {},
        "proxy_url": None,
        "api_key": None,
        "embedding_model": "local/minilm",
        "dimension": 384,
        "user": "kc/alice",
        "filename": "a.md",
        "media_type": None,
        "path": None,
        "url": None,
        "markdown": None,
        "metadata": None,
        "max_bytes": 1000,
    }
    return Task(**{**usual, **fields})


async def test_a_pdf_shows_its_pages_and_on_which_each_passage_is() -> None:
    path = ROOT / "examples" / "documents" / "annual-report-2025.pdf"
    found = await preview(task(filename=path.name, path=path))
    assert found.pages is not None
    assert found.pages > 1
    assert {chunk.page_first for chunk in found.chunks} == set(range(1, found.pages + 1))
    assert found.metadata["page_count"] == found.pages
    assert [chunk.start for chunk in found.chunks] == sorted(chunk.start for chunk in found.chunks)


async def test_files_inside_a_mail_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mail"
    path.write_bytes(MAIL)
    found = await preview(task(filename="mail.eml", path=path))
    assert found.attachments == ["contract.txt"]
    assert "until Friday" in found.markdown
    assert "The parties agree" not in found.markdown


async def test_an_address_that_is_not_public_is_not_fetched() -> None:
    with pytest.raises(FetchRefused):
        await preview(task(url="http://127.0.0.1:1/secret"))


async def test_a_pipeline_that_is_not_there_any_more_says_so() -> None:
    with pytest.raises(NotConfigured, match="`gone` of this collection is not configured any more"):
        await preview(task(pipeline="gone", settings=None, markdown="words"))


async def test_a_chunker_that_asks_the_embedding_model_gets_the_collections() -> None:
    embedder = OnDemand(models_of(task()), task())
    first, second = await embedder.embed(["one"]), await embedder.embed(["one"])
    assert first == second
    assert len(first[0]) == 384


async def test_a_semantic_pipeline_is_previewed_with_the_collections_model() -> None:
    settings = {"chunker": {"use": "semantic", "max_tokens": 64}}
    leave = "Employees have thirty days of leave. Leave is asked for in writing. Unused leave expires. "
    rockets = "The rocket burns liquid oxygen. Its second stage reaches orbit. The engine is cooled by fuel. "
    markdown = 2 * leave + 2 * rockets
    found = await preview(task(settings=settings, markdown=markdown))
    texts = [markdown[chunk.start : chunk.end] for chunk in found.chunks]
    assert len(texts) > 1
    assert not any("rocket" in text and "thirty days" in text for text in texts)


async def test_an_embedding_model_that_cannot_be_reached_is_no_hindrance_where_nothing_asks_it() -> None:
    found = await preview(task(embedding_model="remote", markdown="words"))
    assert len(found.chunks) == 1
    with pytest.raises(NotConfigured, match=r"`worker\.proxy_url`"):
        await OnDemand(models_of(task()), task(embedding_model="remote")).embed(["one"])
