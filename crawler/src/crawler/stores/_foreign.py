"""Collections that others made: read only, dense only, by a layout from the settings.

They have no audience, so nothing here looks at a collection of ours: one whose schema has our fields is
refused, whatever the settings say.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pymilvus import AsyncMilvusClient, DataType  # type: ignore[import-untyped]

from crawler.errors import StoreMismatch
from crawler.store import ForeignHit, Layout, Metric, Outline
from crawler.stores import _search
from crawler.stores._connection import Connection

OURS = frozenset({"acl_key", "doc_id", "revision"})
METRICS: Mapping[str, Metric] = {"COSINE": "COSINE", "IP": "IP", "L2": "L2"}


async def outline(connection: Connection, name: str, layout: Layout) -> Outline:
    """The dimension and the metric of the layout's vectors.

    Raises:
        StoreMismatch: With what is not as the layout says.
    """
    fields = await _fields(connection, name)
    _fits(fields, layout)
    described = await connection.call(lambda client: client.describe_index(name, layout.vector))
    metric = METRICS.get(str((described or {}).get("metric_type", "")))
    if metric is None:
        raise StoreMismatch(f"The field `{layout.vector}` has no index of the metric COSINE, IP or L2.")
    return Outline(dimension=int(fields[layout.vector]["params"]["dim"]), metric=metric)


async def search(
    connection: Connection, name: str, layout: Layout, vector: Sequence[float], limit: int
) -> list[ForeignHit]:
    """The passages whose vectors are nearest, best first.

    Raises:
        StoreMismatch: With what is not as the layout says.
    """
    found = await outline(connection, name, layout)
    if len(vector) != found.dimension:
        raise StoreMismatch(
            f"The embedding model gives {len(vector)} numbers and the field `{layout.vector}` has "
            f"{found.dimension}."
        )
    named = (layout.text, layout.metadata, layout.source, layout.title, layout.page)

    async def ask(client: AsyncMilvusClient) -> Any:
        return await client.search(
            name,
            data=[list(vector)],
            anns_field=layout.vector,
            limit=limit,
            output_fields=list(dict.fromkeys(field for field in named if field)),
        )

    answer = await connection.loaded(name, ask)
    return [
        _hit(layout, row, _search.score("dense", found.metric, row["distance"]))
        for row in answer[0]
        if isinstance(row["entity"].get(layout.text), str)
    ]


async def _fields(connection: Connection, name: str) -> dict[str, Mapping[str, Any]]:
    described = await connection.call(lambda client: client.describe_collection(name))
    fields = {field["name"]: field for field in described["fields"]}
    if fields.keys() >= OURS:
        raise StoreMismatch("It was made by an installation of this service and cannot be adopted.")
    return fields


def _fits(fields: Mapping[str, Mapping[str, Any]], layout: Layout) -> None:
    wanted = {
        "text": (layout.text, {DataType.VARCHAR}),
        "vector": (layout.vector, {DataType.FLOAT_VECTOR}),
        "metadata": (layout.metadata, {DataType.JSON}),
        "source": (layout.source, {DataType.VARCHAR}),
        "title": (layout.title, {DataType.VARCHAR}),
        "page": (layout.page, {DataType.INT8, DataType.INT16, DataType.INT32, DataType.INT64}),
        "id": (layout.id, {DataType.VARCHAR, DataType.INT64}),
    }
    for role, (field, types) in wanted.items():
        if field is None:
            continue
        if field not in fields:
            raise StoreMismatch(
                f"It has no field `{field}` for `{role}`; it has: {', '.join(sorted(fields))}."
            )
        if fields[field]["type"] not in types:
            names = " or ".join(sorted(kind.name for kind in types))
            raise StoreMismatch(f"The field `{field}` for `{role}` must be {names}.")
    if layout.id is not None and not fields[layout.id].get("is_primary"):
        raise StoreMismatch(f"The field `{layout.id}` for `id` is not the primary key.")


def _hit(layout: Layout, row: Any, score: float) -> ForeignHit:
    entity = row["entity"]

    def text(field: str | None) -> str | None:
        value = entity.get(field) if field else None
        return value if isinstance(value, str) and value else None

    page = entity.get(layout.page) if layout.page else None
    return ForeignHit(
        id=str(row.id),
        content=entity[layout.text],
        source=text(layout.source),
        title=text(layout.title),
        page=page if isinstance(page, int) and page > 0 else None,
        attributes=_attributes(entity.get(layout.metadata) if layout.metadata else None),
        score=score,
    )


def _attributes(value: Any) -> dict[str, Any]:
    """What of a JSON object may be an attribute: texts, numbers and booleans."""
    if isinstance(value, str | bytes):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    if not isinstance(value, dict):
        return {}
    return {str(key): item for key, item in value.items() if isinstance(item, str | int | float | bool)}
