"""The stock proxy of the rights matrix, and what its chat is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.proxy import ROOT, proxy
from tests.support.rights_stage import (
    HIDDEN_NAME,
    LOCALS,
    NAME,
    QUESTION,
    Stage,
    Tenant,
    configuration,
    stage,
)

MODELS: list[tuple[str, dict[str, Any], str | bool | None]] = [
    ("local/minilm", {"model": "local/minilm", "additional_drop_params": ["encoding_format", "user"]}, None),
    ("extractive", {"model": "local/extractive"}, True),
    ("greedy", {"model": "greedy/model"}, True),
    ("profiled", {"model": "greedy/model"}, "some"),
]
LITELLM: dict[str, Any] = {
    "model_list": [
        {"model_name": name, "litellm_params": params, "model_info": {"rag": rag} if rag else {}}
        for name, params, rag in MODELS
    ],
    "litellm_settings": {
        "callbacks": ["plugins.entry.hooks"],
        # what one caller got must not come out of the cache for another
        "cache": True,
        "cache_params": {"type": "local"},
    },
    "general_settings": {
        "custom_auth": "tests.support.rights_entry.authenticate",
        "custom_auth_run_common_checks": True,
        "master_key": "os.environ/LITELLM_MASTER_KEY",
    },
}
CHAT_CONFIG = {"chat": {"profiles": {"default": {}, "some": {"collections": [NAME, HIDDEN_NAME]}}}}


@dataclass
class Matrix:
    stages: dict[Tenant, Stage]
    log_file: Path
    routes: list[dict[str, Any]]
    """Of ours in LiteLLM's application: method, path, authenticated."""

    @property
    def stage(self) -> Stage:
        """The one that is prepared first."""
        return next(iter(self.stages.values()))


@contextmanager
def matrix_proxy(
    folder: Path,
    tenants: Sequence[Tenant] = (LOCALS,),
    sources: Sequence[Mapping[str, Any]] = (),
    plant: Path | None = None,
) -> Iterator[Matrix]:
    """The proxy with a prepared stage for each tenant; ``sources`` are those that know the others.

    ``plant`` is a file that is to name the open hole of `rights_entry`; without it that has none.
    """
    routes = folder / "routes.json"
    prompts = folder / "config" / "prompts"
    prompts.mkdir(parents=True)
    prompt = (ROOT / "config" / "prompts" / "answer.md").read_text(encoding="utf-8")
    (prompts / "answer.md").write_text(prompt, encoding="utf-8")
    config = {**configuration(tenants, sources), "chat": CHAT_CONFIG}
    with ExitStack() as stack:
        environment = {"ROUTES_FILE": str(routes)} | ({"PLANT_FILE": str(plant)} if plant else {})
        running = stack.enter_context(proxy(folder, LITELLM, config, environment))
        made = {tenant: stack.enter_context(stage(running.url, tenant)) for tenant in tenants}
        yield Matrix(made, running.log_file, json.loads(routes.read_text(encoding="utf-8")))


def greedy_calls(on: Stage) -> list[dict[str, Any]]:
    """Everything that a model could try."""
    ids = [on.documents["open"]["id"], on.documents["closed"]["id"], on.hidden_document["id"]]
    ids += [f"{on.hidden}/{on.hidden_document['id']}", f"{on.collection}/{on.documents['closed']['id']}"]
    refs = [NAME, on.collection, on.hidden, HIDDEN_NAME]
    searches: list[dict[str, Any]] = [{"query": QUESTION, "max_num_results": 20}]
    searches += [{"query": QUESTION, "collections": [ref]} for ref in refs]
    searches += [
        {"query": QUESTION, "filters": {"type": "eq", "key": "document_id", "value": ref}} for ref in ids[:3]
    ]
    return [
        *({"name": "search_documents", "arguments": arguments} for arguments in searches),
        *({"name": "read_document", "arguments": {"document_id": ref}} for ref in ids),
        {"name": "list_collections", "arguments": {}},
    ]
