"""The whole way of a document: stages, what is skipped, limits, progress, configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from unittest.mock import create_autospec

import jsonschema
import pytest

from crawler.contracts import Document, Page, Stage
from crawler.crawler import Crawler, CrawlerConfig, check, models, settings_schema
from crawler.errors import DocumentTooLarge, EmbeddingFailed, UnreadableDocument, UnsupportedFormat
from crawler.store import Store
from tests.unit.crawler.samples import SAMPLES, document


class Lengths:
    """Embeds a text as its length."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        self.batches.append(list(texts))
        return [[float(len(text))] for text in texts]


def crawler(store: Any = None, embedder: Any = None, **config: Any) -> Crawler:
    made = CrawlerConfig.model_validate(config)
    return Crawler(made, embedder or Lengths(), store or create_autospec(Store, instance=True))


@pytest.mark.parametrize("name", SAMPLES)
async def test_every_kind_of_file_arrives_in_the_store_with_vectors(name: str) -> None:
    store = create_autospec(Store, instance=True)
    crawled = await crawler(store).crawl_document(document(name))
    [written] = [call.args[0] for call in store.write.await_args_list]
    without = tuple(chunk.model_copy(update={"dense": None}) for chunk in written.chunks)
    assert written.model_copy(update={"chunks": without}) == crawled
    assert SAMPLES[name][2] in (crawled.markdown or "")
    assert crawled.metadata
    assert crawled.metadata["title"]
    assert all(chunk.dense for chunk in written.chunks)


async def test_the_vectors_of_a_long_document_are_not_held_all_at_once() -> None:
    store = create_autospec(Store, instance=True)
    seen: list[int] = []

    async def progress(stage: Stage, done: int, total: int | None) -> None:
        if stage == "embed":
            seen.append(done)

    markdown = "\n\n".join(f"# {n}\n\ntext" for n in range(1200))
    crawled = await crawler(store).crawl_document(document(markdown=markdown), progress)
    parts = [call.args[0].chunks for call in store.write.await_args_list]
    assert [len(part) for part in parts] == [512, 512, 176]
    assert [chunk.index for part in parts for chunk in part] == list(range(len(crawled.chunks)))
    assert all(chunk.dense for part in parts for chunk in part)
    assert (seen[0], seen[-1], seen == sorted(seen)) == (0, 1200, True)


async def test_what_is_embedded_is_the_title_the_headings_and_the_content() -> None:
    embedder = Lengths()
    await crawler(embedder=embedder).crawl_document(
        document(markdown="# A\n\none\n\n## B\n\ntwo", content=None)
    )
    assert embedder.batches == [["A\n# A\n\none", "A > B\n## B\n\ntwo"]]


async def test_convert_is_skipped_where_there_is_markdown() -> None:
    given = document(markdown="words", pages=(Page(number=7, start=0),), content=b"\x00 not readable")
    crawled = await crawler().crawl_document(given)
    assert crawled.chunks[0].content == "words"
    assert crawled.chunks[0].page_first == 7


async def test_extract_is_skipped_where_there_is_metadata() -> None:
    crawled = await crawler().crawl_document(document(metadata={"title": "Mine", "team": "x"}))
    assert crawled.metadata == {"title": "Mine", "team": "x"}


async def test_a_given_title_is_cut_so_that_passages_keep_their_room() -> None:
    crawled = await crawler().crawl_document(document(metadata={"title": "long " * 100}))
    assert crawled.metadata
    assert len(crawled.metadata["title"]) <= 120


async def test_progress_tells_each_stage_that_is_done_and_every_batch() -> None:
    seen: list[tuple[Stage, int, int | None]] = []

    async def progress(stage: Stage, done: int, total: int | None) -> None:
        seen.append((stage, done, total))

    markdown = "\n\n".join(f"# {n}\n\ntext" for n in range(5))
    await crawler(embedding_batch_size=2).crawl_document(document(markdown=markdown), progress)
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == [
        *("extract", "chunk", "embed", "store", "done")
    ]
    assert [done for stage, done, _ in seen if stage == "embed"] == [0, 2, 4, 5]


@pytest.mark.parametrize(
    ("fields", "limits", "error"),
    [
        ({"content": b""}, {}, UnreadableDocument),
        ({"content": b"\x7fELF\0", "source": "a.exe"}, {}, UnsupportedFormat),
        ({"content": b" \n"}, {}, UnreadableDocument),
        ({"content": b"too many"}, {"max_bytes": 7}, DocumentTooLarge),
        ({"markdown": "# a\n\nx\n\n# b\n\ny"}, {"max_chunks": 1}, DocumentTooLarge),
        ({"markdown": "x" * 10_001}, {"max_chunks": 1}, DocumentTooLarge),
        ({"markdown": "x", "pages": [{"number": 1, "start": 0}] * 3}, {"max_pages": 2}, DocumentTooLarge),
    ],
)
async def test_what_cannot_be_taken_never_reaches_the_store(
    fields: dict[str, Any], limits: dict[str, Any], error: type[Exception]
) -> None:
    store = create_autospec(Store, instance=True)
    with pytest.raises(error):
        await crawler(store, limits=limits).crawl_document(document(**fields))
    store.write.assert_not_called()


