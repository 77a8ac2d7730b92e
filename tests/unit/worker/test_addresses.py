"""Addresses that are added again: only what has changed is processed again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from crawler.errors import FetchFailed
from crawler.fetch import Fetched
from plugins.core.document_shapes import DocumentPatch, DocumentView
from tests.support.collections import World, an_upload

PAGE = "<html><body><h1>Leave</h1><p>Thirty days.</p></body></html>"


@dataclass
class Site:
    page: str = PAGE
    media_type: str = "text/html"
    down: bool = False
    fetched: list[str] = field(default_factory=list)

    async def __call__(self, url: str, *, max_bytes: int) -> Fetched:
        self.fetched.append(url)
        if self.down:
            raise FetchFailed
        return Fetched(content=self.page.encode(), filename="leave.html", media_type=self.media_type)


@pytest.fixture
async def site(world: World, monkeypatch: pytest.MonkeyPatch) -> Site:
    """What every address leads to; the collection is there."""
    made = Site()
    monkeypatch.setattr("plugins.worker.ingest.fetch", made)
    await world.collection()
    return made


async def add(world: World, **fields: Any) -> DocumentView:
    upload = an_upload(
        "", markdown=None, url="https://example.com/leave", filename="leave", document_id="leave", **fields
    )
    [added] = await world.documents.add(world.alice, "handbook", [upload])
    return added


async def embedded(world: World) -> bool:
    """Whether passages are embedded while the worker does what is to be done."""
    world.model.called.clear()
    await world.work()
    return world.model.called.is_set()


async def test_an_address_whose_page_is_the_same_is_fetched_again_but_not_embedded_again(
    world: World, site: Site
) -> None:
    before = await add(world, metadata={"year": 2025})
    assert await embedded(world)
    live = await world.row(before)
    again = await add(world, metadata={"year": 2025})
    assert again.status == "in_progress"
    assert not await embedded(world)
    row = await world.row(before)
    for name in ("revision", "live_revision", "size", "sha256", "filename", "media_type", "title", "chunks"):
        assert getattr(row, name) == getattr(live, name), name
    assert (row.properties, row.warnings, row.status, row.stage, row.pending, row.worker) == (
        live.properties,
        live.warnings,
        "completed",
        "done",
        False,
        None,
    )
    assert len(site.fetched) == 2
    original = await world.content(world.alice, "handbook", "leave")
    assert original.path.read_text() == PAGE
    assert len(await world.found(world.alice, "leave", "handbook")) == 1


@pytest.mark.parametrize(
    "change",
    [{"metadata": {"year": 2026}}, {"acl": ["group:kc/staff"]}, {"page": PAGE.replace("Thirty", "Forty")}],
    ids=lambda change: next(iter(change)),
)
async def test_what_differs_is_embedded_again(world: World, site: Site, change: dict[str, Any]) -> None:
    await add(world)
    await embedded(world)
    site.page = change.pop("page", PAGE)
    document = await add(world, **change)
    assert await embedded(world)
    row = await world.row(document)
    assert (row.status, row.revision == row.live_revision) == ("completed", True)


async def test_a_page_of_another_type_and_other_settings_of_the_pipeline_are_embedded_again(
    world: World, site: Site
) -> None:
    await add(world)
    await embedded(world)
    site.media_type = "application/xhtml+xml"
    await add(world)
    assert await embedded(world)
    pipelines = {"default": {"embedding_batch_size": 7}}
    other = World(world.config.model_copy(update={"pipelines": pipelines}), world.store)
    await add(other)
    assert await embedded(other)
    await other.database.close()


async def test_after_a_failed_look_an_address_whose_page_is_the_same_is_not_embedded_again(
    world: World, site: Site
) -> None:
    document = await add(world)
    await embedded(world)
    site.down = True
    await add(world)
    assert not await embedded(world)
    assert (await world.row(document)).status == "failed"
    site.down = False
    await add(world)
    await add(world)
    assert not await embedded(world)
    assert (await world.row(document)).status == "completed"


async def test_attributes_that_change_before_an_address_is_fetched_again_reach_its_passages(
    world: World, site: Site
) -> None:
    document = await add(world)
    await embedded(world)
    await add(world)
    patch = DocumentPatch(metadata={"year": 2030})
    await world.documents.change(world.alice, "handbook", document.id, patch)
    assert await embedded(world)
    assert len(await world.found(world.alice, "leave", "handbook")) == 1
