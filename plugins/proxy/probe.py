"""LiteLLM's YAML as the proxy reads it, and one tiny request to a model or to Redis, without the proxy."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import litellm
from litellm import exceptions
from litellm._redis import get_redis_async_client
from litellm.proxy.auth.master_key_boot_check import (
    SafeMasterKey,
    UnsafeMasterKeyReason,
    master_key_boot_verdict,
)
from litellm.proxy.common_utils.config_includes import resolve_include_file_path, resolve_includes
from litellm.router import Router
from litellm.secret_managers.main import get_secret

from crawler.errors import ConfigError
from crawler.settings import read_yaml
from plugins.core.errors import ModelUnavailable, Upstream
from plugins.models import register

REFERENCE = "os.environ/"
TOOL = {
    "type": "function",
    "function": {
        "name": "search_documents",
        "description": "Search the documents.",
        "parameters": {
            "type": "object",
            "properties": {"query": {"type": "string"}},
            "required": ["query"],
        },
    },
}
QUESTION = "Search the documents for: notice period"
MAX_TOKENS = 200
"""Enough for a tool call of a model that thinks aloud before it."""
MODULE_SETTINGS = ("drop_params", "modify_params", "ssl_verify", "ssl_certificate")
"""Of `litellm_settings`: what decides whether a request works."""
REASONS: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.AuthenticationError, "the provider refuses the key: check `api_key`"),
    (exceptions.PermissionDeniedError, "the provider does not allow this key this model"),
    (exceptions.NotFoundError, "the provider does not know this model: check `model`, or pull it"),
    (exceptions.RateLimitError, "the provider's limit is reached, or its credit used up"),
    (exceptions.Timeout, "no answer in time"),
    (exceptions.ContextWindowExceededError, "its context is too short for one question"),
    (exceptions.BadRequestError, "the provider refuses the request: check `model` and its parameters"),
    (exceptions.ServiceUnavailableError, "the provider says that it is not available"),
    (exceptions.APIConnectionError, "it cannot be reached: check `api_base`, and that the server runs"),
    (exceptions.InternalServerError, "the provider's server fails"),
)
"""The first that fits: what providers write themselves may hold keys and addresses."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """An entry of the ``model_list``."""

    name: str
    params: Mapping[str, Any]
    """`litellm_params`, each ``os.environ/NAME`` replaced."""
    info: Mapping[str, Any]
    unset: tuple[str, ...]
    """The environment variables that it names and that are not set."""

    @property
    def model(self) -> str:
        """The provider and its name of the model: `ollama_chat/llama3.2`."""
        return str(self.params.get("model") or "")

    @property
    def provider(self) -> str:
        return self.model.partition("/")[0] if "/" in self.model else ""

    @property
    def wildcard(self) -> bool:
        return "*" in self.name or "*" in self.model

    @property
    def mode(self) -> str:
        """`chat`, `embedding` or another kind that LiteLLM knows."""
        given = self.info.get("mode")
        return str(given or (litellm.model_cost.get(self.model) or {}).get("mode") or "chat")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a chat model made of a question with one tool."""

    called: bool
    """It called the tool."""
    finished: bool
    """It came to an end by itself."""


async def read_proxy_config(path: Path) -> dict[str, Any]:
    """LiteLLM's YAML with what it includes; its `environment_variables` are set, as the proxy does.

    Raises:
        ConfigError: A file cannot be read.
    """

    async def read(location: str) -> Mapping[str, object]:
        return await asyncio.to_thread(read_yaml, Path(location))

    def resolve(entry: str, declared_in: str) -> str:
        return resolve_include_file_path(entry, declared_in, str(path))

    content = await asyncio.to_thread(read_yaml, path)
    try:
        merged = await resolve_includes(config=content, location=str(path), resolve=resolve, read=read)
    except ValueError as error:
        raise ConfigError([f"{path}: include: cannot be read"]) from error
    for name, value in mapping(merged, "environment_variables").items():
        os.environ[str(name)] = str(resolved(value) or "")
    return dict(merged)


def prepare(config: Mapping[str, Any]) -> None:
    """Make LiteLLM of this process like the proxy's in what decides whether a request works."""
    register()
    litellm.suppress_debug_info = True
    for name in MODULE_SETTINGS:
        if name in (settings := mapping(config, "litellm_settings")):
            setattr(litellm, name, resolved(settings[name]))


def deployments(config: Mapping[str, Any]) -> list[Deployment]:
    found = []
    for entry in config.get("model_list") or ():
        params = mapping(entry, "litellm_params")
        given = {key: resolved(value) for key, value in params.items()}
        unset = (
            str(v).removeprefix(REFERENCE) for k, v in params.items() if is_reference(v) and not given[k]
        )
        found.append(
            Deployment(
                name=str(entry.get("model_name") or ""),
                params={key: value for key, value in given.items() if value is not None},
                info=mapping(entry, "model_info"),
                unset=tuple(unset),
            )
        )
    return found


