"""What a model of this proxy can do, as LiteLLM knows it or its Ollama server says."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from typing import Any

import litellm
from litellm.litellm_core_utils.get_model_cost_map import GetModelCostMap
from litellm.llms.custom_httpx.http_handler import get_async_httpx_client
from litellm.llms.ollama.common_utils import OllamaModelInfo
from litellm.proxy import proxy_server
from litellm.types.utils import LlmProviders

log = logging.getLogger(__name__)

OLLAMA = ("ollama", "ollama_chat")
ASK_S = 2.0
"""Seconds that an Ollama server has to say what its model can do."""
KNOWN_S, UNKNOWN_S = 300.0, 30.0
"""How long an answer counts, and that there was none."""
MAX_MODELS = 1000


class Capabilities:
    """What models can do. Ollama's answers are kept for some minutes."""

    def __init__(self) -> None:
        self._ollama: dict[tuple[str, str], tuple[float, bool | None]] = {}

    async def calls_functions(self, model: Any) -> bool:
        """Whether all deployments of a model name call functions; where nothing is known, they do."""
        for deployment in _deployments(model):
            said = (deployment.get("model_info") or {}).get("supports_function_calling")
            if said is None:
                said = await self._found(deployment.get("litellm_params") or {})
            if said is False:
                return False
        return True

    async def _found(self, params: Mapping[str, Any]) -> bool | None:
        name, provider = _provider(params)
        if provider in OLLAMA:
            return await self._of_ollama(name, params)
        info = _known(params)
        return None if info is None else info.get("supports_function_calling") is True

    async def _of_ollama(self, name: str, params: Mapping[str, Any]) -> bool | None:
        server = OllamaModelInfo.get_server_api_base(params.get("api_base"))
        until, said = self._ollama.get((server, name), (0.0, None))
        if time.monotonic() < until:
            return said
        said = await _shown(server, name, params.get("api_key"))
        if len(self._ollama) >= MAX_MODELS:  # anyone may ask for any name under a wildcard
            self._ollama.clear()
        until = time.monotonic() + (UNKNOWN_S if said is None else KNOWN_S)
        self._ollama[server, name] = (until, said)
        return said


def max_input_tokens(model: Any) -> int | None:
    """What the prompt and the answer of a model name may be together: the least of its deployments.

    `model_info.max_input_tokens`, else the `num_ctx` that its Ollama server is given, else what LiteLLM knows
    of the model; None where nothing is known.
    """
    limits = [limit for d in _deployments(model) if (limit := _limit(d)) is not None]
    return min(limits, default=None)


def _limit(deployment: Mapping[str, Any]) -> int | None:
    params = deployment.get("litellm_params") or {}
    said = (deployment.get("model_info") or {}).get("max_input_tokens") or params.get("num_ctx")
    if said is None and _provider(params)[1] not in OLLAMA:
        said = (_known(params) or {}).get("max_input_tokens")
    return said if isinstance(said, int) and said > 0 else None


def _deployments(model: Any) -> list[Mapping[str, Any]]:
    router = proxy_server.llm_router
    if router is None or not isinstance(model, str):
        return []
    return list(router.get_model_list(model_name=model) or ())


def _provider(params: Mapping[str, Any]) -> tuple[str, str]:
    """The model's name at its provider, and the provider; the latter is empty where LiteLLM knows none."""
    try:
        name, provider, _, _ = litellm.get_llm_provider(
            model=str(params.get("model") or ""), custom_llm_provider=params.get("custom_llm_provider")
        )
    except litellm.exceptions.BadRequestError:
        return "", ""
    return name, provider


def _known(params: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What LiteLLM's list says of a provider's model.

    Its router adds each configured model to the list that its own functions read, and these no longer tell an
    unknown model from one that can do nothing.
    """
    name, provider = _provider(params)
    known = GetModelCostMap.loaded_model_cost_map()
    entry = known.get(f"{provider}/{name}") or known.get(name) or {}
    # as `vertex_ai-language-models`
    return entry if provider and str(entry.get("litellm_provider")).startswith(provider) else None


async def _shown(server: str, name: str, api_key: str | None) -> bool | None:
    """Whether an Ollama server says that a model has tools; None where it does not say.

    https://github.com/ollama/ollama/blob/main/docs/api.md#show-model-information
    """
    client = get_async_httpx_client(LlmProviders.OLLAMA)
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with asyncio.timeout(ASK_S):
            response = await client.post(f"{server}/api/show", json={"model": name}, headers=headers)
        shown = response.json()
        capabilities = shown.get("capabilities")
    except Exception as error:  # noqa: BLE001 - whatever it is, the request goes on without knowing
        log.info("Ollama does not say what %s can do (%s): tools are offered", name, type(error).__name__)
        return None
    if isinstance(capabilities, list):
        return "tools" in capabilities
    # A server from before 2025 does not list them: as LiteLLM reads its template.
    return OllamaModelInfo._supports_function_calling(shown)
