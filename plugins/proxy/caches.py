"""What is kept to answer sooner: rounds of answers in LiteLLM's response cache, and questions' vectors."""

from __future__ import annotations

import hashlib
import hmac
import json
from array import array
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import litellm
from litellm.litellm_core_utils.model_param_helper import ModelParamHelper
from litellm.proxy import proxy_server
from litellm.router import Router

from plugins.core.identity import Principal
from plugins.core.metrics import CACHED_ROUNDS
from plugins.core.ports import Scope

State = Callable[[Principal, frozenset[str] | None], Awaitable[str | None]]
"""What the principal may read of these collections (None = of all), and how it stands; None: not known."""

UNCACHED = {"no-cache": True, "no-store": True}
"""LiteLLM's response cache is neither asked nor told."""
PREFIX = "collections:"
"""Of all our keys in it."""
CONTROLS = ("no-cache", "no-store", "s-maxage", "s-max-age", "use-cache")
"""What a client may say of the cache. How long answers are kept is the operator's to say."""
FALLBACKS = ("fallbacks", "context_window_fallbacks", "content_policy_fallbacks")
"""Where a client may say what LiteLLM writes over a request that failed: its `cache`, too."""
MOCKS = ("mock_response", "mock_tool_calls")
"""What LiteLLM answers with instead of asking a model."""
ELSEWHERE = frozenset({"cache", "litellm_metadata", "metadata", "proxy_server_request", "rag", "stream"})
"""Fields of a request that change no model's answer, or are in the key in another way."""


async def control(
    state: State | None,
    principal: Principal,
    scope: Scope,
    data: Mapping[str, Any],
    models: Sequence[str],
) -> dict[str, Any]:
    """LiteLLM's ``cache`` for all rounds of a request: in a namespace that only those share who may read the
    same, of collections that stand as they do now.

    LiteLLM's own key holds the messages, so the passages that were found for this caller just now; the
    namespace is for what is asked before anything was found, and lest that ever be all that is between two
    people. It is made with the master key: who knows what is in it cannot name it.

    Args:
        state: None where nobody can tell.
        principal: Who asks.
        scope: What its searches are narrowed to.
        data: The request; what LiteLLM's key leaves out of it is in the namespace.
        models: All that its rounds ask. LiteLLM's key has their names, the namespace what is behind them.
    """
    secret, router = proxy_server.master_key, proxy_server.llm_router
    if state is None or not secret or router is None or not is_exact():
        return dict(UNCACHED)
    if (readable := await state(principal, scope.collections)) is None:
        return dict(UNCACHED)
    covered = ModelParamHelper.get_all_llm_api_params()
    body = (data.get("proxy_server_request") or {}).get("body") or {}
    others = {name: value for name, value in body.items() if name not in covered | ELSEWHERE}
    narrowed = [
        None if scope.collections is None else sorted(scope.collections),
        repr(scope.filters),
        scope.max_num_results,
        repr(scope.ranking_options),
    ]
    said = data["cache"] if isinstance(data.get("cache"), dict) else {}
    behind = [fingerprint_of(router, model) for model in models]
    return {
        **{name: said[name] for name in CONTROLS if name in said},
        "namespace": PREFIX + _sealed(secret, [readable, narrowed, behind, others]),
    }


def fingerprint_of(router: Router, model: str) -> str:
    """Of the deployments behind the name: another model, or another place of it, has another."""
    deployments = router.get_model_list(model_name=model) or ()
    params = [dict(deployment.get("litellm_params") or {}) for deployment in deployments]
    told = json.dumps([model, sorted(json.dumps(each, sort_keys=True, default=repr) for each in params)])
    return hashlib.sha256(told.encode()).hexdigest()


def is_exact() -> bool:
    """Whether LiteLLM has a response cache that answers equal requests alone: a semantic one answers those
    that are alike, and knows no namespaces."""
    return litellm.cache is not None and "semantic" not in str(litellm.cache.type)


