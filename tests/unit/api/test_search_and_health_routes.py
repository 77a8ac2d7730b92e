"""`POST /v1/collections/{id}/search` and `GET /health/collections`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crawler.errors import CrawlError, StoreUnavailable
from crawler.store import Comparison
from plugins.core.errors import InvalidRequest
from plugins.core.ports import HealthReport
from tests.support.api_server import Server
from tests.support.services import a_passage


async def test_a_search_answers_in_the_shape_of_openai(server: Server) -> None:
    server.search.passages = [a_passage("30 days of leave")]
    answer = await server.as_alice.post(
        "/v1/collections/handbook/search",
        json={
            "query": "leave",
            "filters": {"type": "eq", "key": "page", "value": 3},
            "max_num_results": 5,
            "ranking_options": {"ranker": "rrf", "score_threshold": 0.1},
        },
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "object": "vector_store.search_results.page",
        "search_query": ["leave"],
        "data": [
            {
                "file_id": "d1",
                "filename": "handbook.pdf",
                "score": 0.5,
                "attributes": {
                    "department": "people",
                    "title": "Handbook",
                    "headings": "Leave",
                    "page": 3,
                    "page_last": 3,
                    "collection_id": "vs_h",
                },
                "content": [{"type": "text", "text": "30 days of leave"}],
            }
        ],
        "has_more": False,
        "next_page": None,
    }
    assert server.search.collections == ["handbook"]
    assert server.search.request.filters == Comparison(type="eq", key="page", value=3)
    assert server.search.request.max_num_results == 5


@pytest.mark.parametrize(
    ("user", "status", "code"),
    [
        ("alice", 200, None),
        ("bob", 200, None),
        ("carol", 403, "permission_denied"),
        ("stranger", 404, "collection_not_found"),
    ],
)
async def test_only_who_may_query_searches(server: Server, user: str, status: int, code: str | None) -> None:
    await server.collection(query=["user:bob"], discover=["user:carol"], add=["user:carol"])
    client = server.client(user, server.searching)
    answer = await client.post("/v1/collections/handbook/search", json={"query": "leave"})
    assert answer.status_code == status
    assert answer.json().get("error", {}).get("code") == code
    assert answer.json().get("data", []) == []


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "a", "max_num_results": 0}, "max_num_results"),
        ({"query": "a", "max_num_results": 51}, "max_num_results"),
        ({"query": "a", "filters": {"type": "eq", "key": "a"}}, "filters.value"),
        ({"query": "a", "filters": {"type": "like", "key": "a", "value": 1}}, "filters.type"),
        (
            {"query": "a", "filters": {"type": "and", "filters": [{"type": "eq", "key": "", "value": 1}]}},
            "filters.filters.0.key",
        ),
        ({"query": "a", "filters": "page=3"}, "filters"),
        ({"query": "a", "ranking_options": {"ranker": "magic"}}, "ranking_options.ranker"),
    ],
)
async def test_a_wrong_search_is_400_and_the_field_is_named(
    server: Server, body: dict[str, Any], param: str
) -> None:
    answer = await server.as_alice.post("/v1/collections/handbook/search", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert server.search.searches == 0


async def test_a_field_that_the_store_does_not_know_is_400(server: Server) -> None:
    server.search.error = InvalidRequest("`colour` is not a field", param="colour")
    answer = await server.as_alice.post("/v1/collections/handbook/search", json={"query": "a"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "colour")


async def test_a_store_that_is_away_is_503_with_a_time_to_try_again(server: Server) -> None:
    server.search.error = StoreUnavailable()
    answer = await server.as_alice.post("/v1/collections/handbook/search", json={"query": "a"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["error"]["code"] == "store_unavailable"


@pytest.mark.parametrize("error", [RuntimeError("secret at /srv/x"), CrawlError("a reason")])
async def test_only_errors_of_ours_show_their_text(
    server: Server, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    server.search.error = error
    answer = await server.as_alice.post(
        "/v1/collections/handbook/search", json={"query": "a"}, headers={"x-litellm-call-id": "r-17"}
    )
    shown = answer.json()["error"]["message"]
    assert answer.headers["x-litellm-call-id"] == "r-17"
    if isinstance(error, CrawlError):
        assert (answer.status_code, shown) == (400, "a reason")
    else:
        assert answer.status_code == 500
        assert "secret" not in answer.text
        [record] = [record for record in caplog.records if "unforeseen" in record.message]
        assert record.__dict__["request_id"] == "r-17"


async def test_a_request_id_that_is_no_plain_word_is_replaced(server: Server) -> None:
    answer = await server.as_alice.get("/v1/collections", headers={"x-litellm-call-id": "a b\tc"})
    assert answer.headers["x-litellm-call-id"] not in ("", "a b\tc")


async def test_health_shows_words_to_anyone_and_details_to_admins(server: Server) -> None:
    words = dict.fromkeys(("status", "store", "database", "worker", "identity"), "ok")
    anyone = await server.client(None).get("/health/collections")
    assert (anyone.status_code, anyone.json()) == (200, words)
    assert (await server.as_alice.get("/health/collections")).json() == words
    admin = await server.client("root").get("/health/collections")
    assert admin.json() == {**words, "details": {"store": {"version": "3.2.1"}}}


async def test_health_is_as_bad_as_its_worst_part(server: Server) -> None:
    server.health.report = HealthReport(
        store="ok", database="ok", worker="degraded", identity="ok", details={}
    )
    degraded = await server.client(None).get("/health/collections")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    server.health.report = HealthReport(
        store="unavailable", database="ok", worker="degraded", identity="ok", details={}
    )
    unavailable = await server.client(None).get("/health/collections")
    assert (unavailable.status_code, unavailable.json()["status"]) == (503, "unavailable")


async def test_health_says_that_a_process_is_about_to_end(server: Server) -> None:
    server.health.report = replace(server.health.report, stopping=True)
    ending = await server.client(None).get("/health/collections")
    assert (ending.status_code, ending.json()["status"], ending.json()["store"]) == (503, "unavailable", "ok")
