"""The only package that litellm_config.yaml names.

    litellm_settings:
      callbacks: [plugins.entry.hooks]
    general_settings:
      custom_auth: plugins.entry.authenticate
      custom_auth_run_common_checks: true

LiteLLM imports it synchronously, inside its running event loop, at the `custom_auth` line: late enough
for its app to exist, and early enough for the provider `local`, which at the `callbacks` line would come
too late. A mistake in the configuration is raised here and ends the proxy's start.
"""

from __future__ import annotations

import litellm

from plugins.bundle.bundle import current
from plugins.models import register

# Without it LiteLLM checks neither the allowed models nor the budget of what custom_auth returns.
litellm.enable_post_custom_auth_checks = True
register()

_bundle = current()
authenticate = _bundle.authenticate
hooks = _bundle.hooks
