"""`/api/auth`: signing in through this proxy with programs, signing out, and who one is to it."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.security import OAuth2PasswordRequestForm
from pydantic import Field, SecretStr

from plugins.api.route import Route, errors, example
from plugins.api.sign_in import SignInParts, Source, drop_cookie
from plugins.auth._sessions import COOKIE
from plugins.core.errors import Forbidden, IdentityUnavailable, InvalidRequest, Unauthenticated
from plugins.core.identity import Principal, Right
from plugins.core.metrics import PASSWORDS, counted
from plugins.core.ports import Catalogue, Ended, Tokens
from plugins.core.resource import METADATA_PATH
from plugins.core.shapes import Shape, Standing
from plugins.core.toolbox import Toolbox

log = logging.getLogger(__name__)

MAX_TOKEN = 16 * 1024
NO_PASSWORDS = (
    "This server takes no passwords (`identity.sign_in.password`). Open /api/auth/sign-in with a browser, or "
    "get an access token from the identity provider."
)
NO_SESSION = "There is no session to end: send its `refresh_token`, or the session's cookie."

Token = Annotated[str, Field(min_length=1, max_length=MAX_TOKEN)]
SourceName = Annotated[
    str | None, Field(max_length=63, description="The identity source; by default the first")
]


class Refresh(Shape):
    refresh_token: Token = Field(repr=False)
    source: SourceName = None


class SignOut(Shape):
    refresh_token: Token | None = Field(default=None, repr=False)
    source: SourceName = None


class SignedOut(Shape):
    object: Literal["signed_out"] = "signed_out"
    at_issuer: bool
    """Whether the identity provider ended its session, too; if not, it signs one in again without asking."""


class OwnCollection(Shape):
    id: str
    name: str
    permissions: list[Right]


class Me(Shape):
    object: Literal["me"] = "me"
    user: str
    """As logs and spend name the caller: `<source>/<name>`."""
    source: str
    """The identity source that vouches for the rest."""
    username: str
    email: str | None
    groups: list[str]
    roles: list[str]
    litellm: Standing
    """Models and limits."""
    collections: list[OwnCollection]
    """Those that the caller may discover, at most 1000."""
    more_collections: bool
    tools: list[str]
    """Those that the caller may run."""


class ResourceMetadata(Shape):
    """RFC 9728, section 2."""

    resource: str
    authorization_servers: list[str]
    scopes_supported: list[str] = ["openid"]
    bearer_methods_supported: list[str] = ["header"]
    resource_name: str = "LiteLLM proxy with collections"


def router(
    parts: SignInParts,
    authenticated: Callable[..., Awaitable[Principal]],
    standing_of: Callable[[Request], Standing],
    catalogue: Catalogue,
    toolbox: Toolbox,
) -> APIRouter:
    """``standing_of`` answers what LiteLLM lets the caller do, once ``authenticated`` let them in."""
    routes = APIRouter(route_class=Route, tags=["sign-in"])
    _add_sign_in(routes, parts)
    _add_sign_out(routes, parts)
    _add_metadata(routes, parts)
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get("/api/auth/me", summary="Who am I", responses=errors())
    async def who_am_i(caller: Caller, request: Request) -> Me:
        """Who you are to this proxy, and what you may do."""
        found = await catalogue.list(caller, limit=1000)
        return Me(
            user=caller.user_id,
            source=caller.source,
            username=caller.username,
            email=caller.email,
            groups=sorted(caller.groups),
            roles=sorted(caller.roles),
            litellm=standing_of(request),
            collections=[OwnCollection(id=c.id, name=c.name, permissions=c.permissions) for c in found.data],
            more_collections=found.has_more,
            tools=[schema["function"]["name"] for schema in toolbox.schemas(caller)],
        )

    return routes


def _add_sign_in(routes: APIRouter, parts: SignInParts) -> None:
    attempts = parts.attempts

    @routes.post(
        "/api/auth/login",
        summary="Sign in with a password",
        response_model_exclude_none=True,
        responses=errors(403, 413),
    )
    async def login(
        form: Annotated[OAuth2PasswordRequestForm, Depends()], request: Request, source: Source = None
    ) -> Tokens:
        """The OAuth 2 password grant at the identity provider. Failed tries make the next ones wait (429)."""
        picked, sign_in = parts.pick(source)
        if not parts.settings.password:
            raise Forbidden(NO_PASSWORDS)
        peer = request.client.host if request.client else ""
        await attempts.begin(form.username, peer)
        with counted(PASSWORDS, picked.name):
            try:
                tokens = await sign_in.password(form.username, SecretStr(form.password))
            except IdentityUnavailable:
                await attempts.undo(form.username, peer)
                raise
        await attempts.succeeded(form.username, peer)
        return tokens

    @routes.post(
        "/api/auth/refresh",
        summary="Get new tokens",
        response_model_exclude_none=True,
        responses=errors(403, 413),
        openapi_extra=example({"refresh_token": "eyJ..."}),
    )
    async def refresh(body: Refresh) -> Tokens:
        """New tokens for a refresh token."""
        _, sign_in = parts.pick(body.source)
        return await sign_in.refresh(SecretStr(body.refresh_token))


def _add_sign_out(routes: APIRouter, parts: SignInParts) -> None:
    @routes.post(
        "/api/auth/logout",
        summary="Sign out",
        responses=errors(403, 413),
        openapi_extra=example({"refresh_token": "eyJ..."}),
    )
    async def logout(request: Request, response: Response, body: SignOut | None = None) -> SignedOut:
        """Ends the session of the refresh token, or of the cookie, at the identity provider and here."""
        if body is not None and body.refresh_token is not None:
            _, sign_in = parts.pick(body.source)
            await sign_in.revoke(SecretStr(body.refresh_token))
            return SignedOut(at_issuer=True)
        cookie = request.cookies.get(COOKIE)
        if cookie is None:
            raise Unauthenticated(NO_SESSION)
        parts.sessions.check_origin(request.method, request.headers)
        drop_cookie(response, COOKIE)
        return SignedOut(at_issuer=await _end_session(parts, cookie))

    @routes.post(
        "/api/auth/backchannel-logout",
        summary="Back-channel logout",
        response_class=Response,
        responses=errors(413),
    )
    async def backchannel_logout(
        logout_token: Annotated[str, Form(max_length=MAX_TOKEN, description="A signed logout token")],
    ) -> Response:
        """For the identity provider (OpenID Connect Back-Channel Logout 1.0): whom the logout token names is
        signed out, and their access tokens are refused from then on."""
        ended = await _ended(parts, logout_token)
        await parts.revocations.revoke(ended)
        log.info("signed out by the identity provider: source %s", ended.source)
        return Response(status_code=200)


async def _end_session(parts: SignInParts, cookie: str) -> bool:
    """Whether the issuer ended its session; here it is over in any case."""
    session = await parts.sessions.end(cookie)
    if session is None:
        return False
    if session.issuer_session is not None:
        ended = Ended(session.source, session.subject, session.issuer_session, time.time())
        await parts.revocations.revoke(ended)
    if session.refresh_token is None:
        return False
    try:
        _, sign_in = parts.pick(session.source)
        await sign_in.revoke(SecretStr(session.refresh_token))
    except Unauthenticated:
        return True  # it was over already
    except (IdentityUnavailable, Forbidden, InvalidRequest) as error:
        log.warning("source %s: its session could not be ended: %s", session.source, type(error).__name__)
        return False
    return True


async def _ended(parts: SignInParts, logout_token: str) -> Ended:
    """Whom the token of one of the sources signs out.

    Raises:
        InvalidRequest: It is of none of them; the standard wants 400 here.
        IdentityUnavailable: That cannot be told now.
    """
    unavailable: IdentityUnavailable | None = None
    reason = "This is not a logout token of an identity provider that this server trusts."
    for source in parts.sources:
        try:
            return await source.ended(logout_token)
        except Unauthenticated as error:
            log.info("source %s: the logout token is refused: %s", source.name, error.message)
        except IdentityUnavailable as error:
            unavailable = error
    if unavailable is not None:
        raise unavailable
    raise InvalidRequest(reason, param="logout_token")


def _add_metadata(routes: APIRouter, parts: SignInParts) -> None:
    servers = [server for source in parts.sources if (server := source.authorization_server)]

    @routes.get(METADATA_PATH, summary="How clients sign in", responses=errors())
    async def protected_resource_metadata() -> ResourceMetadata:
        """Which authorization servers give access tokens for `/v1` (RFC 9728)."""
        return ResourceMetadata(
            resource=parts.url("/v1"),
            authorization_servers=servers,
        )
