"""What a job tells while its document is worked on."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crawler import conversion
from crawler.contracts import Converted, Format, Source
from crawler.crawler import Limits
from tests.support.collections import World, an_upload


async def test_a_job_tells_how_many_pages_are_converted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    goes_on = asyncio.Event()

    async def convert(_f: Format[Any], _s: Source, _l: Limits, report: conversion.Report) -> Converted:
        await report(2, 5)
        await goes_on.wait()
        return Converted(markdown="the words")

    monkeypatch.setattr(conversion, "convert", convert)
    await world.collection()
    spooled = world.documents.spool_dir / "upload"
    spooled.write_text("the words")
    upload = an_upload("the words", markdown=None, path=spooled, filename="a.txt", media_type="text/plain")
    [document] = await world.documents.add(world.alice, "handbook", [upload])

    async def told() -> bool:
        [job] = (await world.jobs.list(world.alice, "handbook")).data
        assert job.document_id == document.id
        pages = job.pages and (job.pages.done, job.pages.total)
        return (job.stage, pages, job.percent) == ("convert", (2, 5), 16)

    async with world.working():
        await world.until(told)
        goes_on.set()
        await world.until(world.idle)
    assert await world.found(world.alice, "words", "handbook") == ["the words"]
