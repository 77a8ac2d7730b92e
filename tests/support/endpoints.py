"""Our routes, their types, and examples that a real proxy answered, for `docs/architecture.md`."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
from fastapi.routing import APIRoute
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from plugins.api import admin
from plugins.api.route import ErrorBody, ErrorDetail
from plugins.core import document_shapes, shapes
from tests.support.interfaces import formatted
from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart, copy, quickstart

WIDTH = 100
FORM = "a form with `files`, or `AddDocuments`"
RAW_BODIES = {
    "/v1/collections/{collection}/add": FORM,
    "/v1/collections/{collection}/preview": "a form with one `file`, or `DocumentInput`",
    "/api/auth/login": "a form with `username` and `password`",
    "/api/auth/backchannel-logout": "a form with `logout_token`",
}
"""What routes take that read the body themselves, or take a form."""


@cache
def routes() -> list[APIRoute]:
    """Those that the sample configuration mounts, in the order in which they are tried."""
    from plugins.bundle.bundle import Bundle
    from plugins.bundle.resources import Resources
    from plugins.core.config import load
    from plugins.proxy.mount import authenticated, standing_of

    names = ("LITELLM_MASTER_KEY", "DEMO_ALICE_KEY", "DEMO_BOB_KEY", "DEMO_CAROL_KEY")
    folder = tempfile.mkdtemp(prefix="collections-routes-")
    values = {name: f"sk-{name}-0123456789-0123456789" for name in names} | {"DATA_DIR": folder}
    try:
        with mock.patch.dict(os.environ, values):
            config = load(ROOT / "config")
            bundle = Bundle(config, Resources(config))
    finally:
        shutil.rmtree(folder)
    administration = admin.router(mock.Mock(), authenticated, standing_of)  # `Process` mounts it beside them
    found = [route for router in [*bundle.routers, administration] for route in router.routes]
    return [route for route in found if isinstance(route, APIRoute)]


def route_table() -> str:
    """A row for each method of each route."""
    rows = ["| method | route | | takes | answers |", "|---|---|---|---|---|"]
    for route in sorted(routes(), key=lambda route: (route.path, sorted(route.methods or ()))):
        for method in sorted(route.methods or ()):
            takes = RAW_BODIES.get(route.path) or (
                named(route.body_field.field_info.annotation) if route.body_field else ""
            )
            answers = f"{route.status_code or 200} {named(route.response_model)}".strip()
            path = route.path.replace(":path", "")
            rows.append(f"| {method} | `{path}` | {route.summary} | {takes} | {answers} |")
    return "\n".join(rows)


def named(annotation: Any) -> str:
    """`ToolAnswer` or `ToolAnswers`; nothing for what is no type of ours (a stream, a file)."""
    if annotation is None:
        return ""
    text = annotation.__name__ if isinstance(annotation, type) else str(annotation)
    names = [name.rpartition(".")[2] for name in re.findall(r"[\w.]+", text)]
    ours = [name for name in names if name[0].isupper() and name not in ("None", "Any")]
    return " or ".join(f"`{name}`" for name in ours)


@dataclass(frozen=True)
class Example:
    """One request; `{id}` in a path is the id of what `of` answered."""

    person: str
    method: str
    path: str
    says: str
    takes: type[BaseModel] | None
    answers: type[BaseModel]
    status: int = 200
    body: dict[str, Any] | None = None


ONE = "/v1/collections/endpoint-examples"
NOTE = {"filename": "canteen.md", "markdown": "# Canteen\n\nThe canteen opens at noon."}
EXAMPLES: Sequence[Example] = (
    Example(
        "alice",
        "POST",
        "/v1/collections/new",
        "Alice makes a collection that everybody sees.",
        shapes.NewCollection,
        shapes.CollectionView,
        201,
        {"name": "endpoint-examples", "description": "Notes", "access": {"discover": ["*"]}},
    ),
    Example(
        "alice",
        "POST",
        f"{ONE}/add?wait=true",
        "A document as JSON; with `wait`, the answer comes when it can be found.",
        document_shapes.AddDocuments,
        document_shapes.DocumentList,
        200,
        {"documents": [{**NOTE, "metadata": {"department": "house"}}]},
    ),
    Example(
        "alice",
        "POST",
        f"{ONE}/search",
        "A search, narrowed by an attribute.",
        shapes.SearchRequest,
        shapes.SearchPage,
        200,
        {
            "query": "When does the canteen open?",
            "filters": {"type": "eq", "key": "department", "value": "house"},
            "max_num_results": 1,
        },
    ),
    Example(
        "bob",
        "POST",
        f"{ONE}/search",
        "Bob may see the collection, and no more.",
        shapes.SearchRequest,
        ErrorBody,
        403,
        {"query": "When does the canteen open?"},
    ),
    Example(
        "alice",
        "POST",
        "/v1/tools",
        "The same by a tool, as a model would call it.",
        shapes.RunTools,
        shapes.ToolAnswer,
        200,
        {
            "name": "search_documents",
            "arguments": {
                "query": "canteen opens",
                "collections": ["endpoint-examples"],
                "max_num_results": 1,
            },
        },
    ),
    Example(
        "alice",
        "POST",
        "/v1/chat/completions",
        "A chat that answers from it: LiteLLM's route, OpenAI's types.",
        None,
        ChatCompletion,
        200,
        {
            "model": "extractive",
            "messages": [{"role": "user", "content": "When does the canteen open?"}],
            "tools": [{"type": "file_search", "vector_store_ids": ["endpoint-examples"]}],
        },
    ),
    Example("alice", "DELETE", ONE, "Gone, with all that is in it.", None, shapes.Deleted),
)
TYPES: Sequence[type[BaseModel]] = (
    *(shapes.NewCollection, shapes.CollectionView, shapes.SearchRequest, shapes.SearchPage),
    *(shapes.SearchResult, shapes.RunTools, shapes.ToolAnswer, shapes.Deleted),
    *(document_shapes.AddDocuments, document_shapes.DocumentInput),
    *(document_shapes.DocumentList, document_shapes.DocumentView, ErrorBody, ErrorDetail),
)


def examples(running: Quickstart) -> str:
    """All of it: the types, then each request with its answer."""
    return "\n\n".join([f"```python\n{types()}\n```", *answered(running)])


def examples_of_a_new_installation() -> str:
    with tempfile.TemporaryDirectory(prefix="collections-examples-") as name:
        folder = copy(Path(name))
        with quickstart(folder) as running:
            return examples(running)


def types() -> str:
    """The fields of the types, as the source has them."""
    blocks = []
    for model in TYPES:
        file = f"{model.__module__.replace('.', '/')}.py"
        blocks.append("\n".join([f"class {model.__name__}:  # {file}", *fields_of(model)]))
    return formatted("\n\n".join(blocks))


def fields_of(model: type[BaseModel]) -> Iterator[str]:
    source = ast.parse(inspect.getsource(model)).body[0]
    assert isinstance(source, ast.ClassDef)
    for item in source.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            name = item.target.id
            optional = "" if model.model_fields[name].is_required() else " = ..."
            yield f"    {name}: {ast.unparse(item.annotation)}{optional}"


def answered(running: Quickstart) -> Iterator[str]:
    """Ask each of them; the collection is gone in the end in any case.

    Raises:
        AssertionError: An answer has another status.
        pydantic.ValidationError: A request or an answer is not of its type.
    """
    try:
        for example in EXAMPLES:
            answer = running.http(example.person).request(example.method, example.path, json=example.body)
            assert answer.status_code == example.status, answer.text
            if example.takes:
                example.takes.model_validate(example.body)
            example.answers.model_validate(answer.json())
            yield shown(example, answer)
    finally:
        running.http("alice").delete(ONE)


def shown(example: Example, answer: httpx.Response) -> str:
    takes = f"`{example.takes.__name__}` -> " if example.takes else ""
    head = f"**{example.says}** {takes}`{example.answers.__name__}`"
    body = f"\n{compact(example.body)}" if example.body else ""
    request = f"```http\n{example.method} {example.path}{body}\n```"
    return f"{head}\n\n{request}\n\n```json\n{compact(steady(answer.json()))}\n```"


def compact(value: Any, depth: int = 0) -> str:
    """JSON whose short parts are each one line."""
    flat = json.dumps(value)
    if len(flat) + 2 * depth <= WIDTH or not isinstance(value, dict | list) or not value:
        return flat
    indent = "  " * (depth + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(key)}: {compact(item, depth + 1)}" for key, item in value.items()]
    else:
        items = [compact(item, depth + 1) for item in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{indent}" + f",\n{indent}".join(items) + f"\n{'  ' * depth}{last}"


def steady(value: Any, key: str = "") -> Any:
    """What is otherwise in each run, replaced: ids, moments, scores, addresses."""
    if isinstance(value, dict):
        return {name: steady(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [steady(item, key) for item in value]
    if isinstance(value, float) and key == "score":
        return 1.0
    if isinstance(value, int) and key in ("created", "created_at", "prompt_tokens", "total_tokens"):
        return 0
    if key == "batch_id" and value:
        return "batch_..."
    if isinstance(value, str):
        text = re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:4000", value)
        return re.sub(r"\b(vs_|file-|chatcmpl-|job_|job-)[\w-]{8,}", r"\1...", text)
    return value
