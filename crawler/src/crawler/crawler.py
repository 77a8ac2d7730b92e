"""A document's way into a collection: convert, extract, chunk, embed, store."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ByteSize, ConfigDict, Field, ValidationError

from crawler import conversion, registry
from crawler.contracts import (
    Attachment,
    Chunk,
    Chunker,
    Complete,
    Converted,
    Document,
    Embedder,
    Extractor,
    Format,
    Page,
    Progress,
    Services,
    Source,
    Stage,
)
from crawler.descriptions import ImageDescriptions, describe
from crawler.errors import ConfigError, DocumentTooLarge, EmbeddingFailed, UnreadableDocument
from crawler.extractors.rules import MAX_TITLE
from crawler.formats import choose
from crawler.links import without_active_links
from crawler.properties import attributes_of
from crawler.settings import Settings, explain, from_environment, validate
from crawler.store import Store

T = TypeVar("T")

_CHUNKS_AT_ONCE = 512
"""Chunks whose vectors are held in memory at once."""
_CHARACTERS_PER_CHUNK = 4_000
"""More than any chunker makes: a longer text need not be cut to know that it has too many chunks."""


class PluginConfig(BaseModel):
    """``use:`` and the settings of the plugin that it names."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    use: str

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class Limits(conversion.Limits):
    """What one document may be, and what its conversion may use."""

    max_bytes: ByteSize = Field(default=ByteSize(100 * 2**20), ge=1)
    """Of the file, in bytes or as text (``100MiB``)."""
    max_pages: int = Field(default=5_000, ge=1)
    """Of a document with pages."""
    max_chunks: int = Field(default=20_000, ge=1)
    """Passages of one document."""


def _plugins(*names: str) -> tuple[PluginConfig, ...]:
    return tuple(PluginConfig(use=name) for name in names)


class CrawlerConfig(Settings):
    """How documents become passages."""

    description: str = Field(default="", max_length=2_000)
    """What it is for, for those who choose one."""
    embedding_model: str | None = Field(default=None, min_length=1)
    """The model of collections that are made with it and name none."""
    formats: tuple[PluginConfig, ...] = Field(
        default=_plugins(
            *("docx", "pptx", "xlsx", "xls", "odt", "odp", "ods", "rtf", "epub", "msg", "zip", "image"),
            # Told by its content, but by its name too: a file that is another kind was taken before.
            *("pdf", "html", "eml"),
            *("csv", "tsv", "json", "jsonl", "xml", "ipynb", "code", "markdown", "text"),
        ),
        min_length=1,
    )
    """Asked in their order; the first that accepts a file converts it."""
    extractor: PluginConfig = PluginConfig(use="rules")
    """Finds metadata."""
    chunker: PluginConfig = PluginConfig(use="headings")
    """Cuts the text into passages."""
    image_descriptions: ImageDescriptions | None = None
    """Pictures are described by a vision model of the proxy; absent = they are left out."""
    limits: Limits = Limits()
    """What one document may be and may cost."""
    embedding_batch_size: int = Field(default=32, ge=1, le=2048)
    """Chunks that are embedded between two reports of progress."""


_PACKAGES: dict[type[Any], str] = {
    Format: "crawler.formats",
    Extractor: "crawler.extractors",
    Chunker: "crawler.chunkers",
}


def check(config: Mapping[str, Any], where: str) -> list[str]:
    """Every mistake in ``config`` (as read from YAML), one line each: ``where.formats[1].max_bytes: ...``."""
    mistakes: list[str] = []
    resolved = from_environment(dict(config), mistakes, where)
    missing = {line.split(":")[0] for line in mistakes}
    found: list[str] = []
    try:
        CrawlerConfig.model_validate(resolved)
    except ValidationError as error:
        found += explain(error, where)
    parts: list[tuple[str, type[Any], Any]] = [
        ("extractor", Extractor, resolved.get("extractor")),
        ("chunker", Chunker, resolved.get("chunker")),
    ]
    formats = resolved.get("formats")
    if isinstance(formats, list):
        parts += [(f"formats[{index}]", Format, part) for index, part in enumerate(formats)]
    for name, contract, part in parts:
        if isinstance(part, dict) and isinstance(part.get("use"), str):
            try:
                _make(contract, PluginConfig.model_validate(part), f"{where}.{name}")
            except ConfigError as error:
                found += error.mistakes
    return mistakes + [line for line in found if line.split(":")[0] not in missing]


def models(config: CrawlerConfig) -> dict[str, str]:
    """The models of the proxy that the pipeline names, by the setting that names each."""
    descriptions = config.image_descriptions
    named = {
        "embedding_model": config.embedding_model,
        "extractor.model": config.extractor.settings.get("model"),
        "image_descriptions.model": descriptions.model if descriptions else None,
    }
    return {setting: model for setting, model in named.items() if isinstance(model, str)}


