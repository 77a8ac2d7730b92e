"""LiteLLM's own keys: the master key, virtual keys and the sessions of its admin pages."""

from __future__ import annotations

import hmac
import os
from typing import NoReturn

from pydantic import Field, SecretStr

from crawler.settings import Settings
from plugins.core.errors import ConfigError, Unauthenticated
from plugins.core.identity import Credential
from plugins.core.ports import IdentitySource

NAME = "litellm"
PREFIXES = ("sk-", "litellm_login_")
"""Of virtual keys, and of the sessions of the admin pages."""


class HandBack(Exception):  # not a BundleError: who does not know it must fail closed
    """Only LiteLLM can judge this key: the proxy's hook hands it back to LiteLLM, which checks it whole."""


class LitellmSettings(Settings):
    master_key: SecretStr = Field(default_factory=lambda: SecretStr(os.environ.get("LITELLM_MASTER_KEY", "")))
    """To recognise a master key that does not begin with `sk-`; LiteLLM's own variable by default."""


class Litellm(IdentitySource[LitellmSettings]):
    """Claims LiteLLM's own keys and answers none itself: ``authenticate`` raises `HandBack`.

    What LiteLLM made of the key becomes a principal of the source `litellm` in the proxy's adapter
    (`plugins.proxy.auth.principal_of`), so the source cannot have another name.
    """

    def __init__(self, settings: LitellmSettings, name: str) -> None:
        if name != NAME:
            raise ConfigError([f"the identity source `use: litellm` cannot be renamed to `{name}`"])
        super().__init__(settings, name)

    def accepts(self, credential: Credential) -> bool:
        if credential.bearer is None:
            return False
        key = credential.bearer.get_secret_value()
        master = self.settings.master_key.get_secret_value()
        is_master = bool(master) and hmac.compare_digest(key.encode(), master.encode())
        return key.startswith(PREFIXES) or is_master

    async def authenticate(self, credential: Credential) -> NoReturn:
        if not self.accepts(credential):
            raise Unauthenticated("This key is not known.", why="unknown_key")
        raise HandBack
