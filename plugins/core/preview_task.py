"""What the proxy and the child that makes a preview say to each other.

The child gets its task as one line of JSON on standard input, which stays open: when it closes, nobody waits
for the answer any more, and the child ends. It answers with one JSON object, ``{"preview": ...}`` or
``{"error": {"code", "message"}}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crawler.contracts import Frozen
from plugins.core.pipeline_shapes import PreviewView

END_S = 3.0
"""How long a child may take to end by itself."""
NOT_CONFIGURED = "not_configured"
INTERNAL = "internal_error"


class Task(Frozen):
    """What the child is told."""

    pipeline: str
    settings: dict[str, Any] | None
    """The pipeline's, in force where it is asked for; None = it has none any more."""
    proxy_url: str | None
    api_key: str | None
    """Where models are asked, as the worker's settings of these names say."""
    embedding_model: str
    dimension: int
    user: str
    """Who asks: models are asked on behalf of them."""
    filename: str
    media_type: str | None
    path: Path | None
    """The file, which is only read."""
    url: str | None
    markdown: str | None
    metadata: dict[str, Any] | None
    max_bytes: int
    """Of what is fetched."""


class Refusal(Frozen):
    code: str
    message: str


class Answer(Frozen):
    preview: PreviewView | None = None
    error: Refusal | None = None