def settings_schema(config: CrawlerConfig) -> dict[str, Any]:
    """The JSON Schema of a pipeline's settings; those of the plugins that it names are in its ``$defs``, by
    ``formats.pdf``, ``extractor.rules``, ``chunker.headings``."""
    schema = CrawlerConfig.model_json_schema()
    kinds: list[tuple[str, type[Any], Sequence[PluginConfig]]] = [
        ("formats", Format, config.formats),
        ("extractor", Extractor, (config.extractor,)),
        ("chunker", Chunker, (config.chunker,)),
    ]
    for kind, contract, parts in kinds:
        for part in parts:
            settings = registry.settings_type(registry.find(_PACKAGES[contract], contract, part.use))
            name = f"{kind}.{part.use}"
            within = f"#/$defs/{name}/$defs/{{model}}"
            schema["$defs"][name] = settings.model_json_schema(ref_template=within)
    return schema


def make_formats(config: CrawlerConfig) -> list[Format[Any]]:
    """The formats that ``config`` names; quick, and loads no converter.

    Raises:
        ConfigError: A format is unknown or its settings are wrong.
    """
    return [_make(Format, part, f"formats[{index}]") for index, part in enumerate(config.formats)]  # type: ignore[type-abstract]


def _make(contract: type[T], config: PluginConfig, where: str) -> T:
    try:
        plugin = registry.find(_PACKAGES[contract], contract, config.use)
    except ConfigError as error:
        raise ConfigError([f"{where}.use: {line}" for line in error.mistakes]) from error
    make: Callable[[Settings], T] = plugin
    return make(validate(registry.settings_type(plugin), config.settings, where))


Keep = Callable[[Document, Sequence[Attachment]], Awaitable[None]]
"""Told after each costly stage what is known of the document by then, and after conversion which files were
in it. Who keeps that, and crawls the kept document the next time, repeats no stage."""


class Preparer:
    """The stages before embedding: convert, extract, chunk."""

    def __init__(self, config: CrawlerConfig, services: Services | None = None) -> None:
        self.config = config
        self.services = services or Services()
        self.formats = make_formats(config)
        self.extractor: Extractor[Any] = _make(Extractor, config.extractor, "extractor")  # type: ignore[type-abstract]
        self.chunker: Chunker[Any] = _make(Chunker, config.chunker, "chunker")  # type: ignore[type-abstract]

    async def prepare(
        self, document: Document, progress: Progress | None = None, keep: Keep | None = None
    ) -> Document:
        """The document with its markdown, metadata and chunks; ``content`` is dropped.

        Raises:
            UnsupportedFormat, UnreadableDocument, DocumentTooLarge: Its owner has to do something.
            ModelFailed: A model that the pipeline asks did not answer.
        """
        report, kept = progress or _silent, keep or _forget
        if document.markdown is None:
            document = await self._convert(document, report, kept)
        elif not document.chunks:
            harmless = await asyncio.to_thread(without_active_links, document.markdown)
            document = document.model_copy(update={"markdown": harmless})
        self._check_pages(document.pages)
        if document.metadata is None or "title" not in document.metadata:
            document = await self._extract(document, report)
            await kept(document, ())
        metadata = document.metadata or {}
        title = metadata.get("title")
        if not isinstance(title, str):
            title = _filename(document.source)
        attributes = {**attributes_of(metadata), **document.attributes}
        document = document.model_copy(
            update={"metadata": {**metadata, "title": title[:MAX_TITLE]}, "attributes": attributes}
        )
        if not document.chunks:
            document = await self._chunk(document, report)
            await kept(document, ())
        return document

    async def _convert(self, document: Document, report: Progress, keep: Keep) -> Document:
        limits = self.config.limits
        await report("convert", 0, None)
        content = document.content or b""
        if not content:
            raise UnreadableDocument("The file is empty.")
        if len(content) > limits.max_bytes:
            raise DocumentTooLarge(f"The file is larger than {limits.max_bytes.human_readable()}.")
        name = _filename(document.source)
        descriptions = self.config.image_descriptions
        source = Source(
            filename=name,
            content=content,
            media_type=document.media_type,
            with_images=descriptions is not None,
        )
        converted = await conversion.convert(
            choose(self.formats, source), source, limits, partial(report, "convert")
        )
        converted = await describe(converted, descriptions, self.services.complete)
        document = document.model_copy(
            update={
                "content": None,
                "markdown": converted.markdown,
                "pages": converted.pages,
                "properties": converted.metadata,
                "warnings": (*document.warnings, *converted.warnings),
            }
        )
        await keep(document, converted.attachments)
        await report("convert", len(converted.pages) or 1, len(converted.pages) or 1)
        return document

    async def _extract(self, document: Document, report: Progress) -> Document:
        await report("extract", 0, None)
        converted = Converted(
            markdown=document.markdown or "", pages=document.pages, metadata=document.properties
        )
        found = await self.extractor.extract(_filename(document.source), converted, self.services)
        metadata = {**found.metadata, **(document.metadata or {})}
        warnings = (*document.warnings, *found.warnings)
        return document.model_copy(update={"metadata": metadata, "warnings": warnings})

    def _check_pages(self, pages: Sequence[Page]) -> None:
        limit = self.config.limits.max_pages
        if len(pages) > limit:
            raise DocumentTooLarge(
                f"The document has {len(pages)} pages, more than the {limit} that this server accepts. "
                "Split it and upload the parts."
            )

    async def _chunk(self, document: Document, report: Progress) -> Document:
        await report("chunk", 0, None)
        limit, markdown = self.config.limits.max_chunks, document.markdown or ""
        if len(markdown) > limit * _CHARACTERS_PER_CHUNK:
            raise _too_many_chunks(limit)
        title = (document.metadata or {}).get("title")
        chunks = await self.chunker.chunk(markdown, document.pages, title, self.services)
        if not chunks:
            raise UnreadableDocument("The document has no text. Check the file and upload it again.")
        if len(chunks) > limit:
            raise _too_many_chunks(limit)
        await report("chunk", len(chunks), len(chunks))
        return document.model_copy(update={"chunks": tuple(chunks), "content": None})


