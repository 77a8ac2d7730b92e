"""The contract of a store, over every implementation: Milvus embedded, and a server if MILVUS_URI is set."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from crawler import registry
from crawler.contracts import audience_key
from crawler.errors import ConfigError, FilterError, StoreError, StoreRefused
from crawler.store import Comparison, Compound, Filter, Query, Ranker, Retrieval, Store
from crawler.stores._connection import open_client
from crawler.stores.milvus import Milvus, MilvusSettings
from tests.support.stores import (
    ALICE,
    BOB,
    DIMENSION,
    EVERYONE,
    document,
    documents,
    query,
)

RANKERS: tuple[Ranker, ...] = ("rrf", "dense", "bm25")
NASTY = [
    'a"b',
    "a'b",
    "a\\",
    '\\" or 1 == 1 or title == "',
    '") or (acl_key in ["everyone"]) or (title == "',
    "line\nbreak\r\ttab",
    "\x01\x7f\x85\u2028",
    "ünïcödé 🦜 漢字",
    "%_*",
    " ",
]


COMPARISONS: list[tuple[Filter, set[str]]] = [
    (Comparison(type="eq", key="year", value=2024), {"d4"}),
    (Comparison(type="gte", key="year", value=2024.5), {"d5"}),
    (Comparison(type="lt", key="year", value=2021), {"d0"}),
    (Comparison(type="in", key="year", value=[2021, 2022]), {"d1", "d2"}),
    (Comparison(type="nin", key="year", value=[2021, 2022, 2023]), {"d0", "d4", "d5"}),
    (Comparison(type="ne", key="code", value="c0"), {"d1", "d2", "d3", "d4", "d5"}),
    (Comparison(type="eq", key="draft", value=True), {"d0", "d2", "d4"}),
    (Comparison(type="eq", key="document_id", value="d3"), {"d3"}),
    (Comparison(type="eq", key="filename", value="handbook.pdf"), {f"d{n}" for n in range(6)}),
    (Comparison(type="eq", key="language", value="de"), set()),
    (Comparison(type="gt", key="created_at", value="2026-01-02"), {f"d{n}" for n in range(6)}),
    (Comparison(type="lt", key="created_at", value=1.0), set()),
    (
        Compound(
            type="and",
            filters=[
                Comparison(type="gt", key="year", value=-1),
                Compound(
                    type="or",
                    filters=[
                        Comparison(type="eq", key="code", value="c1"),
                        Comparison(type="eq", key="code", value="c5"),
                    ],
                ),
            ],
        ),
        {"d1", "d5"},
    ),
]
"""On six documents d0 to d5 with the codes c0 to c5 of the years 2020 to 2025, every other one a draft."""


def test_every_store_is_in_this_suite() -> None:
    found = set()
    for use in registry.available("crawler.stores"):
        try:
            found.add(registry.find("crawler.stores", Store, use))  # type: ignore[type-abstract]
        except ConfigError:
            continue
    assert found == {Milvus}


async def test_capabilities_tell_the_version_and_what_it_can_do(store: Milvus) -> None:
    capabilities = await store.capabilities()
    assert capabilities.version
    assert capabilities.embedded is store.settings.embedded
    await store.ping()


async def test_a_passage_comes_back_as_it_was_written(store: Milvus, name: str) -> None:
    written = document(
        name, ["Notice is thirty days."], group=("user:keycloak/alice",), attributes={"year": 7}
    )
    assert await store.write(written) == 1
    for hit in (
        (await store.search(name, query(), frozenset({ALICE})))[0],
        (await store.passages(name, "doc", "r1", frozenset({ALICE})))[0],
    ):
        assert (hit.content, hit.headings) == ("Notice is thirty days.", ("Leave", "Notice"))
        assert (hit.document_id, hit.revision, hit.index, hit.acl_key) == ("doc", "r1", 0, ALICE)
        assert (hit.start, hit.end, hit.page_first, hit.page_last) == (0, 22, 1, 1)
        assert hit.attributes["year"] == 7
        assert hit.attributes["filename"] == "handbook.pdf"
        assert 0 <= hit.score <= 1


async def test_creating_again_is_harmless_and_another_shape_is_refused(store: Milvus, name: str) -> None:
    await store.write(document(name, ["kept"]))
    retrieval: Retrieval = "hybrid" if (await store.capabilities()).hybrid else "dense"
    await store.create(name, dimension=DIMENSION, metric="COSINE", retrieval=retrieval)
    assert len(await store.passages(name, "doc", "r1", EVERYONE)) == 1
    with pytest.raises(StoreRefused):
        await store.create(name, dimension=DIMENSION + 1, metric="COSINE", retrieval=retrieval)
    with pytest.raises(StoreRefused):
        await store.create(name, dimension=DIMENSION, metric="IP", retrieval=retrieval)


async def test_two_who_create_the_same_collection_at_once_both_succeed(store: Milvus) -> None:
    name = f"vs_{uuid4().hex}"
    try:
        await asyncio.gather(
            *(store.create(name, dimension=4, metric="COSINE", retrieval="dense") for _ in range(3))
        )
        assert await store.search(name, Query(text="", vector=(1.0, 0, 0, 0)), EVERYONE) == []
    finally:
        await store.drop(name)


async def test_dropping_twice_is_harmless_and_an_unknown_collection_is_refused(store: Milvus) -> None:
    await store.drop("vs_never_made")
    await store.drop("vs_never_made")
    with pytest.raises(StoreRefused) as refused:
        await store.search("vs_never_made", query(), EVERYONE)
    assert "vs_never_made" not in str(refused.value)


@pytest.mark.parametrize("bad", ["", "a-b", "1a", "a b", 'a" or', "ä", "a" * 256])
async def test_a_name_that_milvus_may_not_take_is_never_sent(store: Milvus, bad: str) -> None:
    with pytest.raises(ValueError, match="physical name"):
        await store.drop(bad)


@pytest.mark.parametrize("ranker", RANKERS)
async def test_only_what_the_audience_admits_is_found(store: Milvus, name: str, ranker: Ranker) -> None:
    if ranker == "bm25" and not (await store.capabilities()).hybrid:
        pytest.skip("the server has no BM25")
    for number, group in enumerate([None, ("user:keycloak/alice",), ("user:keycloak/bob",)]):
        await store.write(document(name, ["notice period"], document_id=f"d{number}", group=group))

    async def seen(audience: set[str]) -> set[str]:
        return documents(await store.search(name, query(ranker=ranker), frozenset(audience)))

    assert await seen({"everyone", ALICE, BOB}) == {"d0", "d1", "d2"}
    assert await seen({"everyone", ALICE}) == {"d0", "d1"}
    assert await seen({BOB}) == {"d2"}
    assert await seen({audience_key(["user:keycloak/carol"])}) == set()
    assert await seen(set()) == set()
    assert len(await store.passages(name, "d1", "r1", frozenset({ALICE}))) == 1
    assert await store.passages(name, "d1", "r1", frozenset({"everyone", BOB})) == []
    assert await store.passages(name, "d1", "r1", frozenset()) == []


@pytest.mark.parametrize("ranker", RANKERS)
async def test_a_filter_cannot_reach_past_the_audience(store: Milvus, name: str, ranker: Ranker) -> None:
    if ranker == "bm25" and not (await store.capabilities()).hybrid:
        pytest.skip("the server has no BM25")
    await store.write(document(name, ["notice"], document_id="mine", attributes={"code": "x"}))
    await store.write(
        document(
            name, ["notice"], document_id="hers", group=("user:keycloak/alice",), attributes={"code": "y"}
        )
    )
    widening = Compound(
        type="or",
        filters=[
            Comparison(type="eq", key="code", value="y"),
            Comparison(type="ne", key="code", value='") or (1 == 1) or ("'),
        ],
    )
    assert documents(await store.search(name, query(ranker=ranker, filters=widening), EVERYONE)) == {"mine"}


async def test_an_audience_that_is_not_made_of_keys_is_never_sent(store: Milvus, name: str) -> None:
    for key in ("", "*", 'everyone"] or id != "', "EVERYONE", "0" * 31):
        with pytest.raises(ValueError, match="audience"):
            await store.search(name, query(), frozenset({key}))


async def test_any_string_in_a_filter_finds_exactly_its_row(store: Milvus, name: str) -> None:
    for number, value in enumerate(NASTY):
        await store.write(
            document(name, ["notice"], document_id=f"d{number}", title=value, attributes={"code": value})
        )
    for number, value in enumerate(NASTY):
        for key in ("code", "title"):
            found = await store.search(
                name, query(filters=Comparison(type="eq", key=key, value=value)), EVERYONE
            )
            assert documents(found) == {f"d{number}"}, (key, value)


async def test_filters_compare_built_in_and_declared_fields(store: Milvus, name: str) -> None:
    for number in range(6):
        attributes = {"code": f"c{number}", "year": 2020 + number, "draft": number % 2 == 0}
        await store.write(document(name, ["notice"], document_id=f"d{number}", attributes=attributes))
    for condition, expected in COMPARISONS:
        found = await store.search(name, query(filters=condition), EVERYONE)
        assert documents(found) == expected, condition


async def test_the_page_of_a_filter_is_any_of_the_passage_span(store: Milvus, name: str) -> None:
    await store.write(document(name, [f"notice {n}" for n in range(5)]))

    async def pages(kind: str, value: object) -> list[int]:
        filters = Comparison.model_validate({"type": kind, "key": "page", "value": value})
        return sorted(
            hit.page_first or 0 for hit in await store.search(name, query(filters=filters), EVERYONE)
        )

    assert await pages("eq", 3) == [3]
    assert await pages("ne", 3) == [1, 2, 4, 5]
    assert await pages("lte", 2) == [1, 2]
    assert await pages("gt", 3) == [4, 5]
    assert await pages("in", [1, 5, 9]) == [1, 5]


async def test_an_unknown_field_is_named_in_the_error(store: Milvus, name: str) -> None:
    with pytest.raises(FilterError) as refused:
        await store.search(name, query(filters=Comparison(type="eq", key="acl_key", value="x")), EVERYONE)
    assert refused.value.param == "acl_key"


async def test_writing_again_is_harmless(store: Milvus, name: str) -> None:
    written = document(name, ["one", "two", "three"])
    for _ in range(3):
        assert await store.write(written) == 3
    assert [hit.content for hit in await store.passages(name, "doc", "r1", EVERYONE)] == [
        "one",
        "two",
        "three",
    ]


async def test_remove_takes_every_revision_but_the_one_to_keep(store: Milvus, name: str) -> None:
    for revision in ("r1", "r2", "r3"):
        await store.write(document(name, [f"notice {revision}"], revision=revision))
    await store.write(document(name, ["notice"], document_id="other"))
    await store.remove(name, "doc", keep="r2")
    found = await store.search(name, query(), EVERYONE)
    assert {(hit.document_id, hit.revision) for hit in found} == {("doc", "r2"), ("other", "r1")}
    await store.remove(name, "doc")
    await store.remove(name, "doc")
    assert documents(await store.search(name, query(), EVERYONE)) == {"other"}


async def test_passages_are_counted_by_document_and_revision(store: Milvus, name: str) -> None:
    await store.write(document(name, ["one", "two"], document_id="a", revision="r1"))
    await store.write(document(name, ["one", "two", "three"], document_id="a", revision="r2"))
    await store.write(document(name, ["one"], document_id="b", group=("user:keycloak/alice",)))
    await store.write(document(name, ["one", "two"], document_id="a", revision="r1"))
    assert await store.count(name) == 6
    assert await store.count(name, "a", "r2") == 3
    assert await store.count(name, "b") == 1
    assert await store.count(name, "c") == 0
    await store.remove(name, "a", keep="r2")
    assert (await store.count(name), await store.count(name, "a", "r1")) == (4, 0)


async def test_passages_come_in_order_by_pages_and_up_to_the_limit(store: Milvus, name: str) -> None:
    await store.write(document(name, [f"part {n}" for n in range(1203)]))
    passages = await store.passages(name, "doc", "r1", EVERYONE, limit=2000)
    assert [hit.index for hit in passages] == list(range(1203))
    spanned = await store.passages(name, "doc", "r1", EVERYONE, pages=(600, 603))
    assert [hit.page_first for hit in spanned] == [600, 601, 602, 603]
    assert len(await store.passages(name, "doc", "r1", EVERYONE)) == 1000
    assert await store.passages(name, "doc", "r9", EVERYONE) == []


async def test_hybrid_finds_a_rare_word_that_the_embedding_misses(store: Milvus, name: str) -> None:
    if not (await store.capabilities()).hybrid:
        pytest.skip("the server has no BM25")
    texts = [f"working hours and holidays, part {n}" for n in range(80)]
    texts[77] = "the form ZX-4711 is handed in at the office"
    await store.write(document(name, texts))
    expectations: dict[Ranker, bool] = {"rrf": True, "bm25": True, "dense": False}
    for ranker, expected in expectations.items():
        found = await store.search(
            name,
            query("where is form ZX-4711", ranker=ranker, limit=3),
            EVERYONE,
        )
        assert (77 in {hit.index for hit in found}) is expected, ranker


async def test_scores_fall_and_stay_within_0_and_1(store: Milvus, name: str) -> None:
    await store.write(document(name, [f"notice {'period ' * n}" for n in range(20)]))
    rankers: tuple[Ranker, ...] = RANKERS if (await store.capabilities()).hybrid else ("dense",)
    for ranker in rankers:
        scores = [
            hit.score for hit in await store.search(name, query("notice period", ranker=ranker), EVERYONE)
        ]
        assert len(scores) == 20
        assert scores == sorted(scores, reverse=True)
        assert 0 < scores[-1] <= scores[0] <= 1


async def test_in_a_collection_without_keywords_rrf_is_dense_and_bm25_is_refused(store: Milvus) -> None:
    name = f"vs_{uuid4().hex}"
    await store.create(name, dimension=DIMENSION, metric="COSINE", retrieval="dense")
    try:
        await store.write(document(name, ["one", "two"]))
        by_rrf = await store.search(name, query(ranker="rrf"), EVERYONE)
        by_dense = await store.search(name, query(ranker="dense"), EVERYONE)
        assert by_rrf == by_dense
        assert len(by_rrf) == 2
        with pytest.raises(StoreError, match="keyword"):
            await store.search(name, query(ranker="bm25"), EVERYONE)
    finally:
        await store.drop(name)


async def test_a_query_vector_of_another_model_is_refused(store: Milvus, name: str) -> None:
    for wrong in (None, (1.0,) * (DIMENSION + 1)):
        with pytest.raises(StoreRefused, match="embedding"):
            await store.search(name, Query(text="x", vector=wrong), EVERYONE)


async def test_concurrent_first_use_opens_one_connection(
    store: Milvus, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[MilvusSettings] = []

    def counted(settings: MilvusSettings) -> Any:
        opened.append(settings)
        return open_client(settings)

    monkeypatch.setattr("crawler.stores.milvus.open_client", counted)
    await asyncio.gather(*(store.ping() for _ in range(20)))
    assert len(opened) == 1


async def test_four_writers_at_once_lose_nothing(store: Milvus, name: str) -> None:
    async def writer(number: int) -> None:
        for part in range(6):
            await store.write(document(name, ["notice"] * 40, document_id=f"w{number}-{part}"))

    await asyncio.gather(*(writer(number) for number in range(4)))
    for number in range(4):
        for part in range(6):
            assert len(await store.passages(name, f"w{number}-{part}", "r1", EVERYONE)) == 40


async def test_reading_while_writing_neither_fails_nor_loses_what_was_acknowledged(
    store: Milvus, name: str
) -> None:
    await store.write(document(name, ["notice"] * 20, document_id="first"))

    async def write() -> None:
        for part in range(10):
            await store.write(document(name, ["notice"] * 50, document_id=f"d{part}"))

    writing = asyncio.create_task(write())
    while not writing.done():
        assert len(await store.passages(name, "first", "r1", EVERYONE)) == 20
        assert await store.search(name, query(limit=5), EVERYONE)
    await writing
