"""The output items of OpenAI's Responses API, as JSON objects.

https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from plugins.core.ports import Passage
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Sources
from plugins.proxy.tool_calls import Ran


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def message(item_id: str, parts: list[dict[str, Any]], status: str) -> dict[str, Any]:
    return {"type": "message", "id": item_id, "role": "assistant", "status": status, "content": parts}


def text(content: str, annotations: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "output_text", "text": content, "annotations": annotations, "logprobs": []}


def reasoning(item_id: str, summary: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "reasoning", "id": item_id, "summary": summary}


def function_call(item_id: str, call_id: str, name: str, arguments: str, status: str) -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": item_id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": status,
    }


def search_call(item_id: str, call: Ran, status: str, *, results: bool) -> dict[str, Any]:
    """A `file_search_call`; ``results`` adds the passages that were found."""
    item = {"type": "file_search_call", "id": item_id, "status": status, "queries": queries(call)}
    return item | {"results": [result(passage) for passage in call.passages] if results else None}


def queries(call: Ran) -> list[str]:
    """What a call searches for; empty where it is no search."""
    try:
        query = json.loads(call.arguments or "{}").get("query")
    except (ValueError, AttributeError):
        return []
    return [query] if isinstance(query, str) else []


def result(passage: Passage) -> dict[str, Any]:
    """A passage as a result of a `file_search_call`; attributes are strings and numbers, as OpenAI's are."""
    attributes = {
        "collection": passage.collection,
        "title": passage.title,
        "headings": " > ".join(passage.headings),
        "page": passage.page_first,
    }
    return {
        "file_id": passage.document_id,
        "filename": passage.filename,
        "score": passage.score,
        "text": passage.text,
        "attributes": {key: value for key, value in attributes.items() if value not in (None, "")},
    }


def citations_of(sources: Sources, citations: Citations) -> list[dict[str, Any]]:
    """`file_citation`s of documents here, `url_citation`s of passages of the web; in the text's order.

    ``index`` and ``start_index`` are the position of the brackets in the text, in characters.
    """
    return [
        _annotation(sources.cited, span.number, span.start, span.end, citations) for span in sources.spans
    ]


def _annotation(
    cited: Sequence[Passage], number: int, start: int, end: int, citations: Citations
) -> dict[str, Any]:
    passage = cited[number - 1]
    url = citations.url(passage) if passage.source is not None else None
    if url is not None:
        title = passage.title or passage.filename
        return {"type": "url_citation", "start_index": start, "end_index": end, "title": title, "url": url}
    return {
        "type": "file_citation",
        "index": start,
        "file_id": passage.document_id,
        "filename": passage.filename,
    }