def _too_many_chunks(limit: int) -> DocumentTooLarge:
    """Made where it is raised: in a variable there, it and the frames of its traceback would hold each other,
    and the document with them, until the next collection of all garbage."""
    return DocumentTooLarge(
        f"The document's text is larger than the {limit} passages that this server accepts. "
        "Split it and upload the parts."
    )


class Slots:
    """How many documents are at once prepared, and how many embedded. More are in work, so that neither waits
    for the other, nor for the store."""

    def __init__(self, each: int) -> None:
        self.prepare, self.embed = asyncio.Semaphore(each), asyncio.Semaphore(each)


class Crawler(Preparer):
    """All stages, up to the store. One object serves any number of documents of its event loop."""

    def __init__(
        self,
        config: CrawlerConfig,
        embedder: Embedder,
        store: Store[Any],
        complete: Complete | None = None,
        slots: Slots | None = None,
    ) -> None:
        super().__init__(config, Services(complete=complete, embedder=embedder))
        self.embedder = embedder
        self.store = store
        self.slots = slots or Slots(1)

    async def crawl_document(
        self, document: Document, progress: Progress | None = None, keep: Keep | None = None
    ) -> Document:
        """Convert, extract, chunk, embed and store ``document``; repeating it is harmless.

        Convert is skipped where the document has markdown, extract where its metadata has a title, chunk
        where it has chunks. Vectors go to the store as they come: however long the document, few are held.

        Returns:
            The document as it was stored, its chunks without their vectors.

        Raises:
            CrawlError: ``transient`` tells whether the same document may succeed later.
        """
        report = progress or _silent
        async with self.slots.prepare:
            document = await self.prepare(document, report, keep)
        await self._embed_and_store(document, report)
        await report("done", len(document.chunks), len(document.chunks))
        return document

    async def _embed_and_store(self, document: Document, report: Progress) -> None:
        title = (document.metadata or {}).get("title")
        chunks = document.chunks
        await report("embed", 0, len(chunks))
        for start in range(0, len(chunks), _CHUNKS_AT_ONCE):
            part = range(start, min(start + _CHUNKS_AT_ONCE, len(chunks)))
            embedded = await self._embed(chunks, part, title, report)
            if part.stop == len(chunks):
                await report("store", 0, len(chunks))
            await self.store.write(document.model_copy(update={"chunks": embedded}))

    async def _embed(
        self, chunks: Sequence[Chunk], part: range, title: str | None, report: Progress
    ) -> tuple[Chunk, ...]:
        embedded: list[Chunk] = []
        size = self.config.embedding_batch_size
        for start in range(part.start, part.stop, size):
            batch = chunks[start : min(start + size, part.stop)]
            async with self.slots.embed:
                vectors = await self.embedder.embed([chunk.indexed_text(title) for chunk in batch])
            if len(vectors) != len(batch):
                raise EmbeddingFailed
            embedded += [
                chunk.model_copy(update={"dense": tuple(vector)})
                for chunk, vector in zip(batch, vectors, strict=True)
            ]
            await report("embed", part.start + len(embedded), len(chunks))
        return tuple(embedded)


async def _silent(stage: Stage, done: int, total: int | None) -> None:
    """For who does not want to know."""


async def _forget(document: Document, attachments: Sequence[Attachment]) -> None:
    """For who does not resume."""


def _filename(source: str) -> str:
    return source.replace("\\", "/").rpartition("/")[2] or source
