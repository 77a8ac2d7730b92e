"""How each error looks to a client: the one table from class to status, OpenAI type and code."""

from __future__ import annotations

from typing import Any, NamedTuple

from crawler import errors as crawl
from plugins.core import errors


class Wire(NamedTuple):
    status: int
    type: str
    code: str


INVALID = "invalid_request_error"
SERVER = "server_error"

TABLE: dict[type[Exception], Wire] = {
    errors.BundleError: Wire(500, SERVER, "internal_error"),
    errors.InvalidRequest: Wire(400, INVALID, "invalid_request"),
    errors.TooLarge: Wire(413, INVALID, "too_large"),
    errors.UnknownTool: Wire(404, INVALID, "tool_not_found"),
    errors.UnknownCollection: Wire(404, INVALID, "collection_not_found"),
    errors.UnknownDocument: Wire(404, INVALID, "document_not_found"),
    errors.UnknownModel: Wire(404, INVALID, "model_not_found"),
    errors.Conflict: Wire(409, INVALID, "conflict"),
    errors.Unauthenticated: Wire(401, "authentication_error", "invalid_api_key"),
    errors.Forbidden: Wire(403, "permission_error", "permission_denied"),
    errors.LimitReached: Wire(429, "rate_limit_error", "rate_limit_exceeded"),
    errors.DeadlineExceeded: Wire(504, SERVER, "deadline_exceeded"),
    errors.Upstream: Wire(502, SERVER, "upstream_error"),
    errors.ModelUnavailable: Wire(503, SERVER, "model_unavailable"),
    errors.IdentityUnavailable: Wire(503, SERVER, "identity_unavailable"),
    crawl.CrawlError: Wire(400, INVALID, "crawl_failed"),
    crawl.UnsupportedFormat: Wire(415, INVALID, "unsupported_format"),
    crawl.UnreadableDocument: Wire(400, INVALID, "unreadable_document"),
    crawl.DocumentTooLarge: Wire(413, INVALID, "document_too_large"),
    crawl.FilterError: Wire(400, INVALID, "invalid_filter"),
    crawl.FetchFailed: Wire(400, INVALID, "fetch_failed"),
    crawl.FetchRefused: Wire(400, INVALID, "fetch_refused"),
    crawl.EmbeddingFailed: Wire(503, SERVER, "embedding_failed"),
    crawl.ModelFailed: Wire(503, SERVER, "model_failed"),
    crawl.StoreError: Wire(502, SERVER, "store_error"),
    crawl.StoreUnavailable: Wire(503, SERVER, "store_unavailable"),
    crawl.StoreRefused: Wire(502, SERVER, "store_refused"),
    crawl.StoreMismatch: Wire(409, INVALID, "store_mismatch"),
    crawl.StoreDenied: Wire(403, "permission_error", "store_denied"),
    crawl.CredentialRefused: Wire(403, "permission_error", "store_credential_refused"),
    crawl.StoreCapability: Wire(400, INVALID, "store_capability"),
}

RETRY_AFTER_S = 2


class WireError(NamedTuple):
    status: int
    body: dict[str, Any]
    """``{"error": {"message", "type", "param", "code"}}``"""
    headers: dict[str, str]


def code_of(error: BaseException) -> str:
    """The error's code, as clients see it."""
    return _wire(error).code


def to_wire(error: Exception, resource_metadata: str | None = None) -> WireError:
    """The response for ``error``. A class that the table lacks shows nothing of itself: 500.

    Args:
        error: What went wrong.
        resource_metadata: Where a refused client learns how to sign in (RFC 9728, section 5.1).
    """
    public = error if isinstance(error, errors.BundleError | crawl.CrawlError) else errors.BundleError()
    wire = _wire(error)
    body = {"message": public.message, "type": wire.type, "param": public.param, "code": wire.code}
    headers: dict[str, str] = {}
    if isinstance(error, errors.Unauthenticated):
        description = error.message.replace("\\", "").replace('"', "'")
        challenge = f'Bearer error="{error.reason}", error_description="{description}"'
        where = f', resource_metadata="{resource_metadata}"' if resource_metadata else ""
        headers["WWW-Authenticate"] = challenge + where
    retry_after_s = getattr(error, "retry_after_s", None)
    if wire.status in (429, 503) or retry_after_s:
        headers["Retry-After"] = str(retry_after_s or RETRY_AFTER_S)
    return WireError(wire.status, {"error": body}, headers)


def _wire(error: BaseException) -> Wire:
    known = isinstance(error, errors.BundleError | crawl.CrawlError)
    kind: type[Any] = type(error)
    return TABLE.get(kind, TABLE[errors.BundleError]) if known else TABLE[errors.BundleError]
