"""The composition root: from one configuration to parts that know each other."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable
from typing import Any

from crawler.contracts import Source
from crawler.crawler import CrawlerConfig, make_formats
from crawler.formats import choose
from crawler.store import Store
from plugins.api import (
    access,
    audit,
    auth,
    collections,
    documents,
    health,
    jobs,
    ollama,
    people,
    pipelines,
    preview,
    reindex,
    search,
    sign_in,
    tools,
)
from plugins.api.multipart import CheckFormat
from plugins.api.ollama_models import OllamaModels
from plugins.auth._attempts import Attempts
from plugins.auth._revocations import Revocations
from plugins.auth._sessions import SessionSource
from plugins.bundle.health import Health
from plugins.bundle.resolve import resolve
from plugins.bundle.resources import Resources
from plugins.collections.access import AccessService
from plugins.collections.adoption import Adopter
from plugins.collections.audit import AuditLog
from plugins.collections.catalogue import CollectionCatalogue
from plugins.collections.documents import DocumentService
from plugins.collections.exchanges import ExchangeLog, ExchangeReader
from plugins.collections.job_service import JobService
from plugins.collections.people import People
from plugins.collections.pipelines import pipeline_list, read_pipelines
from plugins.collections.preview import Previewer
from plugins.collections.quotas import Quotas
from plugins.collections.reindex_service import ReindexService
from plugins.collections.rights import Rights
from plugins.collections.search import Searcher
from plugins.collections.sightings import Sightings
from plugins.collections.standings import Standings
from plugins.collections.states import States
from plugins.core.config import Config
from plugins.core.identity import Principal
from plugins.core.ports import IdentitySource, Parts, Tool
from plugins.core.toolbox import Toolbox
from plugins.proxy.auth import Authenticate
from plugins.proxy.caches import Vectors
from plugins.proxy.models import RouterEmbed, has_model
from plugins.proxy.mount import authenticated, is_admin, standing_of
from plugins.proxy.turns import ChatParts

log = logging.getLogger(__name__)


class Bundle:
    """All parts that one configuration makes. The next configuration makes all of them anew; requests that
    began with these keep them.

    Made synchronously, inside LiteLLM's running loop: everything that must be awaited is opened at its first
    use.

    Args:
        config: One without mistakes (`plugins.bundle.check`).
        resources: What it works on; of a configuration with the same storage.
        before: The parts of the configuration before: what limits attackers goes on counting, and identity
            sources with the same settings stay, with what they know of keys.
    """

    def __init__(self, config: Config, resources: Resources, before: Bundle | None = None) -> None:
        self.config = config
        self.sources = make_sources(config, before)
        self.sightings: Sightings = before.sightings if before else Sightings(resources.database)
        self.store, self.database = resources.store, resources.database
        self.originals = resources.originals
        self.supervisors = resources.supervisors
        self.stopping = resources.stopping
        self.standings = standings_of(config, self.store, before)
        self.rights = Rights(config, self.standings)
        self.ollama = OllamaModels(config.ollama, self.rights, self.database)
        self._open_domain(config)
        self._open_proxy(config)

    def _open_domain(self, config: Config) -> None:
        embed = RouterEmbed()
        self.pipelines = read_pipelines(config.pipelines)
        adopter = Adopter(self.database, self.store, config.collections)
        self.catalogue = CollectionCatalogue(
            self.database,
            self.rights,
            self.store,
            embed,
            config.collections,
            {name: pipeline.embedding_model for name, pipeline in self.pipelines.items()},
            has_model,
            adopter,
        )
        self.reindexing = ReindexService(
            self.database,
            self.rights,
            self.store,
            embed,
            config.collections,
            config.pipelines,
            has_model,
            self.catalogue,
        )
        embed_query = RouterEmbed(kept=Vectors(config.cache.query_embeddings_max_bytes))
        self.searcher = Searcher(
            self.database, self.rights, self.store, embed_query, config.collections, has_model, adopter
        )
        self._states = States(self.database, self.rights, adopter)
        self._configuration = config.model_dump_json(exclude={"folder", "files"})
        self.documents = DocumentService(
            self.database, self.rights, self.originals, config.pipelines, Quotas(config)
        )
        self.previewer = Previewer(
            self.database,
            self.rights,
            self.originals.spool_dir,
            [sys.executable, "-m", "plugins.worker.preview"],
            config,
        )
        self.toolbox = Toolbox(
            make_tools(config, Parts(self.catalogue, self.searcher)), self.rights.decide_tool
        )
        known = {source.name: source.directory for source in self.sources if source.directory is not None}
        self.people = People(self.database, self.rights, known)
        self.health = Health(
            self.store,
            self.database,
            self.sources,
            self.supervisors,
            self.catalogue.missing_models,
            lambda: adopter.problems,
            self.stopping,
        )

    def _open_sign_in(self, config: Config) -> sign_in.SignInParts:
        settings, url = config.identity.sign_in, config.chat.public_base_url
        by_name = {source.name: source for source in self.sources}
        sessions = SessionSource(settings, by_name, self.database, url)
        revocations = Revocations(self.database, settings.revocation_s)
        parts = sign_in.SignInParts(
            self.sources, sessions, revocations, settings, url, Attempts(self.database)
        )
        if parts.can_sign_in and not url.startswith("https:"):
            log.warning(
                "chat.public_base_url is not https: browsers sign in only on this machine (`localhost`)"
            )
        return parts

    def _open_proxy(self, config: Config) -> None:
        parts = self.sign_in = self._open_sign_in(config)
        self.authenticate = Authenticate(
            self.sources,
            config.identity.allowances,
            # only who signs in here can be signed out here
            guards=[*([parts.revocations] if parts.can_sign_in else []), self.sightings],
            sessions=parts.sessions if parts.can_sign_in else None,
            store_credential_header=config.identity.store_credential_header,
        )
        self.exchanges = ExchangeLog(self.database, config.audit.exchanges)
        prompt = (config.folder / "prompts" / config.chat.prompt).read_text(encoding="utf-8")
        names = {source.name for source in self.sources}
        self.chat = ChatParts(
            self.toolbox,
            self.searcher.queryable,
            config.chat,
            prompt,
            names,
            read_prompt(config, config.chat.context_prompt) or prompt,
            read_prompt(config, config.chat.condense_prompt),
            self.searcher.check_filter,
            self._state,
            self.exchanges,
        )
        accepts = format_check(self.pipelines.values())
        log_reader = AuditLog(self.database, self.rights)
        self.routers = [
            collections.router(self.catalogue, authenticated),
            documents.router(
                self.documents,
                authenticated,
                limits=config.limits,
                check_format=accepts,
                page_route=sign_in.page_route(parts),
            ),
            pipelines.router(pipeline_list(self.pipelines), authenticated),
            preview.router(self.previewer, authenticated, limits=config.limits, check_format=accepts),
            jobs.router(JobService(self.database, self.rights, self.stopping), authenticated),
            reindex.router(self.reindexing, authenticated),
            search.router(self.searcher, authenticated),
            tools.router(
                self.toolbox,
                authenticated,
                timeout_s=config.chat.tool_timeout_s,
                max_parallel=config.chat.max_parallel_tools,
            ),
            access.router(AccessService(self.database, self.rights, self.people), authenticated),
            people.router(self.people, authenticated),
            audit.router(log_reader, ExchangeReader(self.database, log_reader), authenticated),
            ollama.router(self.ollama, authenticated, pull_timeout_s=config.ollama.pull_timeout_s),
            health.router(self.health, is_admin),
            auth.router(parts, authenticated, standing_of, self.catalogue, self.toolbox),
            sign_in.router(parts),
        ]

    async def _state(self, principal: Principal, collections: frozenset[str] | None) -> str | None:
        """What the principal may read, and how it stands, under this configuration."""
        state = await self._states.of(principal, collections)
        return None if state is None else f"{self._configuration} {state}"

    async def close(self, after: Bundle) -> None:
        """Close what these hold open, except what the next ones have, too."""
        await self.ollama.close()
        for source in self.sources:
            if source not in after.sources:
                await source.close()


def make_sources(config: Config, before: Bundle | None) -> list[IdentitySource[Any]]:
    """The identity sources of the configuration; those with the same settings as before are the same."""
    entries = config.identity.sources
    there = list(zip(before.config.identity.sources, before.sources, strict=True)) if before else []
    sources: list[IdentitySource[Any]] = []
    for entry, found in zip(
        entries, resolve("plugins.auth", IdentitySource, entries, "identity.sources"), strict=True
    ):
        same = next((source for known, source in there if known == entry), None)
        sources.append(same or found.plugin(found.settings, found.name))
    return sources


def standings_of(config: Config, store: Store[Any], before: Bundle | None) -> Standings:
    """What the store's own rights let callers do; guesses of credentials go on being counted."""
    cache_s = config.collections.privileges_cache_s
    if before and before.config.collections.privileges_cache_s == cache_s:
        return before.standings
    return Standings(store, cache_s)


def make_tools(config: Config, parts: Parts) -> dict[str, Tool[Any, Any]]:
    """The tools of the configuration by their names."""
    found = resolve("plugins.tools", Tool, config.tools, "tools")
    return {tool.name: tool.plugin(tool.settings, parts) for tool in found}


def read_prompt(config: Config, name: str) -> str:
    """A prompt of the folder; empty where a folder does not have it."""
    path = config.folder / "prompts" / name
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def format_check(pipelines: Iterable[CrawlerConfig]) -> CheckFormat:
    """A check at upload: raises UnsupportedFormat for what no pipeline's formats accept."""
    formats = [accepted for pipeline in pipelines for accepted in make_formats(pipeline)]

    def check(source: Source) -> object:
        return choose(formats, source)

    return check
