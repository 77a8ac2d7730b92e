"""docs/sizing.md is what the calculation says, and the calculation is what the benchmarks measured."""

from __future__ import annotations

import pytest
from sqlalchemy.pool import QueuePool

from bench.ingest.documents import report
from bench.sizing import BENCHMARKS, PASSAGES_PER_PAGE, POOL, Assumed, example, measured, plan
from crawler.contracts import Document
from crawler.crawler import CrawlerConfig, Preparer
from plugins.collections.database import open_engine
from tests.support.generated_docs import part
from tests.support.proxy import ROOT

FIGURES = measured(BENCHMARKS.read_text(encoding="utf-8"))


def test_the_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
    assert part(page, "calculation") == example(), "run `python -m tests.support.generated_docs`"


def test_a_row_that_is_no_longer_measured_is_named() -> None:
    with pytest.raises(ValueError, match="chat with a search"):
        measured("| (a) plain chat | 1 | 2 |")


async def test_a_full_page_has_as_many_passages_as_the_calculation_says() -> None:
    document = Document(
        collection="c", document_id="1", revision="1", source="report.pdf", content=report(1, 10)
    )
    prepared = await Preparer(CrawlerConfig()).prepare(document)
    assert len(prepared.chunks) == 10 * PASSAGES_PER_PAGE


def test_a_process_opens_as_many_connections_as_the_calculation_says() -> None:
    pool = open_engine("postgresql+asyncpg://nobody@127.0.0.1/none").pool
    assert isinstance(pool, QueuePool)
    assert pool.size() + pool._max_overflow == POOL


def test_ten_people_need_one_process_and_nothing_else() -> None:
    small = plan(Assumed(10), FIGURES)
    assert (small.proxies, small.workers, small.redis) == (1, 1, False)
    assert (small.store, small.database, small.connections) == ("embedded", "SQLite", 0)


def test_more_people_never_need_less() -> None:
    plans = [plan(Assumed(users), FIGURES) for users in (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)]
    for value in ("proxies", "workers", "vectors_bytes", "proxies_bytes", "connections", "tokens_per_s"):
        values = [getattr(one, value) for one in plans]
        assert values == sorted(values), value


def test_one_proxy_may_be_missing_where_there_are_several() -> None:
    large = plan(Assumed(100_000), FIGURES)
    assert (large.proxies - 1) * FIGURES.streams >= large.streams
    assert (large.proxies - 1) * FIGURES.chats_per_s > large.chats_per_s
