"""LiteLLM's custom provider `local`: hands each call to the model's file.

Their entries in the proxy's YAML need ``litellm_params: {model: local/<name>}`` and a ``model_info``,
which `/v1/model/info` shows to everyone::

    - model_name: extractive
      litellm_params: {model: local/extractive}
      model_info:
        mode: chat
        description: "Not a language model: quotes the best-matching sentences of the documents."
        supports_function_calling: true
        rag: true
    - model_name: local/minilm
      litellm_params: {model: local/minilm, additional_drop_params: [encoding_format, user]}
      model_info: {mode: embedding, output_vector_size: 384, max_input_tokens: 256}
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import litellm
from litellm.exceptions import BadRequestError, NotFoundError, ServiceUnavailableError
from litellm.llms.custom_llm import CustomLLM
from litellm.utils import custom_llm_setup

from crawler.errors import ConfigError
from crawler.registry import available, find

PROVIDER = "local"
PACKAGE = "plugins.models"


class Local(CustomLLM):
    """All models of the folder behind one provider; each is made at its first use and kept."""

    def __init__(self) -> None:
        super().__init__()
        self._models: dict[str, CustomLLM] = {}

    async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
        return await self._method(kwargs["model"], "acompletion")(*args, **kwargs)

    def astreaming(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(kwargs["model"], "astreaming")(*args, **kwargs)

    async def aembedding(self, *args: Any, **kwargs: Any) -> Any:
        return await self._method(kwargs["model"], "aembedding")(*args, **kwargs)

    def embedding(self, *args: Any, **kwargs: Any) -> Any:
        return self._method(kwargs["model"], "embedding")(*args, **kwargs)

    def _method(self, name: str, method: str) -> Callable[..., Any]:
        model = self._model(name)
        if getattr(type(model), method) is getattr(CustomLLM, method):
            route, other = "/v1/chat/completions", "/v1/embeddings"
            if method.endswith("embedding"):
                route, other = other, route
            raise BadRequestError(
                f"{name} is not a model for {route}; it is one for {other}.",
                model=name,
                llm_provider=PROVIDER,
            )
        return cast("Callable[..., Any]", getattr(model, method))

    def _model(self, name: str) -> CustomLLM:
        name = name.removeprefix(f"{PROVIDER}/")
        if name not in self._models:
            if name not in available(PACKAGE):
                known = ", ".join(f"{PROVIDER}/{model}" for model in available(PACKAGE))
                raise NotFoundError(
                    f"There is no model {PROVIDER}/{name}; there are: {known}",
                    model=name,
                    llm_provider=PROVIDER,
                )
            try:
                self._models[name] = find(PACKAGE, CustomLLM, name)()
            except ConfigError as error:
                raise ServiceUnavailableError(
                    f"{PROVIDER}/{name} cannot be loaded; the server's log says why.",
                    model=name,
                    llm_provider=PROVIDER,
                ) from error
        return self._models[name]


def register_provider() -> None:
    """Make `local/...` known to LiteLLM; harmless when repeated. Needed before the router is built."""
    if not any(item["provider"] == PROVIDER for item in litellm.custom_provider_map):
        litellm.custom_provider_map.append({"provider": PROVIDER, "custom_handler": Local()})
    custom_llm_setup()  # type: ignore[no-untyped-call]
