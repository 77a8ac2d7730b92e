"""The pipelines of the configuration, as clients see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from crawler.crawler import CrawlerConfig, settings_schema
from crawler.settings import validate
from plugins.core.pipeline_shapes import PipelineList, PipelineView


def read_pipelines(configured: Mapping[str, Mapping[str, Any]]) -> dict[str, CrawlerConfig]:
    """The pipelines by their names.

    Raises:
        ConfigError: With the mistakes of one.
    """
    return {
        name: validate(CrawlerConfig, settings, f"pipelines.{name}") for name, settings in configured.items()
    }


def pipeline_list(pipelines: Mapping[str, CrawlerConfig]) -> PipelineList:
    return PipelineList(data=[_view(name, config) for name, config in pipelines.items()])


def _view(name: str, config: CrawlerConfig) -> PipelineView:
    wanted = config.extractor.settings.get("metadata_schema")
    return PipelineView(
        id=name,
        description=config.description,
        formats=[part.use for part in config.formats],
        chunker=config.chunker.use,
        extractor=config.extractor.use,
        metadata_schema=wanted if isinstance(wanted, dict) else None,
        embedding_model=config.embedding_model,
        limits=config.limits.model_dump(mode="json"),
        schema=settings_schema(config),
    )
