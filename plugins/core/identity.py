"""Who is asking, and the subjects that grants name."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from plugins.core.errors import InvalidRequest

EVERYONE = "*"
SOURCE_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")

Right = Literal["discover", "query", "add", "manage"]
RIGHTS: tuple[Right, ...] = ("discover", "query", "add", "manage")


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request brought to identify itself."""

    bearer: SecretStr | None
    headers: Mapping[str, str] = field(repr=False)
    """Lower-case names."""
    peer: str
    """The address of the other end of the connection."""
    method: str = ""
    """The request's HTTP method; empty where it is not known, which counts as a write."""
    path: str = ""
    """Of the request's address."""


class Principal(BaseModel):
    """Someone who signed in. Equal names of two sources are two different subjects."""

    model_config = ConfigDict(frozen=True, extra="forbid", ignored_types=(cached_property,))

    source: str
    """The name of the identity source that vouches for everything below."""
    subject: str
    """Stable identifier at the issuer (OIDC ``sub``)."""
    issuer: str | None = None
    username: str
    email: str | None = None
    groups: frozenset[str] = frozenset()
    """Paths without the leading slash: ``finance/eu``."""
    roles: frozenset[str] = frozenset()
    session: str | None = None
    """The issuer's name of the session that the credential is of (OIDC ``sid``)."""
    issued_at: float | None = None
    """When the credential was issued, in seconds since 1970."""
    token: SecretStr | None = Field(default=None, repr=False, exclude=True)
    """The credential itself; never logged, never sent to a model."""
    store_credential: SecretStr | None = Field(default=None, repr=False, exclude=True)
    """What the vector store knows this person by (Milvus: ``user:password`` or an API key); as the token."""

    @cached_property
    def subjects(self) -> frozenset[str]:
        """All subjects of grants that mean this principal, ``*`` among them."""
        names = {EVERYONE, f"user:{self.source}/{self.username}"}
        names.update(f"group:{self.source}/{group.lstrip('/')}" for group in self.groups)
        names.update(f"role:{self.source}/{role}" for role in self.roles)
        return frozenset(names)

    @property
    def user_id(self) -> str:
        """Unique over all sources; what logs, spend and ownership name."""
        return f"{self.source}/{self.username}"


class Decision(BaseModel):
    """The answer of a right's check and the rule that gave it."""

    model_config = ConfigDict(frozen=True)

    allowed: bool
    rule: str


def canonical_subject(text: str, sources: Collection[str], param: str | None = None) -> str:
    """A subject in full: ``kind:source/name`` or ``*``.

    The short form ``kind:name`` is accepted where there is only one source.

    Raises:
        InvalidRequest: It is not a subject, names an unknown source, or is short and ambiguous.
    """
    if text == EVERYONE:
        return text
    kind, colon, rest = text.partition(":")
    if kind not in ("user", "group", "role") or not colon or not rest.strip("/ "):
        raise InvalidRequest(
            f"`{text[:100]}` is not a subject; write user:<source>/<name>, group:<source>/<path>, "
            "role:<source>/<name> or *",
            param=param,
        )
    if len(text) > 512 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise InvalidRequest("a subject has at most 512 characters and no control characters", param=param)
    source, slash, name = rest.partition("/")
    if slash and source in sources and name:
        return f"{kind}:{source}/{name.lstrip('/')}"
    if len(sources) == 1:
        return f"{kind}:{next(iter(sources))}/{rest.lstrip('/')}"
    raise InvalidRequest(
        f"`{text[:100]}` must name its source: {kind}:<source>/<name>, "
        f"where the source is one of {', '.join(sorted(sources))}",
        param=param,
    )
