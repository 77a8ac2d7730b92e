"""One case of the rights matrix: the request that a row means, and what its answer must be."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from plugins.core.wire import TABLE
from tests.support.rights_stage import HIDDEN, QUESTION, Stage
from tests.support.rights_table import CHAT, Case, rows

NOBODYS_COLLECTION = "no-such-collection"
NOBODYS_DOCUMENT = "file-00000000000000000000000000000000"
NOBODYS_MODEL = "no-such-model"
NOBODYS_JOB = "job_00000000000000000000000000000000"
NOBODYS_KEY = "sk-nobody-ever-made-this-key-0123456789"
TYPES = {(wire.status, wire.type) for wire in TABLE.values()}


@dataclass(frozen=True)
class Request:
    method: str
    route: str
    """With `{collection}`, `{document}`, `{job}`."""
    names: dict[str, str] = field(default_factory=dict)
    """What stands for them, in the path and in the body."""
    options: dict[str, Any] = field(default_factory=dict)

    def send(self, client: httpx.Client) -> httpx.Response:
        options = _filled(self.options, self.names)
        path = self.route.format(**self.names)
        if not self.route.endswith("/events"):
            return client.request(self.method, path, **options)
        with client.stream(self.method, path, **options) as answer:  # which may not end by itself
            begin = next(answer.iter_bytes(), b"")
            return httpx.Response(answer.status_code, headers=answer.headers, content=begin)


def _filled(value: Any, names: dict[str, str]) -> Any:
    """The value with each `{name}` in its texts filled in."""
    if isinstance(value, dict):
        return {key: _filled(part, names) for key, part in value.items()}
    if isinstance(value, list):
        return [_filled(part, names) for part in value]
    return re.sub(r"\{(\w+)\}", lambda m: names[m[1]], value) if isinstance(value, str) else value


def request(stage: Stage, case: Case) -> Request:
    """What the row means. What would be spoilt by success is made for this request alone."""
    row = case.row
    spoils = row.method in ("PATCH", "DELETE") or row.case == "replace"
    names = {"collection": stage.collection, "name": NOBODYS_MODEL}
    if row.document:
        make = stage.fresh if spoils and case.status < 400 else stage.document
        document = make(case.identity, row.document)
        names |= {"document": document["id"], "job": document["job"]["id"]}
    elif (row.method == "DELETE" or row.case == "without oneself" or row.route.endswith("/reindex")) and (
        case.status < 400
    ):
        names["collection"] = stage.fresh_collection()
    return Request(row.method, row.route, names, options(stage, row.route, row.method, row.case))


def options(stage: Stage, route: str, method: str, case: str) -> dict[str, Any]:
    """The body, and the headers of chat."""
    if route == CHAT:
        return chat_options(case, "{collection}")
    if method == "POST" and route == "/v1/tools":
        return {"json": tool(case)}
    number = next(stage.numbers)
    new = {"markdown": f"The code word is nothing but {number}.", "filename": f"new-{number}.md"}
    created = {
        "granted name": f"{stage.tenant.collection}-{number}",
        "other name": f"other-{number}",
        "taken name": stage.tenant.collection,
    }
    bodies: dict[tuple[str, str], Any] = {
        ("/v1/collections/new", case): {"name": created.get(case)},
        ("/v1/collections/{collection}", ""): {"description": "What everyone should know"},
        ("/v1/ollama/models", ""): {"model": NOBODYS_MODEL},
        ("/api/admin/reload", ""): {},
        ("/v1/collections/{collection}/search", ""): {"query": QUESTION, "max_num_results": 50},
        ("/v1/collections/{collection}/reindex", ""): {},
        ("/v1/collections/{collection}/reindex/cancel", case): {},
        ("/v1/collections/{collection}/preview", ""): new,
        ("/v1/jobs/{job}/cancel", "ended"): {},
        ("/v1/jobs/{job}/retry", "ended"): {},
        ("/v1/collections/{collection}/add", "new"): {"documents": [new]},
        ("/v1/collections/{collection}/add", "replace"): {"documents": [{**new, "id": "{document}"}]},
        ("/v1/collections/{collection}/documents/{document}", "attributes"): {"metadata": {"year": 2025}},
        ("/v1/collections/{collection}/documents/{document}", "audience"): {
            "acl": [stage.tenant.insiders, "user:local/x"]
        },
    }
    if method == "PUT":
        return {"json": stage.tenant.access if case == "with oneself" else {"query": ["*"]}}
    if case == "of another":
        return {"params": {"user": stage.tenant.subject("query")}}
    if method in ("GET", "DELETE"):
        return {}
    return {"json": bodies[route, case]}


def tool(case: str) -> dict[str, Any]:
    """The body of `POST /v1/tools`."""
    name = case.partition(" ")[0]
    arguments: dict[str, dict[str, Any]] = {
        "list_collections": {},
        "search_documents": {"query": QUESTION, "collections": ["{collection}"], "max_num_results": 50},
        "search_documents everywhere": {"query": QUESTION, "max_num_results": 50},
        "read_document": {"document_id": "{document}"},
    }
    return {"name": name, "arguments": arguments[case]}


def chat_options(
    case: str, collection: str, *, stream: bool = False, model: str = "extractive"
) -> dict[str, Any]:
    """A chat request that asks for documents in one of the ways there are."""
    body: dict[str, Any] = {
        "model": model,
        "stream": stream,
        "messages": [{"role": "user", "content": QUESTION}],
    }
    headers: dict[str, str] = {}
    if case == "file_search":
        body["tools"] = [{"type": "file_search", "vector_store_ids": [collection], "max_num_results": 50}]
    elif case == "file_search unnamed":
        body["tools"] = [{"type": "file_search", "max_num_results": 50}]
    elif case == "rag object":
        body["rag"] = {"collections": [collection], "max_num_results": 50}
    elif case == "header":
        headers["x-rag-collections"] = collection
    elif case != "the model asks":
        raise AssertionError(f"no chat request is called {case}")
    return {"json": body, "headers": headers}


def check(stage: Stage, case: Case, asked: Request) -> httpx.Response:
    """Send it, and hold the answer against the row.

    Raises:
        AssertionError: The status is another, the error has another form, or something leaks.
    """
    client = stage.client(case.identity)
    answer = asked.send(client)
    assert answer.status_code == case.status, f"{case}: {answer.status_code} {answer.text[:500]}"
    forbidden = stage.forbidden(case.identity)
    if case.row.route == "/api/admin/config":
        forbidden.discard(HIDDEN)  # a profile of the configuration names it
    leaks = {word for word in forbidden if word in f"{answer.text}{answer.headers}"}
    assert not leaks, f"{case}: the answer holds {leaks}: {answer.text[:500]}"
    if answer.status_code >= 400:
        check_error(case, answer)
    if answer.status_code == 404 and asked.names:
        check_twin(stage, case, asked, answer)
    return answer


def check_error(case: Case, answer: httpx.Response) -> None:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}, f"{case}: {error}"
    assert (answer.status_code, error["type"]) in TYPES, f"{case}: {error}"
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer "), f"{case}: {answer.headers}"
    if answer.status_code == 403:
        words = re.findall(r"`\w+`|audience", case.row.needs)
        assert any(word in error["message"] for word in words), f"{case}: the right is not named: {error}"


def check_twin(stage: Stage, case: Case, asked: Request, answer: httpx.Response) -> None:
    """What one may not know of is refused word for word as what does not exist."""
    nothing = {"document": NOBODYS_DOCUMENT, "job": NOBODYS_JOB}
    if case.identity == "stranger":
        nothing["collection"] = NOBODYS_COLLECTION
    twin = replace(asked, names={**asked.names, **nothing}).send(stage.client(case.identity))
    assert (twin.status_code, twin.json()) == (answer.status_code, answer.json()), f"{case}: {twin.text}"


def nobodys_key_opens_nothing(stage: Stage) -> None:
    """A key that nobody made is refused on every route that needs a sign-in.

    Raises:
        AssertionError: It is not.
    """
    headers = {"authorization": f"Bearer {NOBODYS_KEY}"}
    with httpx.Client(base_url=stage.url, headers=headers, timeout=60, trust_env=False) as client:
        for row in rows():
            if row.expected["none"] == 401:
                path = row.route.format(collection=stage.collection, document="x", job="x", name="x")
                answer = client.request(row.method, path, json={} if row.method != "GET" else None)
                assert answer.status_code == 401, f"{row}: {answer.status_code} for a key that nobody made"
