"""Our routes in LiteLLM's application."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Request, Security
from fastapi.security import OAuth2PasswordBearer
from litellm.proxy import proxy_server
from litellm.proxy._lazy_features import reserve_lazy_slot
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth
from litellm.proxy.auth.auth_utils import get_request_route
from litellm.proxy.auth.route_checks import RouteChecks
from litellm.proxy.auth.user_api_key_auth import (
    anthropic_api_key_header,
    api_key_header,
    azure_api_key_header,
    azure_apim_header,
    custom_litellm_key_header,
    google_ai_studio_api_key_header,
    user_api_key_auth_builder,
)
from litellm.proxy.route_priority import hot_routes_first
from litellm.proxy.utils import get_server_root_path

from plugins.core.errors import BundleError, Forbidden
from plugins.core.identity import Principal
from plugins.core.logs import about
from plugins.core.request_id import request_id
from plugins.core.resource import resource_metadata
from plugins.core.shapes import Standing
from plugins.proxy.auth import Refusal, principal_of

LAZY_FEATURE = "tools"
"""LiteLLM's feature with the prefix `/v1/tool`, which `/v1/tools` begins with."""

MOUNTED = "collections_routes"
"""Of the application's state: our routes, by their `id()`."""

Header = str | None

password_sign_in = OAuth2PasswordBearer(
    tokenUrl=f"{get_server_root_path().rstrip('/')}/api/auth/login",
    scheme_name="Sign in with a password",
    description="At the identity provider, through this proxy",
    auto_error=False,
)
"""What makes the button *Authorize* of the OpenAPI page sign in; the token is read as any other."""


async def authenticated(
    request: Request,
    authorization: Annotated[Header, Security(api_key_header)] = None,
    azure: Annotated[Header, Security(azure_api_key_header)] = None,
    anthropic: Annotated[Header, Security(anthropic_api_key_header)] = None,
    google: Annotated[Header, Security(google_ai_studio_api_key_header)] = None,
    azure_apim: Annotated[Header, Security(azure_apim_header)] = None,
    litellm: Annotated[Header, Security(custom_litellm_key_header)] = None,
    _bearer: Annotated[Header, Security(password_sign_in)] = None,
) -> Principal:
    """The dependency of every route of ours: who is asking, by the same headers as LiteLLM's routes.

    LiteLLM's own `user_api_key_auth` refuses everyone but admins on routes that it does not know, so
    this calls the part of it that only authenticates; the body is not read. The routes that a virtual
    key is limited to are respected.

    Raises:
        Refusal: 401 or 503 with the reason, or 403 for a key that is limited to other routes.
    """
    auth = await _signed_in(
        request,
        authorization or "",
        azure_api_key_header=azure,
        anthropic_api_key_header=anthropic,
        google_ai_studio_api_key_header=google,
        azure_apim_header=azure_apim,
        custom_litellm_key_header=litellm,
    )
    try:
        principal = principal_of(auth)
        about(request_id=request_id(request), user_id=principal.user_id)
        RouteChecks.should_call_route(route=get_request_route(request), valid_token=auth, request=request)
    except BundleError as error:
        raise Refusal(error, request_id(request), resource_metadata(request)) from error
    except HTTPException as error:
        refused = Forbidden("This key may not be used on this route. Use another key, or ask who made it.")
        raise Refusal(refused, request_id(request)) from error
    request.state.standing = standing(auth)
    return principal


def standing(auth: UserAPIKeyAuth) -> Standing:
    """What LiteLLM lets the caller do."""
    return Standing(
        user_role=auth.user_role.value if auth.user_role else None,
        models=[str(model) for model in auth.models] or None,
        rpm_limit=auth.rpm_limit,
        tpm_limit=auth.tpm_limit,
        max_parallel_requests=auth.max_parallel_requests,
        max_budget=auth.max_budget,
        spend=auth.spend,
    )


def standing_of(request: Request) -> Standing:
    """The same for a request that `authenticated` let in."""
    found: Standing = request.state.standing
    return found


async def is_admin(
    request: Request, authorization: Annotated[Header, Security(api_key_header)] = None
) -> bool:
    """Whether an admin is asking; False for those who did not sign in, and for a sign-in that failed."""
    if not authorization:
        return False
    try:
        auth = await _signed_in(request, authorization)
    except (ProxyException, HTTPException):
        return False
    return auth.user_role == LitellmUserRoles.PROXY_ADMIN


async def _signed_in(request: Request, authorization: str, **headers: Header) -> UserAPIKeyAuth:
    """Who LiteLLM says it is; its check without that of the route. The body is not read."""
    names = ("azure_api_key_header", "anthropic_api_key_header", "google_ai_studio_api_key_header")
    absent: Any = dict.fromkeys((*names, "azure_apim_header", "custom_litellm_key_header"))
    return await user_api_key_auth_builder(
        request=request, api_key=authorization, request_data={}, **(absent | headers)
    )


def litellm_file() -> Path | None:
    """The YAML that LiteLLM runs."""
    path = proxy_server.user_config_file_path
    return Path(path) if path else None


def mount(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Include the routers before LiteLLM's own routes, so that none of its patterns answers for them;
    only its most used routes stay first. Routers that were mounted before are replaced.

    LiteLLM imports a rarely used feature at the first request whose path begins with `/v1/tool`,
    which takes a second; with its slot after our routes, those do not wait for it.
    """
    present, mounted = list(app.router.routes), getattr(app.state, MOUNTED, None)
    lifespan = app.router.lifespan_context
    try:
        for router in routers:
            app.include_router(router)
    except Exception:
        app.router.routes[:] = present
        raise
    finally:
        app.router.lifespan_context = lifespan  # it would hold every router that was ever included
    ours = app.router.routes[len(present) :]
    if mounted is None:
        reserve_lazy_slot(app, LAZY_FEATURE)
    others = [*app.router.routes[len(present) + len(ours) :], *present]
    setattr(app.state, MOUNTED, {id(route): route for route in ours})
    app.router.routes[:] = hot_routes_first(
        [*ours, *(route for route in others if id(route) not in (mounted or {}))]
    )
    app.openapi_schema = None
