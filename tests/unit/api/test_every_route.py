"""What holds for every route of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.dependencies.models import Dependant
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

from plugins.api.route import Route
from tests.support.api_server import Server, authenticated, is_admin


def routes(server: Server) -> list[APIRoute]:
    found = [route for router in server.routers for route in router.routes]
    return [route for route in found if isinstance(route, APIRoute)]


def calls(dependant: Dependant) -> Iterator[Any]:
    yield dependant.call
    for part in dependant.dependencies:
        yield from calls(part)


async def test_every_route_but_health_requires_a_signed_in_caller(server: Server) -> None:
    for route in routes(server):
        wanted = is_admin if route.path == "/health/collections" else authenticated
        assert wanted in set(calls(route.dependant)), f"{route.path} is open"


async def test_every_route_answers_nobody_with_401_in_the_error_form(server: Server) -> None:
    nobody = server.client(None)
    for route in routes(server):
        if route.path == "/health/collections":
            continue
        for method in route.methods or ():
            answer = await nobody.request(method, route.path.replace("{", "").replace("}", ""))
            assert answer.status_code == 401, f"{method} {route.path}"
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
            assert answer.headers["www-authenticate"].startswith("Bearer ")


async def test_every_route_explains_errors_in_our_form(server: Server) -> None:
    assert all(isinstance(route, Route) for route in routes(server))


async def test_the_routes_are_those_of_the_contract(server: Server) -> None:
    one = "/v1/collections/{collection}"
    assert {f"{m} {route.path}" for route in routes(server) for m in route.methods or ()} == {
        "GET /v1/collections",
        "POST /v1/collections/new",
        f"GET {one}",
        f"PATCH {one}",
        f"DELETE {one}",
        f"POST {one}/add",
        f"POST {one}/preview",
        f"POST {one}/reindex",
        f"POST {one}/reindex/cancel",
        "GET /v1/pipelines",
        f"POST {one}/search",
        f"GET {one}/documents",
        f"GET {one}/documents/{{document}}",
        f"PATCH {one}/documents/{{document}}",
        f"DELETE {one}/documents/{{document}}",
        f"GET {one}/documents/{{document}}/content",
        "GET /v1/jobs/{job}",
        "GET /v1/jobs/{job}/events",
        "POST /v1/jobs/{job}/cancel",
        "POST /v1/jobs/{job}/retry",
        f"GET {one}/jobs",
        f"GET {one}/jobs/events",
        "GET /v1/tools",
        "POST /v1/tools",
        f"GET {one}/access",
        f"PUT {one}/access",
        f"GET {one}/access/effective",
        "GET /v1/users",
        "GET /v1/roles",
        "GET /v1/audit",
        "GET /v1/audit/exchanges",
        "GET /v1/audit/export",
        "GET /v1/ollama/models",
        "POST /v1/ollama/models",
        "GET /v1/ollama/models/{name:path}",
        "DELETE /v1/ollama/models/{name:path}",
        "GET /health/collections",
    }


async def test_the_openapi_page_describes_every_route(server: Server) -> None:
    document = server.app.openapi()
    assert set(document["paths"]) == {route.path_format for route in routes(server)}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert operation["summary"], where
            assert operation["description"], where
            assert len(operation["tags"]) == 1, where
            body = operation.get("requestBody", {}).get("content", {})
            if "application/json" in body:
                assert {"example", "examples"} & set(body["application/json"]), where
                assert body["application/json"]["schema"], where
            if path != "/health/collections":
                assert {"400", "401", "503"} <= set(operation["responses"]), where
                assert "422" not in operation["responses"], where
    schemas = set(document["components"]["schemas"])
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


class ProxyLikeException(Exception):
    """As LiteLLM's: the app has a handler for it."""


async def test_an_error_that_the_app_has_a_handler_for_goes_to_it(server: Server) -> None:
    async def handler(request: Any, error: Exception) -> JSONResponse:
        return JSONResponse({"error": {"message": "key is over budget"}}, 429)

    server.app.add_exception_handler(ProxyLikeException, handler)
    server.search.error = ProxyLikeException()
    answer = await server.as_alice.post("/v1/collections/a/search", json={"query": "a"})
    assert (answer.status_code, answer.json()["error"]["message"]) == (429, "key is over budget")


async def a_start_and_no_more() -> AsyncIterator[bytes]:
    yield b'{"query":'
    await asyncio.Event().wait()


async def spaces_without_end() -> AsyncIterator[bytes]:
    while True:
        yield b" "
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("limit", "content", "message"),
    [
        ("STALLED_S", a_start_and_no_more, "The body did not go on for 0.01 seconds."),
        ("BODY_S", spaces_without_end, "The body was not there within 0.01 seconds."),
    ],
)
async def test_a_body_that_does_not_come_to_its_end_is_given_up(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    content: Callable[[], AsyncIterator[bytes]],
    message: str,
) -> None:
    monkeypatch.setattr(f"plugins.api.route.{limit}", 0.01)
    answer = await server.as_alice.post("/v1/collections/handbook/search", content=content())
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["message"] == message


@pytest.mark.parametrize(
    ("detail", "message"),
    [
        ("No such key", "No such key"),
        ({"error": "No such key"}, "No such key"),
        ({"error": {"message": "No such key"}}, "No such key"),
        (["?"], "The request was refused."),
    ],
)
async def test_an_http_exception_is_told_in_our_form(detail: Any, message: str) -> None:
    routes = APIRouter(route_class=Route)

    @routes.get("/refused")
    async def refused() -> None:
        raise HTTPException(403, detail, headers={"x-reason": "key"})

    app = FastAPI()
    app.include_router(routes)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        answer = await client.get("/refused")
    assert answer.status_code == 403
    assert answer.headers["x-reason"] == "key"
    assert answer.json()["error"] == {
        "message": message,
        "type": "permission_error",
        "param": None,
        "code": "403",
    }