def fence(data: dict[str, Any], *, ours: bool = False) -> None:
    """Take out of a request what names a key of the cache: nobody reads or writes another's by its name,
    which a cached answer's headers tell. Where the client says what the model answers, which LiteLLM's key
    leaves out, it is kept for nobody.

    Args:
        data: The request.
        ours: Whether its answer belongs under a key of ours; else only our keys are taken out.
    """
    for entry in _fallbacks(data):
        if ours:
            entry.pop("cache", None)  # that of the request stays in force
        _fence(entry, ours)
    _fence(data, ours)


def _fallbacks(data: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every mapping in them, however deep."""
    override = data.get("router_settings_override")
    holders = (data, override if isinstance(override, dict) else {})
    found = [holder.get(name) for holder in holders for name in FALLBACKS]
    while found:
        part = found.pop()
        if isinstance(part, dict):
            yield part
        if isinstance(part, dict | list):
            found.extend(part.values() if isinstance(part, dict) else part)


def _fence(data: dict[str, Any], ours: bool) -> None:
    if any(name in data for name in MOCKS):
        data["cache"] = dict(UNCACHED)
    named = (
        (data, "cache_key"),
        (data.get("cache"), "namespace"),
        (data.get("metadata"), "redis_namespace"),
        (data.get("litellm_params"), "preset_cache_key"),
    )
    for holder, name in named:
        if isinstance(holder, dict) and name in holder and (ours or PREFIX in str(holder[name])):
            del holder[name]


def count(response: Any, cache: Mapping[str, Any]) -> None:
    """Count a round that could come from the cache.

    Args:
        response: LiteLLM's: a stream or a plain answer.
        cache: As the round was asked with.
    """
    if "namespace" in cache and cache.get("no-cache") is not True:
        hit = (getattr(response, "_hidden_params", None) or {}).get("cache_hit")
        CACHED_ROUNDS.labels("hit" if hit else "miss").inc()


def for_vectors(fingerprint: str) -> dict[str, Any]:
    """LiteLLM's ``cache`` for embeddings of questions by the deployments of this fingerprint."""
    secret = proxy_server.master_key
    if litellm.cache is None or (secret and is_exact()):
        return {"namespace": f"{PREFIX}vectors:{_sealed(secret or '', [fingerprint])}"}
    return dict(UNCACHED)


def _sealed(secret: str, content: Sequence[Any]) -> str:
    told = json.dumps(content, sort_keys=True, default=repr)
    return hmac.new(secret.encode(), told.encode(), hashlib.sha256).hexdigest()


class Vectors:
    """Embeddings of this process, the least recently used given up first. It holds no texts.

    Args:
        max_bytes: Of them all; 0 = none are kept.
    """

    ENTRY_BYTES = 400
    """Of an entry beside its numbers, about."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._kept: OrderedDict[bytes, array[float]] = OrderedDict()

    def get(self, fingerprint: str, text: str) -> list[float] | None:
        key = self._key(fingerprint, text)
        vector = self._kept.get(key)
        if vector is None:
            return None
        self._kept.move_to_end(key)
        return vector.tolist()

    def put(self, fingerprint: str, text: str, vector: Sequence[float]) -> None:
        key, numbers = self._key(fingerprint, text), array("d", vector)
        if (old := self._kept.pop(key, None)) is not None:
            self._bytes -= self._size(old)
        self._kept[key] = numbers
        self._bytes += self._size(numbers)
        while self._bytes > self._max_bytes:
            _, oldest = self._kept.popitem(last=False)
            self._bytes -= self._size(oldest)

    def _size(self, vector: array[float]) -> int:
        return len(vector) * vector.itemsize + self.ENTRY_BYTES

    @staticmethod
    def _key(fingerprint: str, text: str) -> bytes:
        return hashlib.sha256(f"{fingerprint}\0{text}".encode(errors="surrogatepass")).digest()
