"""What a chat request asks of us: tools or not, and what they are narrowed to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crawler.store import Filter
from plugins.core.chat_config import Mode
from plugins.core.errors import InvalidRequest
from plugins.core.shapes import RankingOptions
from plugins.core.validation import invalid

HEADER = "x-rag-collections"
"""Names or ids of collections, separated by commas."""
TASK_HEADER = "x-rag-task"
"""Set in Open WebUI's connection to its template ``{{TASK}}``: empty for a question."""
TASK = "### Task:"
"""How Open WebUI's background requests (titles, tags, follow-ups) begin where that header is not set."""
MAX_COLLECTIONS = 32
"""Named in one request."""
MAX_VALUES = 5000
"""In an object of ours; to look at more, and tell what is wrong with each, would take seconds."""


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rag(Strict):
    """The body's ``rag`` object."""

    collections: list[str] | None = Field(default=None, min_length=1, max_length=MAX_COLLECTIONS)
    filters: Filter | None = None
    max_num_results: int | None = Field(default=None, ge=1, le=50)
    ranking_options: RankingOptions | None = None
    mode: Mode | None = None


class FileSearch(Strict):
    """OpenAI's tool: https://platform.openai.com/docs/guides/tools-file-search"""

    type: Literal["file_search"]
    vector_store_ids: list[str] | None = Field(default=None, min_length=1, max_length=MAX_COLLECTIONS)
    filters: Filter | None = None
    max_num_results: int | None = Field(default=None, ge=1, le=50)
    ranking_options: RankingOptions | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """What the request and its model ask for together."""

    profile: str | None = None
    """From the model; None = the model asks for nothing."""
    collections: tuple[str, ...] | None = None
    """Named by the client, ids or names, with the field that names them in ``param``."""
    param: str | None = None
    filters: Filter | None = None
    max_num_results: int | None = None
    ranking_options: RankingOptions | None = None
    mode: Mode | None = None
    """How the model is to come to passages; None = as its profile says."""
    by_client: bool = False
    """The client itself asked; otherwise only the model does."""


def read(data: Mapping[str, Any], rag: bool | str | None) -> Asked | None:
    """What is asked for; None = nothing, and the request is none of our business.

    Args:
        data: The request's body, as LiteLLM hands it to hooks.
        rag: ``model_info.rag`` of the model.

    Raises:
        InvalidRequest: Something of it is not valid; ``param`` is the field.
    """
    if not isinstance(data.get("stream"), bool | None):  # LiteLLM's parts do not agree on what that means
        raise InvalidRequest("`stream` must be true or false", param="stream")
    asked = Asked(profile="default" if rag is True else rag or None)
    header = headers(data).get(HEADER)
    if header is not None:
        names = tuple(name.strip() for name in header.split(",") if name.strip())
        if not 1 <= len(names) <= MAX_COLLECTIONS:
            raise InvalidRequest(
                f"the header {HEADER} must name 1 to {MAX_COLLECTIONS} collections", param=HEADER
            )
        asked = replace(asked, collections=names, param=HEADER, by_client=True)
    tools = data.get("tools")
    for index, tool in enumerate(tools if isinstance(tools, list) else ()):
        if is_file_search(tool):
            search = _validated(FileSearch, tool, f"tools.{index}")
            asked = _with(asked, search, search.vector_store_ids, f"tools.{index}.vector_store_ids")
    if "rag" in data:
        body = _validated(Rag, data["rag"], "rag")
        asked = replace(_with(asked, body, body.collections, "rag.collections"), mode=body.mode)
    return asked if asked.by_client or asked.profile else None


def strip(data: dict[str, Any]) -> None:
    """Remove what was for us, so that no provider sees it."""
    data.pop("rag", None)
    tools = data.get("tools")
    if isinstance(tools, list) and any(is_file_search(tool) for tool in tools):
        data["tools"] = [tool for tool in tools if not is_file_search(tool)]
        if not data["tools"]:
            del data["tools"]


def drop_empty_tools(data: dict[str, Any]) -> None:
    """Remove what is said of tools where there are none: providers refuse it."""
    if not data.get("tools"):
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            data.pop(name, None)


def is_file_search(tool: Any) -> bool:
    return isinstance(tool, dict) and tool.get("type") == "file_search"


def is_background_task(data: Mapping[str, Any]) -> bool:
    """Whether this is Open WebUI asking for a title, tags or follow-up questions."""
    if (task := headers(data).get(TASK_HEADER)) is not None:
        return bool(task.strip())
    messages = data.get("messages")
    if data.get("stream") or data.get("tools") or not isinstance(messages, list) or len(messages) != 1:
        return False
    content = messages[0].get("content") if isinstance(messages[0], dict) else None
    return isinstance(content, str) and content.startswith(TASK)


def is_open_webui(data: Mapping[str, Any]) -> bool:
    """Whether Open WebUI sent the request: it takes sources as events instead of annotations."""
    return any(name == TASK_HEADER or name.startswith("x-openwebui-") for name in headers(data))


def headers(data: Mapping[str, Any]) -> dict[str, str]:
    """The request's headers, lower-case."""
    given = (data.get("proxy_server_request") or {}).get("headers") or {}
    return {str(name).lower(): str(value) for name, value in given.items()}


def _with(asked: Asked, given: Rag | FileSearch, collections: list[str] | None, param: str) -> Asked:
    if collections is not None and asked.collections is not None:
        raise InvalidRequest(f"collections are named twice, in {asked.param} and in {param}", param=param)
    return replace(
        asked,
        collections=asked.collections if collections is None else tuple(collections),
        param=asked.param if collections is None else param,
        filters=given.filters or asked.filters,
        max_num_results=given.max_num_results or asked.max_num_results,
        ranking_options=given.ranking_options or asked.ranking_options,
        by_client=True,
    )


def _validated(model: type[Any], given: Any, param: str) -> Any:
    if _is_larger_than(MAX_VALUES, given):
        raise InvalidRequest(f"{param}: has more than {MAX_VALUES:,} values", param=param)
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), given, param) from error


def _is_larger_than(limit: int, value: Any) -> bool:
    """Whether there are more values in it, at any depth."""
    left = [value]
    for _ in range(limit + 1):
        if not left:
            return False
        value = left.pop()
        if isinstance(value, dict):
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return True
