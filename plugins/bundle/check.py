"""What is wrong with the configuration, all of it at once, before anything is started."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from crawler import registry
from crawler.crawler import CrawlerConfig, models
from crawler.crawler import check as check_pipeline
from crawler.errors import ConfigError
from crawler.settings import read_yaml, validate
from plugins.bundle.resolve import resolve
from plugins.collections.rights import Rights
from plugins.collections.storage import check_store, find_originals
from plugins.core.config import Config, load, locate
from plugins.core.errors import InvalidRequest
from plugins.core.identity import canonical_subject
from plugins.core.ports import IdentitySource, Tool

AUTHENTICATE = "plugins.entry.authenticate"
HOOKS = "plugins.entry.hooks"


def check(folder: Path, proxy_config: Path | None) -> list[str]:
    """Every mistake in our folder and in what LiteLLM's YAML says of us; empty when there is none."""
    config, mistakes, wrong = readable(folder)
    if config:
        mistakes += check_config(config, wrong)
    if proxy_config:
        mistakes += check_proxy(proxy_config, set(config.chat.profiles) if config and not wrong else None)
    if proxy_config and config and "pipelines" not in wrong:
        lines = check_models(config, proxy_config)
        mistakes += [locate(line, config.files, config.folder) for line in lines]
    return mistakes


def readable(folder: Path) -> tuple[Config | None, list[str], set[str]]:
    """What of our folder can be read, the mistakes of the rest, and the keys that are left out for them."""
    try:
        return load(folder), [], set()
    except ConfigError as error:
        mistakes = error.mistakes
    wrong = {key for key in Config.model_fields for line in mistakes if re.search(rf": {key}[.\[:]", line)}
    try:
        config = load(folder, wrong)  # what is right by itself may be wrong to the parts
    except ConfigError:
        return None, mistakes, wrong
    return (
        config,
        mistakes,
        wrong | set(Config.model_fields) - set(config.files),
    )  # may be in a file that is no YAML


def check_config(config: Config, left_out: Collection[str] = ()) -> list[str]:
    """What the settings models alone cannot see: plugins, subjects, pipelines, prompts, profiles.

    Args:
        config: The configuration.
        left_out: Its keys that are not those of the files.
    """
    mistakes: list[str] = []

    def attempt(action: Any, *arguments: Any) -> None:
        try:
            action(*arguments)
        except ConfigError as error:
            mistakes.extend(locate(line, config.files, config.folder) for line in error.mistakes)

    attempt(resolve, "plugins.tools", Tool, config.tools, "tools")
    attempt(check_store, config)
    attempt(find_originals, config.storage)
    if "identity" not in left_out:
        sources = config.identity.sources
        attempt(resolve, "plugins.auth", IdentitySource, sources, "identity.sources")
        attempt(Rights, config)
        mistakes.extend(locate(line, config.files, config.folder) for line in check_subjects(config))
    for name, pipeline in config.pipelines.items():
        lines = check_pipeline(pipeline, f"pipelines.{name}")
        mistakes.extend(locate(line, config.files, config.folder) for line in lines)
    if not {"pipelines", "worker"} & set(left_out):
        mistakes.extend(locate(line, config.files, config.folder) for line in check_way_to_models(config))
    if not {"chat", "tools"} & set(left_out):
        mistakes.extend(locate(line, config.files, config.folder) for line in check_chat(config))
    return mistakes


def check_subjects(config: Config) -> Iterator[str]:
    """That each allowance and each budget names subjects of a source that there is."""
    names = {source.name or source.use.rpartition(".")[2] for source in config.identity.sources}
    named = {
        "identity.allowances": [entry.subjects for entry in config.identity.allowances],
        "chat.budgets": [entry.subjects for entry in config.chat.budgets],
        "limits.quotas": [entry.subjects for entry in config.limits.quotas],
        "worker.priorities": [entry.subjects for entry in config.worker.priorities],
    }
    for key, entries in named.items():
        for number, subjects in enumerate(entries):
            for index, text in enumerate(subjects):
                try:
                    canonical_subject(text, names)
                except InvalidRequest as error:
                    yield f"{key}[{number}].subjects[{index}]: {error.message}"


def named_models(config: Config) -> Iterator[tuple[str, str]]:
    """The models that collections need by this configuration, each after the setting that names it; pipelines
    with mistakes name none."""
    usual = False
    for name, settings in config.pipelines.items():
        try:
            pipeline = validate(CrawlerConfig, settings, "")
        except ConfigError:
            continue
        usual = usual or pipeline.embedding_model is None
        for setting, model in models(pipeline).items():
            yield f"pipelines.{name}.{setting}", model
    if usual and "collections" in config.files:  # else nobody was given the right to make any
        yield "collections.embedding_model", config.collections.embedding_model


