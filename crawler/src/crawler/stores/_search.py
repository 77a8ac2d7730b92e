"""Searches as Milvus takes them, and its distances as scores."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pymilvus import AnnSearchRequest, AsyncMilvusClient, RRFRanker  # type: ignore[import-untyped]

from crawler.store import Metric, Query, Ranker
from crawler.stores import _rows

RRF_K = 60
"""Of reciprocal rank fusion, as in Cormack, Clarke and Buettcher (SIGIR 2009)."""
BM25_HALF = 10.0
"""The BM25 score that is given as 0.5."""
CANDIDATES = 50
"""How many each of the two searches contributes to a fusion, at least."""


def request(
    name: str, query: Query, ranker: Ranker, expression: str, search_params: Mapping[str, Any]
) -> Callable[[AsyncMilvusClient], Awaitable[list[Any]]]:
    """A search of one of our collections, as a call of a client."""
    common = {
        "limit": query.limit,
        "output_fields": _rows.OUTPUT,
        "consistency_level": "Strong" if query.fresh else "Bounded",
    }
    data: dict[str, list[Any]] = {"dense": [list(query.vector or ())], "sparse": [query.text]}
    params: dict[str, dict[str, Any]] = {"dense": {"params": dict(search_params)}, "sparse": {"params": {}}}
    if ranker != "rrf":
        field = "dense" if ranker == "dense" else "sparse"
        return lambda client: client.search(
            name,
            data=data[field],
            anns_field=field,
            filter=expression,
            search_params=params[field],
            **common,
        )
    each = max(query.limit, CANDIDATES)
    parts = [
        AnnSearchRequest(data=data[field], anns_field=field, param=params[field], limit=each, expr=expression)
        for field in ("dense", "sparse")
    ]
    return lambda client: client.hybrid_search(name, parts, RRFRanker(RRF_K), **common)


def score(ranker: Ranker, metric: Metric, distance: float) -> float:
    """What Milvus calls distance as a number within 0..1, higher is better: see :meth:`Milvus.search`."""
    if ranker == "rrf":
        value = distance * (RRF_K + 1) / 2
    elif ranker == "bm25":
        # milvus-lite gives the negated score.
        value = abs(distance) / (abs(distance) + BM25_HALF)
    elif metric == "L2":
        value = 1 / (1 + max(distance, 0.0) ** 0.5)
    else:
        value = distance
    return round(min(max(value, 0.0), 1.0), 6)  # single precision has no more