def master_key(config: Mapping[str, Any]) -> str:
    general = mapping(config, "general_settings")
    return str(resolved(general.get("master_key")) or os.environ.get("LITELLM_MASTER_KEY") or "")


def master_key_weakness(config: Mapping[str, Any]) -> str | None:
    """Why LiteLLM would refuse to start with this master key."""
    verdict = master_key_boot_verdict(
        master_key=master_key(config) or None,
        environment_master_key=os.environ.get("LITELLM_MASTER_KEY"),
        general_settings=mapping(config, "general_settings"),
        config_file_path=None,
        override_env_is_on=False,
        salt_key_is_set=False,
        database_is_configured=False,
    )
    if isinstance(verdict, SafeMasterKey):
        return None
    known = verdict.reason is UnsafeMasterKeyReason.PUBLICLY_KNOWN
    return "the master key is publicly known" if known else "the master key is not set"


def has_database(config: Mapping[str, Any]) -> bool:
    """Whether LiteLLM has a database of its own, for virtual keys."""
    given = resolved(mapping(config, "general_settings").get("database_url"))
    return bool(given or os.environ.get("DATABASE_URL"))


def redis_settings(config: Mapping[str, Any]) -> dict[str, Any] | None:
    """How LiteLLM connects to Redis; None where its YAML names none."""
    cache = mapping(mapping(config, "litellm_settings"), "cache_params")
    router = mapping(config, "router_settings")
    shared = mapping(mapping(config, "general_settings"), "coordination_redis")
    of_router = {k.removeprefix("redis_"): v for k, v in router.items() if k.startswith("redis_")}
    for found in (shared, cache if cache.get("type") == "redis" else {}, of_router):
        names = ("host", "port", "password", "username", "url", "ssl", "db")
        given = {name: resolved(found[name]) for name in names if found.get(name) is not None}
        if given:
            return given
    return {} if cache.get("type") == "redis" else None


async def ask(deployment: Deployment, timeout_s: float, *, tool: bool = True) -> Answer:
    """One question to a chat model, by default with a tool to call.

    Raises:
        ModelUnavailable: It does not answer; the message says why and holds no secret.
    """
    more: dict[str, Any] = {"tools": [TOOL]} if tool else {}
    messages: list[Any] = [{"role": "user", "content": QUESTION}]
    try:
        response: Any = await _router(deployment, timeout_s).acompletion(
            model=deployment.name, messages=messages, max_tokens=MAX_TOKENS, num_retries=0, **more
        )
    except Exception as error:  # providers raise what they like
        raise ModelUnavailable(_why(error)) from error
    choice = response.choices[0]
    calls = choice.message.tool_calls or ()
    called = any(call.function.name == TOOL["function"]["name"] for call in calls)  # type: ignore[index]
    return Answer(called=called, finished=choice.finish_reason != "length")


async def dimension(deployment: Deployment, timeout_s: float) -> int:
    """The length of the vector of a short text.

    Raises:
        ModelUnavailable: It does not answer; the message says why and holds no secret.
    """
    try:
        response: Any = await _router(deployment, timeout_s).aembedding(
            model=deployment.name, input=["notice period"], num_retries=0
        )
    except Exception as error:  # providers raise what they like
        raise ModelUnavailable(_why(error)) from error
    return len(response.data[0]["embedding"]) if response.data else 0


async def ping_redis(settings: Mapping[str, Any], timeout_s: float) -> None:
    """Answer, or raise Upstream with why."""
    try:
        client = get_redis_async_client(**settings)
        try:
            async with asyncio.timeout(timeout_s):
                await client.ping()
        finally:
            await client.aclose()
    except Exception as error:  # the client's many kinds of errors name addresses
        why = "it refuses the password" if "Auth" in type(error).__name__ else "it cannot be reached"
        raise Upstream(why) from error


def mapping(value: Any, name: str) -> dict[str, Any]:
    """A mapping inside a mapping; empty where there is none."""
    found = value.get(name) if isinstance(value, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}


def is_reference(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(REFERENCE)


def resolved(value: Any) -> Any:
    """A setting, from the environment where it says so."""
    return get_secret(value) if is_reference(value) else value


def _router(deployment: Deployment, timeout_s: float) -> Router:
    params = {**deployment.params, "timeout": timeout_s, "stream_timeout": timeout_s}
    return Router(
        model_list=[{"model_name": deployment.name, "litellm_params": params}],
        num_retries=0,
        disable_cooldowns=True,
    )


def _why(error: Exception) -> str:
    return next((words for kind, words in REASONS if isinstance(error, kind)), type(error).__name__)
