"""Access tokens of GitLab's OAuth applications, which are opaque: GitLab is asked about each."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from typing import Any
from urllib.parse import urlsplit

import httpx
from pydantic import Field, FilePath, SecretStr, field_validator

from crawler.settings import Settings
from plugins.auth._answers import Answers
from plugins.auth._claims import CONTROL, claim, names, strict_object, text_or_none
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource

log = logging.getLogger(__name__)

OPAQUE = re.compile(r"[A-Za-z0-9_-]{20,255}")
NOT_OURS = ("sk-", "litellm_login_")
"""What keys of this proxy and of LiteLLM begin with."""
PERSONAL = "glpat-"
LEVELS = ("owner", "maintainer", "developer")
LOOPBACK = ("127.0.0.1", "::1", "localhost")
MAX_RESPONSE_BYTES = 1 << 20
REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN)

UNKNOWN = (
    "GitLab does not accept this access token: it has expired, was revoked or is not whole. Sign in again."
)
NOT_PERSONAL = (
    "This is a personal access token of GitLab. Send the OAuth access token of an application that this "
    "server accepts."
)
OTHER_APPLICATION = (
    "The access token was issued to another GitLab application than those that this server accepts. "
    "Sign in through one of those."
)
NO_SCOPE = (
    "The access token lacks the scope `openid`. Sign in again, through an application that asks for it."
)
NO_USER = "The access token stands for an application and not for a user. Sign in as a user."


class GitlabSettings(Settings):
    url: str
    """GitLab's address: `https://gitlab.example.com`."""
    applications: list[str] = Field(min_length=1)
    """The ids (`uid`) of the OAuth applications whose tokens are accepted; those of all others are refused,
    since whoever runs another application has its users' tokens."""
    username_claim: str = "preferred_username"
    """The claim that subjects and logs carry as the name. GitLab's users may rename themselves where its
    administrator lets them, and others may then take the name; `sub`, the user's number, never changes."""
    groups_claim: str = "groups"
    """The claim that holds the paths of groups."""
    cache_s: float = Field(default=60.0, gt=0, le=300)
    """How long what GitLab said of a token counts: a revoked token is refused after so many seconds."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Of asking about one token, in seconds."""
    ca_file: FilePath | None = None
    """PEM file with the authorities to trust for GitLab's TLS certificate."""

    @field_validator("url")
    @classmethod
    def _is_safe(cls, value: str) -> str:
        url = urlsplit(value)
        if (
            url.scheme not in ("https", "http")
            or not url.hostname
            or url.username
            or url.query
            or url.fragment
        ):
            raise ValueError("must be GitLab's address, without user, query or fragment")
        if url.scheme == "http" and url.hostname not in LOOPBACK:
            raise ValueError("must begin with `https://`: access tokens are sent there")
        return value.rstrip("/")


