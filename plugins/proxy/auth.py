"""LiteLLM's `custom_auth` hook: from the identity sources to a `UserAPIKeyAuth` with the principal."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextvars import ContextVar
from typing import Any
from urllib.parse import unquote_plus

from fastapi import Request
from litellm.constants import LITELLM_PROXY_MASTER_KEY_ALIAS
from litellm.proxy import proxy_server
from litellm.proxy._types import LitellmUserRoles, ProxyException, UserAPIKeyAuth, hash_token
from litellm.proxy.auth import user_api_key_auth as litellm_auth
from litellm.proxy.auth.auth_exception_handler import (
    DB_UNAVAILABLE_FALLBACK_USER_ID,
    UserAPIKeyAuthExceptionHandler,
)
from pydantic import Field, SecretStr

from plugins.auth._sessions import COOKIE, cookie_of
from plugins.auth.litellm import NAME as LITELLM
from plugins.auth.litellm import HandBack, Litellm
from plugins.core.errors import BundleError, ConfigError, IdentityUnavailable, InvalidRequest, Unauthenticated
from plugins.core.identity import Credential, Principal, canonical_subject
from plugins.core.identity_config import Allowance
from plugins.core.logs import about
from plugins.core.metrics import SIGN_INS, counted
from plugins.core.ports import IdentitySource
from plugins.core.request_id import HEADER, request_id
from plugins.core.resource import resource_metadata
from plugins.core.telemetry import stage
from plugins.core.wire import to_wire
from plugins.proxy.disconnect import arrived
from plugins.proxy.tracing import join_request

log = logging.getLogger(__name__)

JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]*")
UNKNOWN_KEY = "This key is not known. Check that it is whole, or sign in again."
UNKNOWN_ISSUER = (
    "The access token is malformed, or was issued by another issuer than those that this server trusts."
)


NONE = "none"
"""As the source, in metrics, of a credential that no source accepts."""
LITELLM_KEY_HEADER = "litellm_user_api_key"
"""Where LiteLLM's pass-through routes look for the key; it masks `Authorization` to its loggers, not this."""
EVERYBODY = Allowance(subjects=["*"])
"""Of whom no entry of the configuration is."""
TAKEN = "collections.store_credential"
"""Where the ASGI scope keeps a credential that was taken out of the headers."""
KEPT = "collections.headers"
"""Where it keeps those headers of identity sources that were taken out."""
SESSION = "collections.session"
"""Where it keeps the cookie of a session that was taken out."""
_store_credential: ContextVar[SecretStr | None] = ContextVar("store_credential", default=None)
"""Of the request at hand, for a caller whom LiteLLM checks itself."""


class PrincipalAuth(UserAPIKeyAuth):
    """What LiteLLM knows of a caller, and who it is to us.

    LiteLLM passes this object to hooks, and a copy of it in a request's metadata, which is logged:
    the principal is kept out of every dump and representation.
    """

    principal: Principal | None = Field(default=None, exclude=True, repr=False)


class Refusal(ProxyException):
    """An error with our wire body; LiteLLM's own would answer the status as the `code`."""

    def __init__(self, error: BundleError, identifier: str, resource_metadata: str | None = None) -> None:
        wire = to_wire(error, resource_metadata)
        self.body: dict[str, Any] = wire.body["error"]
        super().__init__(
            message=self.body["message"],
            type=self.body["type"],
            param=self.body["param"],
            code=wire.status,
            headers={**wire.headers, HEADER: identifier},
            openai_code=self.body["code"],
        )

    def to_dict(self) -> dict[str, Any]:
        return dict(self.body)


Guard = Callable[[Principal], Awaitable[None]]
"""Looks at who signed in; raises Unauthenticated or IdentityUnavailable to refuse them after all."""


