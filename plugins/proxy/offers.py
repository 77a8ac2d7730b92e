"""Which of our tools a model is offered, and what it is told that they search."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from itertools import accumulate, takewhile
from typing import Any

from litellm import token_counter

from plugins.core.identity import Principal
from plugins.core.passages import printable
from plugins.core.ports import QueryableCollection
from plugins.core.toolbox import Toolbox

SEARCH = "search_documents"
LIST = "list_collections"
MAX_DESCRIPTION = 300
"""Characters of a collection's description."""


def offered(
    toolbox: Toolbox,
    principal: Principal,
    names: Collection[str] | None,
    collections: Sequence[QueryableCollection],
    max_tokens: int,
) -> list[dict[str, Any]]:
    """The tools as a chat request has them; the search's description lists the collections.

    `list_collections` is left out where that says it all, unless it was asked for by its name.

    Args:
        toolbox: All tools.
        principal: Those that it may run.
        names: Of these; None = all.
        collections: What the request may search.
        max_tokens: Of the list of them.
    """
    schemas = toolbox.schemas(principal, names)
    found = {schema["function"]["name"] for schema in schemas}
    if SEARCH not in found:
        return schemas
    listing, is_whole = described(collections, max_tokens, can_list=LIST in found)
    left_out = LIST if is_whole and LIST not in (names or ()) else None
    return [
        _extended(schema, listing) if schema["function"]["name"] == SEARCH else schema
        for schema in schemas
        if schema["function"]["name"] != left_out
    ]


def described(
    collections: Sequence[QueryableCollection], max_tokens: int, *, can_list: bool
) -> tuple[str, bool]:
    """The collections with what each is about, and whether that is all there is to say.

    Where it would be more than `max_tokens`, their names, as far as they go.
    """
    if not collections:
        return "There is no collection that this user may search.", True
    opening = "The collections that can be searched:"
    lines = [_line(collection) for collection in collections]
    if _fitting(lines, max_tokens) == len(lines):
        return "\n".join([opening, *lines]), True
    names = [f"- {_in_one_line(collection.name)}" for collection in collections]
    shown = _fitting(names, max_tokens)
    ending = [f"There are {len(names) - shown} more."] if shown < len(names) else []
    if can_list:
        ending.append(f"`{LIST}` tells what they are about.")
    return "\n".join([opening, *names[:shown], *([" ".join(ending)] if ending else [])]), False


def _fitting(lines: Iterable[str], max_tokens: int) -> int:
    """How many of the lines, from the first, have at most so many tokens together."""
    tokens = accumulate(1 + token_counter(model="", text=line) for line in lines)
    return sum(1 for _ in takewhile(lambda total: total <= max_tokens, tokens))


def _line(collection: QueryableCollection) -> str:
    description = _in_one_line(collection.description)
    if len(description) > MAX_DESCRIPTION:
        description = f"{description[: MAX_DESCRIPTION - 1]}…"
    name = _in_one_line(collection.name)
    return f"- {name}: {description}" if description else f"- {name}"


def _in_one_line(text: str) -> str:
    """A description must not look like another collection."""
    return " ".join(printable(text).split())


def _extended(schema: dict[str, Any], listing: str) -> dict[str, Any]:
    function = schema["function"]
    return {**schema, "function": {**function, "description": f"{function['description']}\n\n{listing}"}}
