"""What the YAML of a test proxy names: real sources and allowances, the chat hooks with a tool that does as
it is told, and a logger that keeps what LiteLLM gives to loggers.

The tool `search_documents` carries out its query, `;`-separated: ``pause:<path>``, ``touch:<path>``,
``fail`` (`tests.support.chat_entry.act`). Each payload of LiteLLM's is added to the file ``PAYLOADS`` as a
line of JSON.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import litellm
from litellm.integrations.custom_logger import CustomLogger

from crawler.settings import Settings
from plugins.bundle.resolve import resolve
from plugins.core.chat_config import ChatConfig
from plugins.core.config import folder, load
from plugins.core.identity import Decision
from plugins.core.ports import Call, IdentitySource, Parts, Tool, ToolResult
from plugins.core.toolbox import Toolbox
from plugins.proxy.auth import Authenticate
from plugins.proxy.chat import ChatHooks
from plugins.proxy.turns import ChatParts
from tests.support.chat_entry import Query, act, queryable

litellm.enable_post_custom_auth_checks = True


class SearchDocuments(Tool[Settings, Query]):
    """Do as told."""

    async def run(self, args: Query, call: Call) -> ToolResult:
        for order in args.query.split(";"):
            await act(order)
        return ToolResult(text="done")


class Payloads(CustomLogger):
    async def async_log_success_event(
        self, kwargs: Any, response_obj: Any, start_time: Any, end_time: Any
    ) -> None:
        if path := os.environ.get("PAYLOADS"):
            line = json.dumps(kwargs["standard_logging_object"], default=repr)
            with Path(path).open("a") as file:  # noqa: ASYNC230 - a test's log
                file.write(line + "\n")


def parts() -> ChatParts:
    tool = SearchDocuments(Settings(), Parts(catalogue=None, search=None))  # type: ignore[arg-type]
    allowed = Decision(allowed=True, rule="test")
    return ChatParts(
        toolbox=Toolbox({"search_documents": tool}, lambda principal, name: allowed),
        queryable=queryable,
        config=ChatConfig(max_rounds=3, deadline_s=60),
        prompt="Answer.",
    )


config = load(folder())
sources = [
    found.plugin(found.settings, found.name)
    for found in resolve("plugins.auth", IdentitySource, config.identity.sources, "identity.sources")
]
authenticate = Authenticate(sources, config.identity.allowances)
hooks = ChatHooks(parts)
payloads = Payloads()
