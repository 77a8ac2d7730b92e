"""How the parts are: asked at most once a second, whoever asks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from crawler.errors import CrawlError
from crawler.store import Store
from crawler.supervisor import Supervisor
from plugins.bundle import metrics
from plugins.collections.backlog import backlog
from plugins.collections.database import Database
from plugins.collections.jobs import workers_alive
from plugins.core.errors import BundleError
from plugins.core.ports import HealthReport, IdentitySource, Wellness

log = logging.getLogger(__name__)

TIMEOUT_S = 5.0
FRESH_S = 1.0


class Health:
    """Store, worker and identity; implements :class:`plugins.core.ports.Health`."""

    def __init__(
        self,
        store: Store[Any],
        database: Database,
        sources: Sequence[IdentitySource[Any]],
        supervisors: Mapping[str, Supervisor],
        missing_models: Callable[[], Awaitable[Sequence[str]]],
        not_adopted: Callable[[], Mapping[str, str]],
        stopping: asyncio.Event,
    ) -> None:
        self._store = store
        self._database = database
        self._sources = sources
        self._supervisors = supervisors
        self._missing_models = missing_models
        self._not_adopted = not_adopted
        self._stopping = stopping
        self._missing: Sequence[str] = ()
        self._report: HealthReport | None = None
        self._until = 0.0
        self._lock = asyncio.Lock()

    async def check(self) -> HealthReport:
        """The state of all parts, not older than a second; waits at most five."""
        async with self._lock:
            if self._report is None or time.monotonic() > self._until:
                self._report = await self._look()
                self._until = time.monotonic() + FRESH_S
            return replace(self._report, stopping=self._stopping.is_set())

    async def _look(self) -> HealthReport:
        details: dict[str, Any] = {
            name: {"restarts": child.restarts, "ours": child.holder}
            for name, child in self._supervisors.items()
        }
        messages: dict[str, str] = {}
        store, missing, alive, queued, *identity = await asyncio.gather(
            _attempt("store", self._store.capabilities(), messages),
            _attempt("models", self._missing_models(), messages),
            _attempt("worker", workers_alive(self._database), messages),
            _attempt("database", backlog(self._database), messages),
            *(_attempt(f"identity.{s.name}", _ping(s), messages) for s in self._sources),
        )
        if missing:
            messages["models"] = f"Collections need models that are not in model_list: {', '.join(missing)}"
            if missing != self._missing:
                log.warning("%s", messages["models"])
        self._missing = missing or ()
        not_adopted = self._not_adopted()
        messages |= {f"collections.adopt.{name}": problem for name, problem in not_adopted.items()}
        if store is not None:
            details.setdefault("store", {})["version"] = store.version
        details |= {"workers": alive, "queue": queued and queued.pending, "messages": messages}
        down = [found is None for found in identity]
        parts = {"store": store, "database": queued, "worker": alive or None}
        parts |= {f"identity.{s.name}": found for s, found in zip(self._sources, identity, strict=True)}
        metrics.show(parts, alive, queued, self._supervisors)
        identity_word: Wellness = "unavailable" if all(down) else "degraded" if any(down) else "ok"
        return HealthReport(
            store="unavailable" if store is None else "degraded" if missing or not_adopted else "ok",
            database="unavailable" if queued is None else "ok",
            # Without a worker everything but new documents goes on.
            worker="ok" if alive else "degraded",
            identity=identity_word,
            details=details,
        )


async def _ping(source: IdentitySource[Any]) -> bool:
    await source.ping()
    return True


async def _attempt(name: str, action: Awaitable[Any], messages: dict[str, str]) -> Any:
    """What the action gives, or None with a message when it fails or takes too long."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await action
    except (BundleError, CrawlError) as error:
        messages[name] = error.message
    except TimeoutError:
        messages[name] = f"no answer within {TIMEOUT_S:.0f} s"
    except Exception:
        log.exception("The health of %s could not be checked", name)
        messages[name] = "failed; the log says why"
    return None
