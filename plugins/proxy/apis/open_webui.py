"""Chat completions for Open WebUI: its own `event` objects for what our tools do, and for the sources.

Sources come instead of annotations: it would show both. Events of other types than these would reach its
page unfiltered.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from litellm.types.utils import ModelResponseStream

from plugins.core.passages import place
from plugins.core.ports import Passage
from plugins.proxy.chunks import with_delta, with_event
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Activity, Output, Sources

MAX_SHOWN = 120
"""Characters of a query in a status line."""


async def stream(
    outputs: AsyncGenerator[Output, None], citations: Citations, *, usage: bool
) -> AsyncGenerator[ModelResponseStream, None]:
    """The chunks that Open WebUI gets.

    Args:
        outputs: The loop's.
        citations: Knows the addresses of passages.
        usage: Whether it asked for the usage chunk.
    """
    async with aclosing(outputs):
        async for output in outputs:
            if isinstance(output, Activity):
                lines = dict.fromkeys(described(call.name, call.arguments) for call in output.calls)
                yield with_event(output.chunk, status("; ".join(lines), done=output.done))
            elif isinstance(output, Sources):
                for number, passage in enumerate(output.cited, 1):
                    yield with_event(output.chunk, source(number, passage, citations.url(passage)))
                if output.limit_reached is not None:
                    found = {"limit_reached": output.limit_reached}
                    yield with_delta(output.chunk, {"provider_specific_fields": found})
            elif output.choices or usage:
                yield output


def described(tool: str, arguments: str) -> str:
    """A call in words for its user."""
    try:
        query = json.loads(arguments or "{}").get("query")
    except (ValueError, AttributeError):
        query = None
    return f"Searching: {query[:MAX_SHOWN]}" if isinstance(query, str) else f"Running {tool}"


def status(description: str, *, done: bool) -> dict[str, Any]:
    """A line above the answer."""
    return {"type": "status", "data": {"description": description, "done": done}}


def source(number: int, passage: Passage, url: str | None) -> dict[str, Any]:
    """A passage in the panel of sources.

    Its id is not an address: the page would show the address and ask a public service for its icon.
    """
    source_id = f"{passage.document_id}#{number}"
    metadata: dict[str, Any] = {"source": source_id, "name": place(passage)}
    if passage.page_first is not None:
        metadata["page"] = passage.page_first - 1
    shown = {"id": source_id, "name": place(passage)}
    if url is not None:
        shown["url"] = url
    data = {"source": shown, "document": [passage.text], "metadata": [metadata], "distances": [passage.score]}
    return {"type": "source", "data": data}
