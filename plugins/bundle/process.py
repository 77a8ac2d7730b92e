"""This process's parts: made at its start, and made anew for each configuration that is taken up."""

from __future__ import annotations

import asyncio
import functools
import weakref

from fastapi import FastAPI

from crawler.errors import ConfigError
from plugins.api import admin
from plugins.api.route import REFUSALS
from plugins.bundle.bundle import Bundle
from plugins.bundle.check import check_against, check_config
from plugins.bundle.effective import effective
from plugins.bundle.metrics import measure
from plugins.bundle.reload import Reloads, digest_of, files
from plugins.bundle.resources import Resources
from plugins.collections.audit import Refusals
from plugins.collections.processes import Processes
from plugins.core.config import Config, folder, load
from plugins.core.resource import name_metadata
from plugins.proxy.chat import ChatHooks
from plugins.proxy.drain import drain_on_sigterm
from plugins.proxy.mount import authenticated, litellm_file, mount, standing_of

RETIRE_S = 120.0
"""After this time nothing uses an identity source any more that the configuration does not have."""


class Process:
    """The parts of this moment, and what LiteLLM holds on to whatever the configuration becomes.

    Made synchronously, inside LiteLLM's running loop: it checks, migrates and starts children here.

    Args:
        app: LiteLLM's.
        config: As it was read.
        digest: Of its files, from before they were read.
        retire_s: When the parts of a former configuration are closed.

    Raises:
        ConfigError: With every mistake of the configuration.
    """

    def __init__(self, app: FastAPI, config: Config, digest: str, *, retire_s: float = RETIRE_S) -> None:
        if mistakes := check_config(config):
            raise ConfigError(mistakes)
        self._app = app
        self._retire_s = retire_s
        self.resources = Resources(config)
        self.bundle = Bundle(config, self.resources)
        self.hooks = ChatHooks(lambda: self.bundle.chat)
        self.reloads = Reloads(
            Processes(self.resources.database, "proxy"),
            config,
            digest,
            self.take_up,
            check,
            effective,
            litellm_file(),
        )
        self._exchanges = weakref.WeakSet([self.bundle.exchanges])
        """Those of former configurations, too, as long as something of theirs is under way."""
        self._tasks: set[asyncio.Task[None]] = set()
        self.resources.start()
        setattr(app.state, REFUSALS, Refusals(self.resources.database))
        self._mount(self.bundle)
        drain_on_sigterm(
            lambda: self.bundle.config.shutdown,
            self.resources.stopping,
            self.resources.stop_worker,
            self._finish,
        )
        self.reloads.follow_signal()
        self._keep(asyncio.get_running_loop().create_task(self.reloads.run(self.resources.stopping)))
        gauges = measure(app, lambda: self.bundle.health, self.resources.stopping)
        self._keep(asyncio.get_running_loop().create_task(gauges))

    async def take_up(self, config: Config) -> None:
        """Answer all requests from now on by this configuration.

        It was checked, and is of the same storage. Requests in flight keep the parts that they began with;
        those are closed when nothing uses them.

        Raises:
            ConfigError: It cannot be; nothing has changed.
        """
        before = self.bundle
        # in a thread: to make all routes takes tenths of a second
        after = await asyncio.to_thread(Bundle, config, self.resources, before)
        self._mount(after)
        self.bundle = after
        self._exchanges.add(after.exchanges)
        self._keep(asyncio.get_running_loop().create_task(self._retire(before, after)))

    async def _retire(self, before: Bundle, after: Bundle) -> None:
        await asyncio.sleep(self._retire_s)
        await before.close(after)

    async def _finish(self) -> None:
        """Nothing is asked any more."""
        await asyncio.gather(*(exchanges.close() for exchanges in self._exchanges))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _mount(self, bundle: Bundle) -> None:
        administration = admin.router(self.reloads, authenticated, standing_of)
        mount(self._app, [*bundle.routers, administration])
        name_metadata(self._app, bundle.sign_in.public_base_url)


def check(config: Config) -> list[str]:
    """Every mistake in it, and where it does not go with LiteLLM's YAML."""
    path = litellm_file()
    return check_config(config) + (check_against(config, path) if path else [])


@functools.cache
def started(app: FastAPI) -> Process:
    """The one of this process, with the configuration of its folder."""
    digest = digest_of(files(folder()))
    return Process(app, load(folder()), digest)