def check_way_to_models(config: Config) -> Iterator[str]:
    """That the worker is told how to ask the chat models that pipelines name."""
    for setting, model in named_models(config):
        if setting.endswith(".model") and not (config.worker.proxy_url and config.worker.api_key):
            yield f"{setting}: to ask `{model}`, set worker.proxy_url and worker.api_key"


def check_models(config: Config, path: Path) -> Iterator[str]:
    """That LiteLLM's YAML has the models that collections need. One that cannot be read, or whose models may
    be in LiteLLM's database, has none to miss."""
    try:
        content = read_yaml(path)
    except ConfigError:
        return
    in_database = (content.get("general_settings") or {}).get("store_model_in_db")
    if in_database or os.environ.get("STORE_MODEL_IN_DB", "").strip().lower() == "true":
        return
    aliases = (content.get("router_settings") or {}).get("model_group_alias") or {}
    known = [str(entry.get("model_name", "")) for entry in content.get("model_list") or []] + list(aliases)
    for setting, model in named_models(config):
        if not any(fnmatchcase(model, name) for name in known):
            yield f"{setting}: there is no model `{model}` in model_list"


def check_work(config: Config) -> list[str]:
    """What of a configuration a worker would find wrong; it knows neither tools nor identity sources."""
    lines = [*check_subjects(config), *check_way_to_models(config)]
    for name, pipeline in config.pipelines.items():
        lines += check_pipeline(pipeline, f"pipelines.{name}")
    return [locate(line, config.files, config.folder) for line in lines]


def check_against(config: Config, path: Path) -> list[str]:
    """What of a configuration without mistakes does not go with LiteLLM's YAML: the models that collections
    need, and the profiles that models name."""
    try:
        models = read_yaml(path).get("model_list") or []
    except ConfigError:
        return []
    mistakes = [locate(line, config.files, config.folder) for line in check_models(config, path)]
    for index, model in enumerate(models):
        lines = check_model(model, f"model_list[{index}]", set(config.chat.profiles))
        mistakes += [f"{path}: {line}" for line in lines]
    return mistakes


def check_chat(config: Config) -> list[str]:
    mistakes = []
    if "default" not in config.chat.profiles:
        mistakes.append("chat.profiles: must have `default`, which `rag: true` means")
    for setting in {"prompt", *({"context_prompt", "condense_prompt"} & config.chat.model_fields_set)}:
        name = getattr(config.chat, setting)
        if not (config.folder / "prompts" / name).is_file():
            mistakes.append(f"chat.{setting}: there is no file prompts/{name}")
    known = {entry.use.rpartition(".")[2] for entry in config.tools}
    for name, profile in config.chat.profiles.items():
        for tool in sorted(set(profile.tools or ()) - known):
            mistakes.append(f"chat.profiles.{name}.tools: `{tool}` is not in tools")
    return mistakes


def check_proxy(path: Path, profiles: set[str] | None = None) -> list[str]:
    """What LiteLLM's own YAML says of us: sign-in that cannot be passed by, our models, our profiles."""
    try:
        content = read_yaml(path)
    except ConfigError as error:
        return error.mistakes
    mistakes = []
    general = content.get("general_settings") or {}
    if general.get("custom_auth") != AUTHENTICATE:
        mistakes.append(f"general_settings.custom_auth: must be {AUTHENTICATE}")
    if general.get("custom_auth_run_common_checks") is not True:
        mistakes.append(
            "general_settings.custom_auth_run_common_checks: must be true, "
            "or LiteLLM enforces neither models nor budgets"
        )
    callbacks = (content.get("litellm_settings") or {}).get("callbacks") or []
    if HOOKS not in (callbacks if isinstance(callbacks, list) else [callbacks]):
        mistakes.append(f"litellm_settings.callbacks: must have {HOOKS}")
    cache = str(((content.get("litellm_settings") or {}).get("cache_params") or {}).get("type", ""))
    if "semantic" in cache:
        mistakes.append(
            f"litellm_settings.cache_params.type: `{cache}` answers one person's question with another's "
            "answer; use `redis` or `local`"
        )
    for index, model in enumerate(content.get("model_list") or []):
        mistakes += check_model(model, f"model_list[{index}]", profiles)
    return [f"{path}: {line}" for line in mistakes]


def check_model(model: dict[str, Any], where: str, profiles: set[str] | None) -> Iterator[str]:
    """That a built-in model exists, and the profile that a model's `rag` names."""
    provider, _, name = str((model.get("litellm_params") or {}).get("model", "")).partition("/")
    if provider == "local" and name not in registry.available("plugins.models"):
        yield f"{where}.litellm_params.model: there is no built-in model `{name}`"
    rag = (model.get("model_info") or {}).get("rag")
    if isinstance(rag, str) and profiles is not None and rag not in profiles:
        yield f"{where}.model_info.rag: there is no profile `{rag}` in chat.profiles"
