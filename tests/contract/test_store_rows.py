"""The contract of a store's rows: given out with their vectors, and written into another collection."""

from __future__ import annotations

from array import array
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from crawler.errors import StoreRefused
from crawler.store import Retrieval, Row
from crawler.stores import _read
from crawler.stores.milvus import Milvus
from tests.support.stores import ALICE, DIMENSION, EVERYONE, document, query, vector


async def given_out(store: Milvus, name: str, **revisions: str) -> list[Row]:
    found = [row async for row in store.rows(name, revisions)]
    return sorted(found, key=lambda row: (row.document_id, row.index))


async def another(store: Milvus) -> str:
    name = f"vs_{uuid4().hex}"
    retrieval: Retrieval = "hybrid" if (await store.capabilities()).hybrid else "dense"
    await store.create(name, dimension=DIMENSION, metric="COSINE", retrieval=retrieval)
    return name


async def test_rows_come_with_all_that_was_written(store: Milvus, name: str) -> None:
    alices = ("user:keycloak/alice",)
    await store.write(document(name, ["Thirty days."], group=alices, attributes={"year": 7, "part": 1.5}))
    [row] = await given_out(store, name, doc="r1")
    assert (row.document_id, row.revision, row.index, row.acl_key) == ("doc", "r1", 0, ALICE)
    assert (row.page_first, row.page_last) == (1, 1)
    assert row.text == "Handbook > Leave > Notice\nThirty days."
    assert row.vector == array("f", vector(0))
    assert row.meta["attributes"] == {"year": 7, "part": 1.5}


async def test_only_the_revisions_that_were_asked_for_come(store: Milvus, name: str) -> None:
    for document_id, revision in (("a", "r1"), ("a", "r2"), ("b", "r1"), ("b", "r2"), ("c", "r1")):
        await store.write(document(name, ["notice"], document_id=document_id, revision=revision))
    rows = await given_out(store, name, a="r1", b="r2", none="r1")
    assert [(row.document_id, row.revision) for row in rows] == [("a", "r1"), ("b", "r2")]


async def test_rows_of_long_and_of_many_documents_are_complete(store: Milvus, name: str) -> None:
    await store.write(document(name, [f"part {n}" for n in range(1203)], document_id="long"))
    for number in range(130):
        await store.write(document(name, ["one", "two", "three"][: number % 4], document_id=f"d{number}"))
    wanted = {f"d{number}": "r1" for number in range(130)} | {"long": "r1"}
    rows = await given_out(store, name, **wanted)
    assert [row.index for row in rows if row.document_id == "long"] == list(range(1203))
    expected = {f"d{number}": number % 4 for number in range(130)}
    found = dict.fromkeys(expected, 0)
    for row in rows:
        if row.document_id != "long":
            found[row.document_id] += 1
    assert found == expected


async def test_an_answer_that_would_be_too_large_is_asked_for_in_parts(
    store: Milvus, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.write(document(name, [f"part {n}" for n in range(700)]))
    ask, asked = _read._query, []

    async def limited(*question: Any) -> list[dict[str, Any]]:
        found = await ask(*question)
        asked.append(len(found))
        if len(found) > 300:
            raise StoreRefused
        return found

    monkeypatch.setattr(_read, "_query", limited)
    assert [row.index for row in await given_out(store, name, doc="r1")] == list(range(700))
    assert asked == [700, 700, 250, 250, 200]
    monkeypatch.setattr(_read, "FEW_ROWS", 10_000)
    with pytest.raises(StoreRefused):
        await given_out(store, name, doc="r1")


async def test_rows_written_into_another_collection_are_found_there_as_before(
    store: Milvus, name: str
) -> None:
    texts = [f"notice period, part {n}" for n in range(30)]
    await store.write(document(name, texts, attributes={"code": 'a"b\\\n', "year": 2024.5}))
    await store.write(document(name, ["hers"], document_id="hers", group=("user:keycloak/alice",)))
    copy = await another(store)
    try:
        rows = await given_out(store, name, doc="r1", hers="r1")
        for _ in range(2):
            await store.write_rows(copy, rows)
        assert await given_out(store, copy, doc="r1", hers="r1") == rows
        for asked in (query("notice part 7"), query("period", ranker="dense", limit=5)):
            here, there = await store.search(name, asked, EVERYONE), await store.search(copy, asked, EVERYONE)
            assert [hit.model_dump(exclude={"id"}) for hit in here] == [
                hit.model_dump(exclude={"id"}) for hit in there
            ]
        assert {hit.document_id for hit in await store.search(copy, query(), frozenset({ALICE}))} == {"hers"}
    finally:
        await store.drop(copy)


async def test_a_document_that_is_crawled_again_after_its_rows_were_written_is_not_there_twice(
    store: Milvus, name: str
) -> None:
    written = document(name, ["one", "two"])
    await store.write(written)
    copy = await another(store)
    try:
        await store.write_rows(copy, await given_out(store, name, doc="r1"))
        await store.write(written.model_copy(update={"collection": copy}))
        assert len(await store.search(copy, query(), EVERYONE)) == 2
    finally:
        await store.drop(copy)


async def test_rows_that_are_not_of_such_a_collection_are_refused(store: Milvus, name: str) -> None:
    await store.write(document(name, ["one"]))
    [row] = await given_out(store, name, doc="r1")
    for wrong in (
        replace(row, vector=array("f", [1.0])),
        replace(row, meta={}),
        replace(row, meta={**row.meta, "prefix": "0"}),
    ):
        with pytest.raises(StoreRefused, match="not of a collection like this one"):
            await store.write_rows(name, [wrong])


async def test_ids_that_are_none_are_never_sent(store: Milvus, name: str) -> None:
    for document_id, revision in (('x"] or id != "', "r1"), ("doc", 'r1"] or id in ["')):
        with pytest.raises(ValueError, match="document ids"):
            await given_out(store, name, **{document_id: revision})