class Authenticate:
    """The `custom_auth` hook.

    The first source that accepts the credential decides. A key of LiteLLM's own is returned as it is,
    and LiteLLM checks it whole. Every refusal is a `Refusal`; what was not foreseen is answered 503.
    """

    def __init__(
        self,
        sources: Sequence[IdentitySource[Any]],
        allowances: Sequence[Allowance] = (),
        *,
        guards: Sequence[Guard] = (),
        sessions: IdentitySource[Any] | None = None,
        store_credential_header: str | None = None,
    ) -> None:
        names = {source.name for source in sources}
        if any(source.name == LITELLM and not isinstance(source, Litellm) for source in sources):
            raise ConfigError([f"only `use: {LITELLM}` may be the identity source named `{LITELLM}`"])
        if len(names) != len(sources):
            raise ConfigError(["two identity sources have the same name"])
        # subjects never name the sessions: whoever has one is of the source that they signed in at
        self._sources: tuple[IdentitySource[Any], ...] = (*([sessions] if sessions else ()), *sources)
        self._guards = tuple(guards)
        self._header = (store_credential_header or "").lower()
        self._secret_headers = frozenset({LITELLM_KEY_HEADER}).union(
            *(source.secret_headers for source in sources)
        )
        self._allowances = [(_in_full(entry, names), entry) for entry in allowances]

    async def __call__(self, request: Request, api_key: str) -> UserAPIKeyAuth | str:
        """Authenticate a request whose key LiteLLM found in `Authorization` or one of its other headers.

        Raises:
            Refusal: With the status, body and headers for the client.
        """
        identifier = request_id(request)
        about(request_id=identifier)
        arrived(request)
        span = join_request(request)
        try:
            with stage("auth"):
                judged = await self._judged(request, api_key)
        except BundleError as error:
            log.info("sign-in refused: %s", error.message)
            raise Refusal(error, identifier, resource_metadata(request)) from error
        except Exception:  # who cannot be judged is not let in
            log.exception("the sign-in could not be checked")
            raise Refusal(IdentityUnavailable(), identifier) from None
        if isinstance(judged, PrincipalAuth):
            judged.parent_otel_span = span  # LiteLLM says it of keys that it checked itself only
        return judged

    async def _judged(self, request: Request, api_key: str) -> UserAPIKeyAuth | str:
        given = _take(request, self._header)
        _store_credential.set(given)
        _take_from_address(request, api_key)
        credential = _credential(request, api_key, self._secret_headers)
        source = next((source for source in self._sources if source.accepts(credential)), None)
        with counted(SIGN_INS, source.name if source else NONE) as outcome:
            if source is None:
                raise _unknown(credential)
            try:
                principal = await source.authenticate(credential)
            except HandBack:
                outcome.result = "handed_back"
                return _handed_back(api_key)
            for guard in self._guards:
                await guard(principal)
        if given is not None:
            principal = principal.model_copy(update={"store_credential": given})
        about(user_id=principal.user_id)
        return self._allowed(principal)

    def _allowed(self, principal: Principal) -> PrincipalAuth:
        found = (entry for subjects, entry in self._allowances if subjects & principal.subjects)
        entry = next(found, EVERYBODY)
        return PrincipalAuth(
            principal=principal,
            # rate limits and spend count per `api_key`: it must be the same for each token of a user
            api_key=hashlib.sha256(f"principal:{principal.user_id}".encode()).hexdigest(),
            key_alias=principal.user_id,
            user_id=principal.user_id,
            user_email=principal.email,
            user_role=LitellmUserRoles(entry.user_role),
            models=list(entry.models),
            rpm_limit=entry.rpm_limit,
            tpm_limit=entry.tpm_limit,
            max_parallel_requests=entry.max_parallel_requests,
            max_budget=entry.max_budget,
            # what the request's `user` claims counts only where there is no end user yet
            end_user_id=principal.user_id if entry.end_user == "caller" else None,
            metadata=_key_metadata(entry),
        )


def principal_of(auth: UserAPIKeyAuth) -> Principal:
    """The principal behind what LiteLLM passes to hooks and routes.

    A key that LiteLLM checked itself is a principal of the source `litellm`: the master key
    `proxy_admin` with the role `proxy_admin`; a virtual key the user that it belongs to, or
    `key:<alias>` (`key-hash:<hash>`) where it belongs to none, with its user's role and its team as
    the group.

    Raises:
        Unauthenticated: Nobody signed in.
        IdentityUnavailable: LiteLLM let the request in without its database.
    """
    if isinstance(auth, PrincipalAuth) and auth.principal is not None:
        return auth.principal
    if auth.user_id == DB_UNAVAILABLE_FALLBACK_USER_ID:
        raise IdentityUnavailable
    # both marks are set by LiteLLM alone, after it checked a key or a session of its admin pages
    if isinstance(auth, PrincipalAuth) or not (auth.via_virtual_key or auth.is_session_token):
        raise Unauthenticated
    if auth.api_key == LITELLM_PROXY_MASTER_KEY_ALIAS:
        username = LitellmUserRoles.PROXY_ADMIN.value
    elif auth.user_id:
        username = auth.user_id
    elif auth.key_alias or auth.token:
        username = f"key:{auth.key_alias}" if auth.key_alias else f"key-hash:{auth.token}"
    else:
        raise Unauthenticated
    return Principal(
        source=LITELLM,
        subject=auth.token or username,
        username=username,
        email=auth.user_email,
        groups=frozenset({auth.team_id} if auth.team_id else ()),
        roles=frozenset({auth.user_role.value} if auth.user_role else ()),
        store_credential=_store_credential.get(),
    )


def _unknown(credential: Credential) -> Unauthenticated:
    """Why nobody accepts it."""
    if credential.bearer is None:
        return Unauthenticated(why="no_credential")
    if JWT.fullmatch(credential.bearer.get_secret_value()):
        return Unauthenticated(UNKNOWN_ISSUER, why="unknown_issuer")
    return Unauthenticated(UNKNOWN_KEY, why="unknown_key")


