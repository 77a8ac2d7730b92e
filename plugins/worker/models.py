"""The models that stages of a document ask, and the pipelines of the YAML.

Whoever waits for a preview waits for this to load: the OpenAI SDK is loaded only where the worker is told how
to reach the proxy.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from crawler import registry
from crawler.contracts import Complete, Embedder
from crawler.crawler import CrawlerConfig
from crawler.errors import ConfigError
from crawler.settings import validate
from plugins.core import telemetry

if TYPE_CHECKING:
    from crawler.completions import Completions
    from crawler.embedders.openai import OpenAIEmbedder

Pipelines = Mapping[str, Mapping[str, Any]]
"""Their settings by name."""
LOCAL = "local/"
"""Models of this prefix are computed here; any other by the proxy."""


class NotConfigured(Exception):
    """A collection cannot be written to until the operator does what the text says; public."""


class Models:
    """The models that stages ask, and the pipelines; keeps what is costly to make: loaded models, clients."""

    def __init__(
        self,
        pipelines: Pipelines,
        proxy_url: str | None,
        api_key: SecretStr | None,
        before: Models | None = None,
    ) -> None:
        """`before`: of the configuration before; what is costly to make is its."""
        self._settings = pipelines
        self._proxy_url, self._api_key = proxy_url, api_key
        self._pipelines: dict[str, CrawlerConfig] = {}
        self._local: dict[str, Embedder] = before._local if before else {}
        self._remote: dict[tuple[str, int], OpenAIEmbedder] = {}
        self._completions: Completions | None = None
        # Else jobs in progress go on with the clients of before; without them they close by themselves.
        if before and (proxy_url, api_key) == (before._proxy_url, before._api_key):
            self._remote, self._completions = before._remote, before._completions

    async def close(self) -> None:
        for embedder in self._remote.values():
            await embedder.close()
        if self._completions is not None:
            await self._completions.close()

    def pipeline(self, name: str) -> CrawlerConfig:
        """Raises NotConfigured when the operator took it out of the settings."""
        if name not in self._pipelines:
            if name not in self._settings:
                raise NotConfigured(
                    f"The pipeline `{name}` of this collection is not configured any more. Ask the operator."
                )
            self._pipelines[name] = validate(CrawlerConfig, self._settings[name], f"pipelines.{name}")
        return self._pipelines[name]

    def complete(self, user: str) -> Complete | None:
        """Asks chat models on behalf of `user`; None where the worker is not told how to reach the proxy."""
        if self._completions is None:
            if self._proxy_url is None or self._api_key is None:
                return None
            from crawler.completions import Completions

            url = f"{self._proxy_url.rstrip('/')}/v1"
            self._completions = Completions(url, self._api_key.get_secret_value(), headers=telemetry.headers)
        return self._completions.for_user(user)

    def embedder(self, model: str, dimension: int, user: str) -> Embedder:
        """May load a model: blocks.

        Raises:
            NotConfigured: There is no such model here, or no way to the proxy.
        """
        if model.startswith(LOCAL):
            name = model.removeprefix(LOCAL)
            if name not in self._local:
                self._local[name] = local_embedder(name)
            return self._local[name]
        if self._proxy_url is None or self._api_key is None:
            raise NotConfigured(
                f"The embedding model `{model}` is reached through the proxy, and `worker.proxy_url` and "
                "`worker.api_key` are not configured. Ask the operator."
            )
        key = (model, dimension)
        if key not in self._remote:
            from crawler.embedders.openai import OpenAIEmbedder, OpenAISettings

            settings = OpenAISettings(
                base_url=f"{self._proxy_url.rstrip('/')}/v1",
                api_key=self._api_key,
                model=model,
                dimension=dimension,
            )
            self._remote[key] = OpenAIEmbedder(settings, headers=telemetry.headers)
        return self._remote[key].for_user(user)


def local_embedder(name: str) -> Embedder:
    """The class with `embed` in ``crawler/embedders/<name>.py``, with its own defaults.

    Raises:
        NotConfigured: There is no such embedder.
    """
    package = "crawler.embedders"
    if name not in registry.available(package):
        raise NotConfigured(
            f"The embedding model `{LOCAL}{name}` is not part of this version. Ask the operator."
        )
    module = importlib.import_module(f"{package}.{name}")
    for value in vars(module).values():
        if inspect.isclass(value) and value.__module__ == module.__name__ and hasattr(value, "embed"):
            plugin: Any = value
            embedder: Embedder = plugin()
            return embedder
    raise ConfigError([f"{package}.{name}: has no class with `embed`"])
