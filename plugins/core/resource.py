"""Where clients that were refused learn how to sign in (RFC 9728)."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.requests import Request

METADATA_PATH = "/.well-known/oauth-protected-resource/v1"
"""Of the resource `/v1`; the path without `/v1` is LiteLLM's own."""


def name_metadata(app: FastAPI, public_base_url: str) -> None:
    """Say once where the metadata is: `resource_metadata` answers it for every request of the application."""
    app.state.resource_metadata = public_base_url.rstrip("/") + METADATA_PATH


def resource_metadata(request: Request) -> str | None:
    """The address of the metadata, for the 401 of this request."""
    app = request.scope.get("app")  # LiteLLM makes requests without one for web sockets
    return getattr(app.state, "resource_metadata", None) if isinstance(app, FastAPI) else None
