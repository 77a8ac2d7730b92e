"""What `config/identity.yaml` steers: who may sign in, and what they are to LiteLLM."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from crawler.settings import Settings
from plugins.core.identity import SOURCE_NAME
from plugins.core.plugin import Plugin


class Source(Plugin):
    """An identity source."""

    name: str = Field(default="", pattern=f"^({SOURCE_NAME.pattern})?$")
    """The name that subjects carry; by default the plugin's."""


class Allowance(Settings):
    """What LiteLLM lets these subjects do. The first entry that names the caller counts."""

    subjects: list[str] = Field(min_length=1)
    """Subjects: `user:<source>/<name>`, `group:<source>/<path>`, `role:<source>/<name>` or `*`."""
    user_role: Literal["proxy_admin", "proxy_admin_viewer", "internal_user", "internal_user_viewer"] = (
        "internal_user"
    )
    """LiteLLM's role of the caller."""
    models: list[str] = []
    """Model names of this proxy that they may use; empty = all of them."""
    rpm_limit: int | None = Field(default=None, ge=1)
    """Requests a minute."""
    tpm_limit: int | None = Field(default=None, ge=1)
    """Tokens a minute."""
    max_parallel_requests: int | None = Field(default=None, ge=1)
    """Requests at once."""
    max_budget: float | None = Field(default=None, gt=0)
    """US dollars that each of them may spend, as far as LiteLLM counts them: docs/litellm.md."""
    priority: str | None = None
    """LiteLLM's request priority (`litellm_settings.priority_reservation`)."""
    tags: list[str] = []
    """LiteLLM's tags of their requests, in spend logs; requests may add some, and take none away."""
    metadata: dict[str, str] = {}
    """Goes into the spend logs as `spend_logs_metadata`; a request that sends the same key overrides it."""
    end_user: Literal["caller", "request"] = "caller"
    """Whom LiteLLM logs as the end user: the caller, or, for a service, whom its request's `user` names."""


class SignInConfig(Settings):
    """Signing in through `/api/auth`, at the sources that have a `client_id`."""

    password: bool = True
    """Whether `POST /api/auth/login` takes passwords; browsers sign in at the issuer in any case."""
    session_s: float = Field(default=8 * 3600.0, ge=60)
    """How long a browser stays signed in at most."""
    revocation_s: float = Field(default=24 * 3600.0, ge=60)
    """How long an ended session is remembered: at least as long as the issuers' access tokens live."""


class IdentityConfig(Settings):
    sources: list[Source] = Field(min_length=1)
    """Asked in this order; the first that accepts a credential decides."""
    allowances: list[Allowance] = []
    """What an identity means to LiteLLM; without an entry: an internal user without limits."""
    store_credential_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9-]{1,64}$")
    """The header in which callers may send their own Milvus credential (`user:password` or an API key)."""
    sign_in: SignInConfig = SignInConfig()
    """Signing in through this proxy."""