def _key_metadata(entry: Allowance) -> dict[str, Any]:
    """What LiteLLM reads in the metadata of a key (`LiteLLMProxyRequestSetup.add_key_level_controls`)."""
    found: dict[str, Any] = {
        "priority": entry.priority,
        "tags": list(entry.tags),
        "spend_logs_metadata": dict(entry.metadata),
    }
    return {name: value for name, value in found.items() if value}


def _take(request: Request, header: str) -> SecretStr | None:
    """The caller's Milvus credential, taken out of the request: LiteLLM logs headers, and may be told to
    forward them to models."""
    if not header:
        return None
    value = request.headers.get(header)
    if value is not None:
        name = header.encode()
        for pairs in (request.headers.raw, request.scope["headers"]):
            pairs[:] = [pair for pair in pairs if pair[0].lower() != name]
        request.state._cached_headers = None  # LiteLLM's copy, which it makes anew
        request.scope[TAKEN] = SecretStr(value)
    taken: SecretStr | None = request.scope.get(TAKEN)
    return taken


def _take_from_address(request: Request, api_key: str) -> None:
    """Leave out the key where it came as a parameter of the address, as Google's clients send it (`?key=`):
    the address is in access logs, and LiteLLM's loggers get it."""
    parts = request.scope.get("query_string", b"").split(b"&")
    kept = [part for part in parts if unquote_plus(part.partition(b"=")[2].decode("latin-1")) != api_key]
    if api_key and kept != parts:
        request.scope["query_string"] = b"&".join(kept)
        for read in ("_url", "_query_params"):
            request.__dict__.pop(read, None)


def _take_session(request: Request) -> str | None:
    """The cookie of a session, taken out of the request: LiteLLM's pass-through routes forward cookies."""
    for pairs in (request.headers.raw, request.scope.get("headers", [])):
        for index, (name, value) in enumerate(pairs):
            if name.lower() == b"cookie" and (found := cookie_of({"cookie": value.decode("latin-1")})):
                request.scope[SESSION] = found
                pairs[index] = (name, b";".join(p for p in value.split(b";") if COOKIE.encode() not in p))
    taken: str | None = request.scope.get(SESSION)
    return taken


def _handed_back(key: str) -> str:
    """The key, for LiteLLM to check.

    Raises:
        Unauthenticated: LiteLLM has no database, so it knows no key but the master key.
    """
    if litellm_auth.enterprise_custom_auth is None:
        log.error("the package litellm_enterprise is missing: LiteLLM cannot check its own keys")
        raise IdentityUnavailable
    master_key = proxy_server.master_key or ""
    is_master = bool(master_key) and hmac.compare_digest(key.encode(), master_key.encode())
    if not is_master and proxy_server.prisma_client is None:
        raise Unauthenticated(UNKNOWN_KEY, why="unknown_key")
    return key


def _headers(request: Request, secret: Collection[str]) -> dict[str, str]:
    """By lower-case name; several of one name are joined with commas (RFC 9110, section 5.3).

    The secret ones are taken out of the request: LiteLLM logs headers, and may send them to models.
    """
    found: dict[str, str] = dict(request.scope.get(KEPT, {}))
    for name, value in request.headers.items():
        found[name] = f"{found[name]}, {value}" if name in found else value
    request.scope[KEPT] = {name: value for name, value in found.items() if name in secret}
    for pairs in (request.headers.raw, request.scope["headers"]):
        pairs[:] = [pair for pair in pairs if pair[0].decode("latin-1").lower() not in secret]
    return found


def hash_refused_keys() -> None:
    """Let LiteLLM's failure hooks and logs have the hash of a refused request's key.

    LiteLLM hashes keys that begin with `sk-` and JWTs; an opaque access token would be there as it is, a good
    one too where a limit or an outage refused it. No hook comes before that.
    """
    handle = UserAPIKeyAuthExceptionHandler.handle_authentication_error

    async def hashed(api_key: str, **others: Any) -> UserAPIKeyAuth:
        return await handle(api_key=hash_token(api_key) if api_key else api_key, **others)

    setattr(UserAPIKeyAuthExceptionHandler, handle.__name__, staticmethod(hashed))


def _credential(request: Request, api_key: str, secret: Collection[str]) -> Credential:
    session = _take_session(request)
    headers = _headers(request, secret)
    if session is not None:
        headers["cookie"] = f"{COOKIE}={session}"
    return Credential(
        bearer=SecretStr(api_key) if api_key else None,
        headers=headers,
        peer=request.client.host if request.client else "",
        method=request.method if request.scope["type"] == "http" else "",
        path=str(request.scope.get("path", "")).removeprefix(request.scope.get("root_path", "")),
    )


def _in_full(entry: Allowance, sources: set[str]) -> frozenset[str]:
    try:
        return frozenset(canonical_subject(text, sources, "identity.allowances") for text in entry.subjects)
    except InvalidRequest as error:
        raise ConfigError([f"identity.allowances: {error.message}"]) from error
