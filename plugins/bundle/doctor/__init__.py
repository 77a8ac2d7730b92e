"""`make doctor`: reads the configuration as the proxy would and tries every part for real.

Nothing is changed, nothing secret is printed, every wait is bounded, and a part that fails does not stop
the others.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from crawler import conversion
from crawler.errors import ConfigError
from plugins.bundle.check import check, readable
from plugins.bundle.doctor.findings import Finding, Notes, Redact, attempt, secrets_in
from plugins.bundle.doctor.identity import LitellmFacts, examine_source
from plugins.bundle.doctor.models import examine_models, examine_ollama, ollama_servers
from plugins.bundle.doctor.storage import (
    examine_conversion,
    examine_data_dir,
    examine_database,
    examine_originals,
    examine_redis,
)
from plugins.bundle.doctor.store import examine_store
from plugins.bundle.doctor.token import examine_token
from plugins.bundle.resolve import resolve
from plugins.collections.storage import open_store
from plugins.core.config import Config
from plugins.core.ports import IdentitySource
from plugins.proxy import probe

PART_S = 30.0
"""Of one part; models have a limit each."""
STORE_S = 120.0
PACKAGES = (
    "litellm",
    "pymilvus",
    "milvus-lite",
    "fastapi",
    "pydantic",
    "joserfc",
    "python-keycloak",
    "sqlalchemy",
)
NEEDED = {
    "prisma": "without it LiteLLM's own refusals are bare 500s",
    "litellm-enterprise": "without it LiteLLM cannot check its own keys",
}


@dataclass
class Examination:
    """What is examined, and what one part finds for the next."""

    folder: Path
    proxy_config: Path
    token: SecretStr | None
    ask_models: bool
    config: Config | None = None
    litellm: dict[str, Any] = field(default_factory=dict)
    rows: list[Mapping[str, Any]] = field(default_factory=list)
    sources: list[IdentitySource[Any]] = field(default_factory=list)
    left_out: set[str] = field(default_factory=set)
    """Keys of our configuration that cannot be read."""
    redact: Redact = field(default_factory=Redact)

    def hide(self, *secrets: Iterable[str]) -> None:
        """Keep these out of what is printed."""
        for more in secrets:
            self.redact.add(more)


async def examine(
    folder: Path, proxy_config: Path, *, token: SecretStr | None = None, models: bool = True
) -> AsyncIterator[list[Finding]]:
    """The findings, part by part as they come.

    Args:
        folder: Our configuration folder.
        proxy_config: LiteLLM's YAML.
        token: A token to verify step by step.
        models: Whether each model is asked one tiny question.
    """
    exam = Examination(folder, proxy_config, token, models)
    exam.hide(secrets_in(dict(os.environ)), secrets_in(token))
    yield await attempt("configuration", lambda notes: configuration(notes, exam), exam.redact, PART_S)
    exam.hide(secrets_in(dict(os.environ)), secrets_in(exam.config), secrets_in(exam.litellm))
    for deployment in probe.deployments(exam.litellm):
        exam.hide(secrets_in(deployment.params))
    yield await attempt("versions", versions, exam.redact, PART_S)
    yield await attempt("conversion", confinement, exam.redact, PART_S)
    async with AsyncExitStack() as opened:
        async for found in identity(exam, opened):
            yield found
    async for found in storage(exam):
        yield found
    async for found in proxys(exam):
        yield found


async def configuration(notes: Notes, exam: Examination) -> None:
    """The mistakes that `check` finds; what can be read is examined in any case."""
    try:
        # first: it may set environment variables that ours names
        exam.litellm = await probe.read_proxy_config(exam.proxy_config)
        probe.prepare(exam.litellm)
    except ConfigError:
        pass  # `check` says it
    mistakes = check(exam.folder, exam.proxy_config)
    for line in mistakes:
        notes.fail(line, "Mend it; the other parts are examined as far as they can be.")
    if not mistakes:
        notes.ok(f"{exam.proxy_config} and {exam.folder} have no mistakes")
    exam.config, _, exam.left_out = readable(exam.folder)


async def versions(notes: Notes) -> None:
    notes.ok(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    known = [f"{name} {version}" for name in PACKAGES if (version := version_of(name)) is not None]
    notes.ok(", ".join(known))
    for name, why in NEEDED.items():
        if version_of(name) is None:
            notes.fail(f"the package `{name}` is missing: {why}", f"pip install {name}")


async def confinement(notes: Notes) -> None:
    examine_conversion(notes, conversion.available())


def version_of(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


async def identity(exam: Examination, opened: AsyncExitStack) -> AsyncIterator[list[Finding]]:
    """Each source, and the token."""
    config = exam.config
    if config is None or "identity" in exam.left_out:
        return
    facts = LitellmFacts(
        probe.master_key(exam.litellm),
        probe.master_key_weakness(exam.litellm),
        probe.has_database(exam.litellm),
        any(entry.max_budget for entry in config.identity.allowances),
    )
    for index, entry in enumerate(config.identity.sources):
        try:
            [made] = resolve("plugins.auth", IdentitySource, [entry], f"identity.sources[{index}]")
            source = made.plugin(made.settings, made.name)
        except ConfigError:
            continue  # `check` says it
        exam.sources.append(source)
        opened.push_async_callback(source.close)
        exam.hide(secrets_in(made.settings))

        async def one(notes: Notes, source: IdentitySource[Any] = source) -> None:
            await examine_source(notes, source, facts)

        yield await attempt(f"identity {source.name}", one, exam.redact, PART_S)
    token = exam.token
    if token is not None:
        yield await attempt(
            "token", lambda notes: examine_token(notes, token, exam.sources, config), exam.redact, PART_S
        )


async def storage(exam: Examination) -> AsyncIterator[list[Finding]]:
    """The data directory, the database, and the store with its collections."""
    config = exam.config
    if config is None or "storage" in exam.left_out:
        return

    async def data_dir(notes: Notes) -> None:
        await asyncio.to_thread(examine_data_dir, notes, config.storage.data_dir.absolute())

    async def store(notes: Notes) -> None:
        names = {deployment.name for deployment in probe.deployments(exam.litellm)}
        opened = open_store(config.storage)
        exam.hide(secrets_in(opened.settings))
        try:
            await examine_store(notes, opened, config, exam.rows, names)
        finally:
            await opened.close()

    yield await attempt("data directory", data_dir, exam.redact, PART_S)
    yield await attempt(
        "database", lambda notes: examine_database(notes, config.storage, exam.rows), exam.redact, PART_S
    )

    async def files(notes: Notes) -> None:
        await examine_originals(notes, config.storage)

    yield await attempt("vector store", store, exam.redact, STORE_S)
    yield await attempt("uploaded files", files, exam.redact, PART_S)


async def proxys(exam: Examination) -> AsyncIterator[list[Finding]]:
    """What is LiteLLM's: Redis, models, Ollama's servers."""
    if (settings := probe.redis_settings(exam.litellm)) is not None:
        yield await attempt("redis", lambda notes: examine_redis(notes, settings), exam.redact, PART_S)
    for address, configured in ollama_servers(exam.litellm).items():

        async def ollama(notes: Notes, address: str = address, there: list[Any] = configured) -> None:
            await examine_ollama(notes, address, there)

        yield await attempt("ollama", ollama, exam.redact, PART_S)
    if exam.ask_models:
        rows = [(str(r["name"]), str(r["embedding_model"]), int(r["dimension"])) for r in exam.rows]
        yield await examine_models(exam.litellm, rows, exam.redact)
