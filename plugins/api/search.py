"""`POST /v1/collections/{id}/search`, in the shape of OpenAI's vector-store search."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends

from plugins.api.collections import CollectionRef
from plugins.api.route import Route, errors, example
from plugins.core.identity import Principal
from plugins.core.ports import Passage, Search
from plugins.core.shapes import SearchPage, SearchRequest, SearchResult, TextContent

_SEARCH = {
    "query": "How many days of notice?",
    "filters": {"type": "eq", "key": "filename", "value": "handbook.pdf"},
    "max_num_results": 5,
    "ranking_options": {"ranker": "auto", "score_threshold": 0.0},
}


def router(searcher: Search, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The route that searches one collection."""
    routes = APIRouter(route_class=Route, tags=["collections"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.post(
        "/v1/collections/{collection}/search",
        summary="Search a collection",
        responses=errors(403, 404, 413),
        openapi_extra=example(_SEARCH),
    )
    async def search_collection(
        caller: Caller, collection: CollectionRef, request: SearchRequest
    ) -> SearchPage:
        """Needs `query`; documents whose audience you are not in are never found."""
        passages = await searcher.search(caller, [collection], request)
        return SearchPage(search_query=[request.query], data=[_result(passage) for passage in passages])

    return routes


def _result(passage: Passage) -> SearchResult:
    own: dict[str, Any] = {
        "title": passage.title,
        "headings": " > ".join(passage.headings) or None,
        "page": passage.page_first,
        "page_last": passage.page_last,
        "collection_id": passage.collection_id,
    }
    return SearchResult(
        file_id=passage.document_id,
        filename=passage.filename,
        score=passage.score,
        attributes={**passage.attributes, **{k: v for k, v in own.items() if v is not None}},
        content=[TextContent(text=passage.text)],
    )