class Gitlab(IdentitySource[GitlabSettings]):
    """Asks GitLab about opaque access tokens. Takes every opaque bearer that is no key, so it stands last.

    The token must be of one of the applications, have the scope `openid`, and stand for a user. Groups are
    the paths of GitLab's groups; the roles are `owner:<path>`, `maintainer:<path>` and `developer:<path>`.
    An address counts only where GitLab says that it is verified. Personal access tokens are refused: they
    are bound to no application and may live long.

    Sources: https://docs.gitlab.com/api/oauth2/#retrieve-the-token-information (`/oauth/token/info`) and
    https://docs.gitlab.com/integration/openid_connect_provider/#shared-information (`/oauth/userinfo`).
    """

    def __init__(self, settings: GitlabSettings, name: str) -> None:
        super().__init__(settings, name)
        self.authorization_server = settings.url
        self._answers = Answers(self._ask, untrusted=True)
        self._client: httpx.AsyncClient | None = None

    def accepts(self, credential: Credential) -> bool:
        if credential.bearer is None:
            return False
        token = credential.bearer.get_secret_value()
        return bool(OPAQUE.fullmatch(token)) and not token.startswith(NOT_OURS)

    async def authenticate(self, credential: Credential) -> Principal:
        token = credential.bearer
        if token is None or not self.accepts(credential):
            raise Unauthenticated(UNKNOWN, why="unknown_key")
        if token.get_secret_value().startswith(PERSONAL):
            raise Unauthenticated(NOT_PERSONAL)
        principal = await self._answers.about(token)
        return principal.model_copy(update={"token": token})

    async def ping(self) -> None:
        status, _ = await self._get("/.well-known/openid-configuration")
        if status != httpx.codes.OK:
            raise IdentityUnavailable

    async def close(self) -> None:
        await self._answers.close()
        if self._client is not None:
            await self._client.aclose()

    async def _ask(self, token: SecretStr) -> tuple[Principal, float]:
        """Whom the token stands for, and for how many seconds that may be kept."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                info = await self._about("/oauth/token/info", token)
                lasts_s = self._lasts_s(info)
                # only now: of another application's token nothing more is asked
                user = await self._about("/oauth/userinfo", token)
        except TimeoutError as error:
            log.warning("identity source %s: GitLab did not answer in time", self.name)
            raise IdentityUnavailable from error
        subject = _number(user.get("sub"))
        if subject is None or subject != _number(info.get("resource_owner_id")):
            log.warning("identity source %s: GitLab's two answers name different users", self.name)
            raise IdentityUnavailable
        return self._principal(subject, user, info), lasts_s

    def _lasts_s(self, info: dict[str, Any]) -> float:
        """How long the token may be taken for good; raises Unauthenticated where it may not at all."""
        application, scope, left_s = info.get("application"), info.get("scope"), info.get("expires_in")
        uid = application.get("uid") if isinstance(application, dict) else None
        if uid not in self.settings.applications:
            raise Unauthenticated(OTHER_APPLICATION)
        if not isinstance(scope, list) or "openid" not in scope:
            raise Unauthenticated(NO_SCOPE)
        if _number(info.get("resource_owner_id")) is None:
            raise Unauthenticated(NO_USER)
        if left_s is None:  # GitLab's word for a token that does not expire
            return self.settings.cache_s
        if not isinstance(left_s, int) or left_s <= 0:
            raise Unauthenticated(UNKNOWN, why="expired")
        return min(self.settings.cache_s, left_s)

    def _principal(self, subject: str, user: dict[str, Any], info: dict[str, Any]) -> Principal:
        settings = self.settings
        found = user.get(settings.username_claim)
        username = subject if settings.username_claim == "sub" else found
        if not isinstance(username, str) or not 0 < len(username) <= 255 or CONTROL.search(username):
            raise Unauthenticated(f"GitLab does not name the user (claim `{settings.username_claim}`).")
        created = info.get("created_at")
        roles = {
            f"{level}:{path}"
            for level in LEVELS
            for path in names(user.get(f"https://gitlab.org/claims/groups/{level}"))
        }
        return Principal(
            source=self.name,
            subject=subject,
            issuer=settings.url,
            username=username,
            issued_at=float(created) if isinstance(created, int) else None,
            email=text_or_none(user.get("email")) if user.get("email_verified") is True else None,
            groups=frozenset(path.strip("/") for path in names(claim(user, settings.groups_claim))),
            roles=frozenset(roles),
        )

    async def _about(self, path: str, token: SecretStr) -> dict[str, Any]:
        status, answer = await self._get(path, token)
        if status in REFUSED:
            raise Unauthenticated(UNKNOWN, why="unknown_key")
        if status != httpx.codes.OK:
            log.warning("identity source %s: GitLab answered %s with status %s", self.name, path, status)
            raise IdentityUnavailable
        return answer

    async def _get(self, path: str, token: SecretStr | None = None) -> tuple[int, dict[str, Any]]:
        """The status, and the object where it is 200. The token goes into a header: addresses are logged."""
        if self._client is None:
            settings = self.settings
            verify = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
            self._client = httpx.AsyncClient(verify=verify, timeout=settings.timeout_s, trust_env=False)
        headers = {"Authorization": f"Bearer {token.get_secret_value()}"} if token else {}
        content = b""
        try:
            async with self._client.stream("GET", f"{self.settings.url}{path}", headers=headers) as response:
                if response.status_code != httpx.codes.OK:
                    return response.status_code, {}
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > MAX_RESPONSE_BYTES:
                        raise ValueError("more than 1 MiB")
            return httpx.codes.OK, strict_object(content)
        except (httpx.HTTPError, OSError, ValueError) as error:
            log.warning("identity source %s: GitLab did not answer as it should: %s", self.name, error)
            raise IdentityUnavailable from error


def _number(value: Any) -> str | None:
    """A user's number, which GitLab writes as one (``resource_owner_id``) and as a text (``sub``)."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value if isinstance(value, str) and value.isascii() and value.isdigit() else None
