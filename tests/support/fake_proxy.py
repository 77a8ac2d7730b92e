"""LiteLLM's part around the chat hooks, faked: it calls them around a fake router, as the proxy does."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Mapping, Sequence
from typing import Any

from litellm.proxy import proxy_server
from pydantic import BaseModel

from crawler.settings import Settings
from plugins.core.chat_config import ChatConfig, Profile
from plugins.core.errors import Forbidden, ToolFailed, UnknownCollection
from plugins.core.identity import Decision, Principal
from plugins.core.ports import Call, Parts, QueryableCollection, Tool, ToolResult
from plugins.core.toolbox import Toolbox
from plugins.proxy.auth import PrincipalAuth
from plugins.proxy.chat import ChatHooks
from plugins.proxy.turns import ChatParts
from tests.support.fake_router import FakeRouter, Round, call, text
from tests.support.services import ALICE, a_passage

SEARCH = call("search_documents", '{"query": "notice"}')
FOUND = (a_passage("The notice period is 30 days."), a_passage("Leave is 28 days.", "vs_f", None))
CLIENT_TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
QUESTION = [{"role": "user", "content": "How long is the notice period?"}]


class Query(BaseModel):
    query: str


class SearchDocuments(Tool[Settings, Query]):
    """Search the documents."""

    def __init__(self) -> None:
        super().__init__(Settings(), Parts(catalogue=None, search=None))  # type: ignore[arg-type]
        self.calls: list[Call] = []
        self.running = 0
        self.most = 0
        self.hold: asyncio.Event | None = None
        self.started = asyncio.Event()
        self.cancelled = False

    async def run(self, args: Query, call: Call) -> ToolResult:
        self.calls.append(call)
        if args.query == "broken":
            raise ToolFailed("the store is away")
        self.started.set()
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await (self.hold.wait() if self.hold else asyncio.sleep(0))
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        finally:
            self.running -= 1
        return ToolResult(passages=FOUND)

    def describe(self, args: Query, titles: Mapping[str, str]) -> str:
        return f"Searching: {args.query}"


async def queryable(principal: Principal, refs: Sequence[str] | None) -> list[QueryableCollection]:
    if refs is None:
        return [QueryableCollection("vs_h", "handbook", "About working here.")]
    for ref in refs:
        if ref == "finance":
            raise Forbidden("You need the right `query` to `finance`.")
        if ref != "handbook":
            raise UnknownCollection
    return [QueryableCollection("vs_h", ref) for ref in refs]


class Proxy:
    """LiteLLM's part: it calls the hooks around the router, as the proxy does."""

    def __init__(
        self, rounds: Sequence[Round], *, allowed: bool = True, config: ChatConfig | None = None
    ) -> None:
        rag: dict[str, dict[str, Any]] = {
            "rag-model": {"rag": True},
            "narrow": {"rag": "narrow"},
            "shut": {"rag": "shut"},
            "plain": {},
        }
        self.router = FakeRouter(rounds, rag)
        self.tool = SearchDocuments()
        profiles = {
            "narrow": Profile(collections=["handbook", "finance"], max_num_results=3),
            "shut": Profile(collections=["finance"]),
        }
        chat = config or ChatConfig(public_base_url="https://proxy.example/", max_rounds=3, profiles=profiles)
        toolbox = Toolbox(
            {"search_documents": self.tool}, lambda p, n: Decision(allowed=allowed, rule="test")
        )
        self.hooks = ChatHooks(
            lambda: ChatParts(
                toolbox,
                queryable,
                chat,
                "Cite like [1].",
                context_prompt="Answer from the documents.",
                condense_prompt="Make one question of it.",
            )
        )
        self.auth = PrincipalAuth(api_key="sk-x", principal=ALICE)
        self.data: dict[str, Any] = {}

    async def begin(self, **body: Any) -> Any:
        """The first round, as the router gives it."""
        logging = type("Logging", (), {})()
        self.data = {
            "model": "rag-model",
            "messages": copy.deepcopy(QUESTION),
            "metadata": {"user_api_key": "hash"},
            "litellm_call_id": "req-1",
            "litellm_logging_obj": logging,
            **body,
        }
        cache: Any = None
        self.data = (
            await self.hooks.async_pre_call_hook(self.auth, cache, self.data, "acompletion") or self.data
        )
        return await self.router.acompletion(**self.data)

    async def plain(self, **body: Any) -> Any:
        response = await self.begin(**body)
        return await proxy_server.proxy_logging_obj.post_call_success_hook(
            data=self.data, response=response, user_api_key_dict=self.auth
        )

    async def stream(self, **body: Any) -> list[Any]:
        response = await self.begin(stream=True, **body)
        return [chunk async for chunk in self.chunks(response)]

    def chunks(self, response: Any) -> Any:
        return self.hooks.async_post_call_streaming_iterator_hook(self.auth, response, self.data)


def said(chunks: Sequence[Any]) -> str:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    return "".join(delta.content or "" for delta in deltas)


def finishes(chunks: Sequence[Any]) -> list[str]:
    return [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]


def tool_deltas(chunks: Sequence[Any]) -> list[Any]:
    return [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or ()]


ANSWER = (Round([text("Let me look."), SEARCH]), Round([text("It is 30"), text(" days [1"), text("].")]))
WHOLE = "Let me look.\n\nIt is 30 days [1]."