async def test_a_model_that_leaves_a_vector_out_fails_the_document() -> None:
    class Forgetful(Lengths):
        async def embed(self, texts: Sequence[str]) -> list[list[float]]:
            return (await super().embed(texts))[1:]

    store = create_autospec(Store, instance=True)
    with pytest.raises(EmbeddingFailed):
        await crawler(store, Forgetful()).crawl_document(document())
    store.write.assert_not_called()


async def test_preparing_twice_gives_the_same_chunks() -> None:
    first: Document = await crawler().prepare(document("pdf"))
    assert await crawler().prepare(document("pdf")) == first


def test_every_mistake_of_a_configuration_is_told_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_VARIABLE", raising=False)
    config = {
        "formats": [{"use": "text"}, {"use": "pdf", "max_byte": 1}, {"use": "cobol"}, {"colour": 1}],
        "chunker": {"use": "headings", "max_tokens": 1},
        "limits": {"max_bytes": "many", "timeout_s": "os.environ/NO_SUCH_VARIABLE"},
        "speed": 11,
    }
    mistakes = check(config, "pipelines.default")
    beginnings = [
        "pipelines.default.formats[1].max_byte: unknown setting",
        "pipelines.default.formats[2].use: `use: cobol`: no such plugin; there are: code",
        "pipelines.default.formats[3].use: field required",
        "pipelines.default.chunker.max_tokens: input should be greater than or equal to 64",
        "pipelines.default.limits.max_bytes: ",
        "pipelines.default.limits.timeout_s: the environment variable NO_SUCH_VARIABLE is not set",
        "pipelines.default.speed: unknown setting",
    ]
    assert len(mistakes) == len(beginnings)
    assert [b for b in beginnings if not any(m.startswith(b) for m in mistakes)] == []


@pytest.mark.parametrize(
    ("config", "mistake"),
    [
        ({"formats": []}, "x.formats: list should have at least 1 item, not 0"),
        ({"formats": "pdf"}, "x.formats: input should be a list"),
        ({"limits": "few"}, "x.limits: input should be a mapping"),
        ({"chunker": "headings"}, "x.chunker: input should be a mapping"),
    ],
)
def test_mistakes_are_told_in_the_words_of_yaml(config: dict[str, Any], mistake: str) -> None:
    assert check(config, "x") == [mistake]


def test_a_configuration_without_mistakes_has_none() -> None:
    assert check({}, "x") == []
    assert check({"formats": [{"use": "text"}], "limits": {"max_bytes": "5MiB"}}, "x") == []


async def test_what_a_pipeline_asked_for_can_be_filtered_by_and_the_uploaders_word_wins() -> None:
    found = {"title": "A", "amount": 7, "team": "found", "page": 9, "parties": ["x"], "note": "x" * 513}
    crawled = await crawler().crawl_document(document(metadata=found, attributes={"team": "given"}))
    assert crawled.attributes == {"amount": 7, "team": "given"}
    assert crawled.metadata == found


async def test_no_more_attributes_are_taken_from_a_document_than_a_row_has_room_for() -> None:
    found = {"title": "A"} | {f"key{number}": "ä" * 500 for number in range(100)}
    crawled = await crawler().crawl_document(document(metadata=found))
    assert 0 < len(crawled.attributes) < 50


def test_a_pipelines_settings_are_described_with_those_of_its_plugins() -> None:
    config = CrawlerConfig.model_validate({"formats": [{"use": "text"}], "chunker": {"use": "headings"}})
    schema = settings_schema(config)
    assert "max_tokens" in schema["$defs"]["chunker.headings"]["properties"]
    assert {"formats.text", "extractor.rules"} <= schema["$defs"].keys()
    assert "formats.pdf" not in schema["$defs"]
    assert schema["additionalProperties"] is False
    jsonschema.Draft202012Validator(schema).validate({"formats": [{"use": "text"}]})


def test_the_models_that_a_pipeline_asks_are_known_by_their_settings() -> None:
    config = CrawlerConfig.model_validate(
        {
            "embedding_model": "words",
            "extractor": {"use": "llm", "model": "reader"},
            "image_descriptions": {"model": "viewer"},
        }
    )
    assert models(config) == {
        "embedding_model": "words",
        "extractor.model": "reader",
        "image_descriptions.model": "viewer",
    }
    assert models(CrawlerConfig()) == {}
