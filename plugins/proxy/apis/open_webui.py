"""Chat completions for Open WebUI: its own `event` objects for what our tools do, and for the sources.

Sources come instead of annotations: it would show both. Events of other types than these would reach its
page unfiltered.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal

from litellm.types.utils import ModelResponseStream

from plugins.core.passages import place, printable
from plugins.core.ports import Passage
from plugins.proxy.asked import is_open_webui
from plugins.proxy.chunks import with_delta, with_event
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Activity, Output, Sources
from plugins.proxy.tool_calls import NO_RESULT, Ran

MAX_SHOWN = 120
"""Characters of a status line."""


def is_asking(data: Mapping[str, Any], setting: Literal["auto", "always", "never"]) -> bool:
    """Whether the client takes events; ``setting`` is `chat.open_webui`."""
    return setting == "always" or (setting == "auto" and is_open_webui(data))


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
                for line in [found(output)] if output.done else output.words:
                    yield with_event(output.chunk, status(line, done=output.done))
            elif isinstance(output, Sources):
                for event in sources(output.cited, citations):
                    yield with_event(output.chunk, event)
                if output.limit_reached is not None:
                    fields = {"limit_reached": output.limit_reached}
                    yield with_delta(output.chunk, {"provider_specific_fields": fields})
            elif output.choices or usage:
                yield output


def found(activity: Activity) -> str:
    """What came of it, for its user."""
    passages = {number: passage for call in activity.calls for number, passage in _numbered(call)}
    if passages:
        documents = {(passage.collection_id, passage.document_id) for passage in passages.values()}
        return f"Found {_counted(len(passages), 'passage')} in {_counted(len(documents), 'document')}"
    if all(call.text in ("", NO_RESULT) for call in activity.calls):
        return "Nothing was found"
    return activity.words[-1]


def status(description: str, *, done: bool) -> dict[str, Any]:
    """A line above the answer."""
    line = " ".join(printable(description).split())
    shown = line if len(line) <= MAX_SHOWN else f"{line[: MAX_SHOWN - 1]}…"
    return {"type": "status", "data": {"description": shown, "done": done}}


def sources(cited: Sequence[Passage], citations: Citations) -> Iterator[dict[str, Any]]:
    """One event for each cited passage: its page shows the n-th as ``[n]``.

    It takes events of one id (in earlier versions, of one name) as one source: each has its own.
    """
    names: dict[str, int] = {}
    for number, passage in enumerate(cited, 1):
        name = place(passage)
        names[name] = names.get(name, 0) + 1
        if names[name] > 1:
            name = f"{name}, passage {names[name]}"
        yield source(number, name, passage, citations.url(passage))


def source(number: int, name: str, passage: Passage, url: str | None) -> dict[str, Any]:
    """A passage in the panel of sources.

    Neither its id nor its name may look like an address: the page would show that instead of the title, and
    ask a public service for its icon.
    """
    source_id = f"{number}#{passage.document_id}"
    name = f"Document {name}" if name.lower().startswith("http") else name
    shown = {"id": source_id, "name": name}
    metadata: dict[str, Any] = {"source": source_id, "name": name}
    if passage.page_first is not None:
        metadata["page"] = passage.page_first - 1  # its pages begin with 0
    if url is not None:
        shown["url"] = url
    data = {"source": shown, "document": [passage.text], "metadata": [metadata], "distances": [passage.score]}
    return {"type": "source", "data": data}


def _numbered(call: Ran) -> Iterator[tuple[int, Passage]]:
    return zip(call.numbers, call.passages, strict=True)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
