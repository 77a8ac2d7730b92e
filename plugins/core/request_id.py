"""The id of a request, alike in LiteLLM's log, in ours and in the answer."""

from __future__ import annotations

import re
import uuid

from starlette.requests import Request

HEADER = "x-litellm-call-id"
"""LiteLLM takes its id of a request from this header, where the client sends it, and answers with it."""

_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")


def request_id(request: Request) -> str:
    """The client's own where it is a plain word, else a new one; the same however often it is asked for."""
    if not hasattr(request.state, "request_id"):
        given = request.headers.get(HEADER, "")
        request.state.request_id = given if _PLAIN.fullmatch(given) else uuid.uuid4().hex
    return str(request.state.request_id)
