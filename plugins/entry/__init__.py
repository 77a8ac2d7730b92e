"""The only package that litellm_config.yaml names.

    litellm_settings:
      callbacks: [plugins.entry.hooks]
    general_settings:
      custom_auth: plugins.entry.authenticate
      custom_auth_run_common_checks: true

LiteLLM imports it synchronously, inside its running event loop, at the first of these lines that it reads:
its app exists by then, and its router does not. A mistake in the configuration is raised here and ends the
proxy's start.
"""

from __future__ import annotations

from typing import Any

import litellm
from fastapi import Request
from litellm.proxy._types import UserAPIKeyAuth
from litellm.proxy.proxy_server import app

from plugins.bundle.process import started
from plugins.core import logs
from plugins.models import register
from plugins.proxy.auth import hash_refused_keys
from plugins.proxy.finalizers import set_no_variables

# Without it LiteLLM checks neither the allowed models nor the budget of what custom_auth returns.
litellm.enable_post_custom_auth_checks = True
hash_refused_keys()
set_no_variables()
logs.configure()
register()

_process = started(app)
hooks = _process.hooks


async def _authenticate(request: Request, api_key: str) -> UserAPIKeyAuth | str:
    return await _process.bundle.authenticate(request, api_key)


def __getattr__(name: str) -> Any:
    if name != "authenticate":
        raise AttributeError(name)
    # LiteLLM reads `custom_auth` last; before, a `custom_provider_map` of the YAML has replaced ours.
    register()
    return _authenticate
