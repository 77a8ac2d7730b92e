"""Services that answer what a test tells them, and remember what they were asked."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from plugins.core.errors import UnknownCollection, UnknownDocument
from plugins.core.identity import Principal, Right
from plugins.core.ports import Call, Passage, Scope
from plugins.core.shapes import CollectionList, CollectionView, SearchRequest

ALICE = Principal(source="local", subject="1", username="alice")


def a_call(scope: Scope | None = None, seconds: float = 30.0) -> Call:
    return Call(principal=ALICE, request_id="r1", deadline=time.monotonic() + seconds, scope=scope or Scope())


def a_passage(text: str, collection_id: str = "vs_h", page: int | None = 3) -> Passage:
    return Passage(
        collection_id=collection_id,
        collection="handbook",
        document_id="d1",
        filename="handbook.pdf",
        title="Handbook",
        headings=("Leave",),
        page_first=page,
        page_last=page,
        text=text,
        score=0.5,
        attributes={"department": "people"},
    )


def a_collection(
    name: str, collection_id: str, permissions: Sequence[Right] = ("discover", "query")
) -> CollectionView:
    return CollectionView(
        id=collection_id,
        name=name,
        description=f"about {name}",
        metadata={},
        embedding_model="local/minilm",
        dimension=384,
        retrieval="hybrid",
        documents=2,
        chunks=20,
        created_at=1,
        permissions=list(permissions),
        pipeline="default",
    )


class FakeCatalogue:
    def __init__(self, ids: Mapping[str, str], permissions: Sequence[Right] = ("discover", "query")) -> None:
        self.views = [a_collection(name, collection_id, permissions) for name, collection_id in ids.items()]

    async def list(
        self, principal: Principal, *, after: str | None = None, limit: int = 100
    ) -> CollectionList:
        return CollectionList(data=self.views[:limit], has_more=len(self.views) > limit)

    async def get(self, principal: Principal, ref: str) -> CollectionView:
        for view in self.views:
            if ref in (view.id, view.name):
                return view
        raise UnknownCollection


class FakeSearch:
    def __init__(self, passages: Sequence[Passage], error: Exception | None = None) -> None:
        self.passages = list(passages)
        self.error = error
        self.searches = 0
        self.collections: Sequence[str] | None = None
        self.request = SearchRequest(query="not asked")
        self.pages: tuple[int, int] | None = None

    async def search(
        self, principal: Principal, collections: Sequence[str] | None, request: SearchRequest
    ) -> list[Passage]:
        self.searches += 1
        self.collections, self.request = collections, request
        if self.error is not None:
            raise self.error
        return self.passages

    async def read(
        self, principal: Principal, document_id: str, pages: tuple[int, int] | None = None
    ) -> list[Passage]:
        self.pages = pages
        found = [passage for passage in self.passages if passage.document_id == document_id]
        if not found:
            raise UnknownDocument
        return found
