"""What a request narrows searches to, applied to a tool's arguments."""

from __future__ import annotations

from collections.abc import Sequence

from crawler.store import Compound, Filter
from plugins.core.errors import Forbidden, ToolRetry, UnknownCollection
from plugins.core.ports import Call, Catalogue


async def narrowed(catalogue: Catalogue, wanted: Sequence[str] | None, call: Call) -> list[str] | None:
    """The collections to search (ids or names; None = all that the caller may query).

    Raises:
        ToolRetry: A wanted one is outside the request's scope.
    """
    allowed = call.scope.collections
    if allowed is None:
        return list(wanted) if wanted else None
    if not wanted:
        return sorted(allowed)
    ids = [ref if ref in allowed else await _id(catalogue, ref, call) for ref in wanted]
    for ref, collection_id in zip(wanted, ids, strict=True):
        if collection_id not in allowed:
            raise ToolRetry(
                f"collections: `{ref}` is not one that this conversation searches. "
                "Leave `collections` out to search all of them."
            )
    return ids


async def _id(catalogue: Catalogue, ref: str, call: Call) -> str:
    try:
        return (await catalogue.get(call.principal, ref)).id
    except (UnknownCollection, Forbidden):
        return ""


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """What both filters admit."""
    if first is None or second is None:
        return first or second
    return Compound(type="and", filters=[first, second])
