"""What can go wrong, without HTTP: `plugins.core.wire` says how each class looks to a client.

    BundleError
    + InvalidRequest, TooLarge, UnknownTool, UnknownCollection, UnknownDocument, UnknownModel, Conflict
    + Unauthenticated, Forbidden
    + LimitReached, DeadlineExceeded
    + Upstream: ModelUnavailable, IdentityUnavailable
    CrawlError               the crawler's own, UnsupportedFormat and StoreUnavailable among them
    ToolRetry, ToolFailed    text for the model, never for HTTP
    ConfigError              at start only

A class's docstring is its public message unless one is given. The cause is kept as ``__cause__`` for
the log and is never shown.
"""

from __future__ import annotations

from typing import Literal

from crawler.errors import ConfigError, StoreUnavailable, UnsupportedFormat

__all__ = [
    "BundleError",
    "ConfigError",
    "Conflict",
    "DeadlineExceeded",
    "Forbidden",
    "IdentityUnavailable",
    "InvalidRequest",
    "LimitReached",
    "ModelUnavailable",
    "StoreUnavailable",
    "TooLarge",
    "ToolFailed",
    "ToolRetry",
    "Unauthenticated",
    "UnknownCollection",
    "UnknownDocument",
    "UnknownModel",
    "UnknownTool",
    "UnsupportedFormat",
    "Upstream",
]


class BundleError(Exception):
    """Something went wrong on our side. Try again; if it stays, tell the operator the request id."""

    def __init__(
        self, message: str | None = None, *, param: str | None = None, retry_after_s: int | None = None
    ) -> None:
        self.message = message or " ".join((type(self).__doc__ or "").split())
        self.param = param
        """The field of the request that is wrong, as the client wrote it."""
        self.retry_after_s = retry_after_s
        super().__init__(self.message)


class InvalidRequest(BundleError):
    """The request is not valid."""


class TooLarge(BundleError):
    """The request is larger than this server accepts."""


class UnknownTool(BundleError):
    """There is no such tool, or you may not run it. GET /v1/tools lists yours."""


class UnknownCollection(BundleError):
    """There is no such collection, or you have no right to it. GET /v1/collections lists yours."""


class UnknownDocument(BundleError):
    """There is no such document, or you have no right to it."""


class UnknownModel(BundleError):
    """There is no such model. GET /v1/ollama/models lists those that are there."""


class Conflict(BundleError):
    """This conflicts with what is already there."""


SignInFailure = Literal[
    "no_credential",
    "unknown_key",
    "unknown_issuer",
    "expired",
    "wrong_signature",
    "wrong_claims",
    "malformed",
    "revoked",
    "session_ended",
    "invalid",
]


class Unauthenticated(BundleError):
    """Sign in: send an access token or a key as `Authorization: Bearer ...`. In Open WebUI: sign in anew."""

    def __init__(
        self,
        message: str | None = None,
        *,
        reason: str = "invalid_token",
        param: str | None = None,
        why: SignInFailure = "invalid",
    ) -> None:
        super().__init__(message, param=param)
        self.reason = reason
        """The ``error`` of the WWW-Authenticate header (RFC 6750, section 3.1)."""
        self.why = why
        """For metrics."""


class Forbidden(BundleError):
    """You do not have the right to do this."""


class LimitReached(BundleError):
    """A limit is reached. Try again later."""


class DeadlineExceeded(BundleError):
    """This took longer than this server allows."""


class Upstream(BundleError):
    """A service that this request needs did not answer as it should. Try again."""


class ModelUnavailable(Upstream):
    """The model did not answer. Try again, or choose another model."""


class IdentityUnavailable(Upstream):
    """Your sign-in cannot be checked at the moment. Try again in a few seconds."""


class ToolRetry(Exception):
    """The model should mend its arguments and call again; the text says what is wrong."""


class ToolFailed(Exception):
    """The model must do without this tool's answer; the text says why."""
