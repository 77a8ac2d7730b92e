"""This process's parts: made at its start, and made anew for each configuration that is taken up."""

from __future__ import annotations

import functools

from fastapi import FastAPI

from crawler.errors import ConfigError
from plugins.api.route import REFUSALS
from plugins.bundle.bundle import Bundle
from plugins.bundle.check import check_config
from plugins.bundle.resources import Resources
from plugins.collections.audit import Refusals
from plugins.core.config import Config, folder, load
from plugins.core.resource import name_metadata
from plugins.proxy.chat import ChatHooks
from plugins.proxy.drain import drain_on_sigterm
from plugins.proxy.mount import mount


class Process:
    """The parts of this moment, and what LiteLLM holds on to whatever the configuration becomes.

    Made synchronously, inside LiteLLM's running loop: it checks, migrates and starts children here.

    Raises:
        ConfigError: With every mistake of the configuration.
    """

    def __init__(self, app: FastAPI, config: Config) -> None:
        check_whole(config)
        self._app = app
        self.resources = Resources(config)
        self.bundle = Bundle(config, self.resources)
        self.hooks = ChatHooks(lambda: self.bundle.chat)
        self.resources.start()
        setattr(app.state, REFUSALS, Refusals(self.resources.database))
        self._mount()
        drain_on_sigterm(
            lambda: self.bundle.config.shutdown, self.resources.stopping, self.resources.stop_worker
        )

    def take_up(self, config: Config) -> None:
        """Answer all requests from now on by this configuration; nothing changes when it has mistakes.

        Raises:
            ConfigError: With every mistake of the configuration.
        """
        check_whole(config)
        self.bundle = Bundle(config, self.resources, self.bundle)
        self._mount()

    def _mount(self) -> None:
        name_metadata(self._app, self.bundle.sign_in.public_base_url)
        mount(self._app, self.bundle.routers)


def check_whole(config: Config) -> None:
    """Raises ConfigError with every mistake that the parts would find."""
    if mistakes := check_config(config):
        raise ConfigError(mistakes)


@functools.cache
def started(app: FastAPI) -> Process:
    """The one of this process, with the configuration of its folder."""
    return Process(app, load(folder()))
