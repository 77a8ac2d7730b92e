"""Signing in with a browser: out to the identity provider and back (authorization code with PKCE).

Sources: OpenID Connect Core 1.0, section 3.1; RFC 7636 (PKCE); RFC 9700 (OAuth 2.0 security).
"""

import base64
import hashlib
import html
import json
import logging
import re
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, SecretStr, ValidationError

from plugins.api.route import Route, errors
from plugins.auth._attempts import Attempts
from plugins.auth._claims import encoded
from plugins.auth._revocations import Revocations
from plugins.auth._sessions import COOKIE, SessionSource
from plugins.core.errors import Forbidden, InvalidRequest, Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.identity_config import SignInConfig
from plugins.core.ports import IdentitySource, SignIn

log = logging.getLogger(__name__)

SIGN_IN = "/api/auth/sign-in"
CALLBACK = "/api/auth/callback"
PENDING = "__Host-sign-in-"
PENDING_S = 600
"""How long a person may take at the identity provider."""
MAX_PENDING = 8
"""Sign-ins begun and not ended in one browser; with more, the older ones are given up."""
MAX_NEXT = 2000

NOBODY = (
    "Nobody can sign in through this server: none of its identity sources has a `client_id`. Bring an "
    "access token, or ask its operator."
)
NOT_BEGUN = (
    "This sign-in was not begun in this browser, or too long ago. Open the page that you wanted again."
)
NOT_SIGNED_IN = "The identity provider did not sign you in. Try again, or ask its administrator."
NOT_LOCAL = "`next` must be the path of a page of this server: it begins with one `/`."

Source = Annotated[str | None, Query(max_length=63, description="The identity source; by default the first")]


class Pending(BaseModel):
    """A sign-in that was begun; only the browser that began it has this, in a cookie."""

    source: str
    state: str
    nonce: str
    verifier: str
    next: str
    until: float


@dataclass(frozen=True)
class SignInParts:
    """What signing in takes."""

    sources: Sequence[IdentitySource[Any]]
    sessions: SessionSource
    revocations: Revocations
    settings: SignInConfig
    public_base_url: str
    attempts: Attempts

    @property
    def can_sign_in(self) -> bool:
        """Whether anybody can sign in."""
        return any(source.sign_in for source in self.sources)

    def pick(self, name: str | None) -> tuple[IdentitySource[Any], SignIn]:
        """The source of that name, or the first where people can sign in.

        Raises:
            Forbidden: There is none.
            InvalidRequest: Nobody can sign in there.
        """
        open_ = {source.name: (source, source.sign_in) for source in self.sources if source.sign_in}
        if not open_:
            raise Forbidden(NOBODY)
        if name is not None and name not in open_:
            raise InvalidRequest(f"`source` must be one of: {', '.join(open_)}", param="source")
        return open_[name or next(iter(open_))]

    def url(self, path: str) -> str:
        """A page of ours as browsers reach it; never from the request's ``Host``."""
        return self.public_base_url.rstrip("/") + path


class Page(Route):
    """A route for people: errors are a page for who asks for HTML."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_for_people(request: Request) -> Response:
            response = await handle(request)
            if response.status_code >= 400 and "text/html" in request.headers.get("accept", ""):
                message = json.loads(bytes(response.body))["error"]["message"]
                kept = {k: v for k, v in response.headers.items() if not k.startswith("content-")}
                response = HTMLResponse(_page(message), response.status_code, kept)
                response.headers["Content-Security-Policy"] = "default-src 'none'"
            response.headers["Referrer-Policy"] = "no-referrer"  # the callback's address has the code
            return response

        return handle_for_people


def router(parts: SignInParts) -> APIRouter:
    """The two pages between which a person is at the identity provider."""
    routes = APIRouter(route_class=Page, tags=["sign-in"])
    redirected: dict[int | str, dict[str, Any]] = {302: {"description": "To the next page"}}

    @routes.get(
        SIGN_IN,
        summary="Sign in with a browser",
        response_class=Response,
        responses={**errors(403), **redirected},
        status_code=302,
    )
    async def begin_sign_in(
        request: Request,
        next: Annotated[str, Query(description="Where to go then: a path of this server")] = "/",  # noqa: A002 - as in the address
        source: Source = None,
    ) -> Response:
        """Sends the browser to the identity provider, which sends it back to `/api/auth/callback`."""
        return await _begin(parts, request, local(next), source)

    @routes.get(
        CALLBACK,
        summary="Come back from the identity provider",
        response_class=Response,
        responses={**errors(403), **redirected},
        status_code=302,
    )
    async def end_sign_in(
        request: Request,
        state: Annotated[str, Query(max_length=200)] = "",
        code: Annotated[str, Query(max_length=8192)] = "",
    ) -> Response:
        """Makes a session of the authorization code: a cookie that later requests are signed in with."""
        return await _end(parts, request, state, code)

    return routes


def page_route(parts: SignInParts) -> type[Route]:
    """Routes whose pages people open: a browser without a session is sent to sign in, and comes back."""
    if not parts.can_sign_in:
        return Route

    class SignedInPage(Route):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_or_sign_in(request: Request) -> Response:
                try:
                    response = await handle(request)
                except Exception as error:  # what it is instead is told apart here, and raised again
                    if isinstance(error.__cause__, Unauthenticated) and _is_opened_by_a_person(request):
                        return _to_sign_in(parts, request)
                    raise
                if response.status_code == 401 and _is_opened_by_a_person(request):
                    return _to_sign_in(parts, request)
                return response

            return handle_or_sign_in

    return SignedInPage


def local(path: str) -> str:
    """The path of a page of this server.

    Raises:
        InvalidRequest: It leads elsewhere, or could.
    """
    try:
        parts = urlsplit(path)
    except ValueError as error:
        raise InvalidRequest(NOT_LOCAL, param="next") from error
    is_local = path.startswith("/") and not path.startswith("//") and not (parts.scheme or parts.netloc)
    if not is_local or "\\" in path or not path.isprintable() or len(path) > MAX_NEXT:
        raise InvalidRequest(NOT_LOCAL, param="next")
    return path


def set_cookie(response: Response, name: str, value: str, max_age: float) -> None:
    response.set_cookie(
        name, value, max_age=int(max_age), path="/", secure=True, httponly=True, samesite="lax"
    )


def drop_cookie(response: Response, name: str) -> None:
    response.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


async def _begin(parts: SignInParts, request: Request, path: str, source: str | None) -> Response:
    found, sign_in = parts.pick(source)
    pending = Pending(
        source=found.name,
        state=secrets.token_urlsafe(32),
        nonce=secrets.token_urlsafe(32),
        verifier=secrets.token_urlsafe(48),
        next=path,
        until=time.time() + PENDING_S,
    )
    address = await sign_in.authorization_url(
        redirect_uri=parts.url(CALLBACK),
        state=pending.state,
        nonce=pending.nonce,
        code_challenge=encoded(hashlib.sha256(pending.verifier.encode()).digest()),
    )
    response = RedirectResponse(address, 302)
    others = [name for name in request.cookies if name.startswith(PENDING)]
    for name in others if len(others) >= MAX_PENDING else ():
        drop_cookie(response, name)
    set_cookie(response, _cookie(pending.state), encoded(pending.model_dump_json().encode()), PENDING_S)
    return response


async def _end(parts: SignInParts, request: Request, state: str, code: str) -> Response:
    pending = _pending(request.cookies, state)
    if not code:
        raise Unauthenticated(NOT_SIGNED_IN)
    source, sign_in = parts.pick(pending.source)
    tokens = await sign_in.code(code, redirect_uri=parts.url(CALLBACK), code_verifier=pending.verifier)
    if tokens.id_token is None:
        raise Unauthenticated(NOT_SIGNED_IN)
    subject = await source.verified_id_token(tokens.id_token, nonce=pending.nonce)
    principal = await source.authenticate(_credential(request, tokens.access_token))
    if principal.subject != subject:
        raise Unauthenticated(NOT_SIGNED_IN)
    await parts.revocations(principal)
    await parts.sessions.end(request.cookies.get(COOKIE, ""))
    cookie = await parts.sessions.start(principal, tokens)
    _log(principal)
    response = RedirectResponse(parts.url(local(pending.next)), 302)
    drop_cookie(response, _cookie(state))
    set_cookie(response, COOKIE, cookie, parts.settings.session_s)
    return response


def _log(principal: Principal) -> None:
    log.info("signed in with a browser", extra={"user_id": principal.user_id})


def _pending(cookies: Mapping[str, str], state: str) -> Pending:
    try:
        value = base64.urlsafe_b64decode(cookies.get(_cookie(state), "") + "===")
        pending = Pending.model_validate_json(value)
    except (ValueError, ValidationError) as error:
        raise InvalidRequest(NOT_BEGUN) from error
    same = secrets.compare_digest(pending.state.encode(), state.encode())
    if not same or pending.until < time.time():
        raise InvalidRequest(NOT_BEGUN)
    return pending


def _cookie(state: str) -> str:
    """The name of the cookie of one sign-in, so that those of several tabs do not meet."""
    return PENDING + hashlib.sha256(state.encode()).hexdigest()[:16]


def _credential(request: Request, token: str) -> Credential:
    peer = request.client.host if request.client else ""
    return Credential(bearer=SecretStr(token), headers={}, peer=peer, method=request.method)


def _is_opened_by_a_person(request: Request) -> bool:
    headers = request.headers
    if request.method != "GET" or "authorization" in headers:
        return False
    mode = headers.get("sec-fetch-mode")
    return mode == "navigate" if mode else "text/html" in headers.get("accept", "")


def _to_sign_in(parts: SignInParts, request: Request) -> Response:
    path, root = request.scope["path"], request.scope.get("root_path", "").rstrip("/")
    path = path[len(root) :] if root and path.startswith(f"{root}/") else path
    then = quote(path) + (f"?{request.url.query}" if request.url.query else "")
    address = parts.url(SIGN_IN) + "?" + urlencode({"next": then})
    return RedirectResponse(address, 302, {"Cache-Control": "no-store", "Vary": "Cookie, Authorization"})


def _page(message: str) -> str:
    text = re.sub(r"`([^`]*)`", r"\1", message)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sign in</title>"
        f"<p>{html.escape(text)}</p><p><a href=sign-in>Sign in again</a></p></html>"
    )
