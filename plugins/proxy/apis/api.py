"""What the loop needs to know of an API: how its clients ask, and how they are answered.

There is one loop, over the chunks of chat completions. Each API makes its requests into that form and the
loop's output into its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from litellm.proxy import proxy_server

from plugins.core.errors import InvalidRequest
from plugins.proxy.asked import drop_empty_tools
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Output
from plugins.proxy.upstream import Chunks


class Api(Protocol):
    """One request that our tools may take part in."""

    chat: dict[str, Any]
    """The request as a chat completion's. What is put into it counts for the later rounds, and for the first
    after `offer`."""

    def offer(self, offered: frozenset[str]) -> None:
        """Write what was put into `chat` into the request: our tools, of these names, and our words."""

    def chunks(self, response: Any) -> Chunks:
        """The first round's stream, or its plain answer as the stream that it could have been."""

    def stream(
        self, outputs: AsyncGenerator[Output, None], citations: Citations
    ) -> AsyncGenerator[Any, None]:
        """What the client gets of the loop's output, piece by piece."""

    def answer_at(self, sent: Sequence[Any], piece: Any) -> Any | None:
        """The whole plain answer where ``piece`` ends the text of the stream; ``sent`` went before it."""

    async def plain(self, outputs: AsyncGenerator[Output, None], citations: Citations, first: Any) -> Any:
        """The answer in one piece; ``first`` is the first round's."""


def served_by(model: str) -> str:
    """The provider's name of a model of this proxy, which LiteLLM translates requests by: of its first
    deployment; the name itself where there is none."""
    router = proxy_server.llm_router
    deployments = (router.get_model_list(model_name=model) if router is not None else None) or []
    return str((deployments[0].get("litellm_params") or {}).get("model") or model) if deployments else model


def unwrapped(messages: Sequence[dict[str, Any]]) -> tuple[Any, list[dict[str, Any]]]:
    """The content of the leading system message, if any, and the other messages."""
    if messages and messages[0].get("role") in ("system", "developer"):
        return messages[0].get("content"), list(messages[1:])
    return None, list(messages)


def added(before: Any, after: Any) -> str:
    """What was put before a system message's content; the content of a new one."""
    if isinstance(after, list):
        kept = len(before) if isinstance(before, list) else 0
        return "\n\n".join(block.get("text", "") for block in after[: len(after) - kept])
    text = after or ""
    return text.removesuffix(before).rstrip("\n") if isinstance(before, str) and before else text


@contextmanager
def understood(param: str) -> Iterator[None]:
    """Around LiteLLM's translation of a request, which raises whatever it stumbles over.

    Raises:
        InvalidRequest: It did.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidRequest(
            f"`{param}` or the tools are not in the form of this API", param=param
        ) from error


def offer_choice(
    data: dict[str, Any], before: Any, after: Any, named: Callable[[str], dict[str, Any]]
) -> None:
    """Write a ``tool_choice`` that was changed into the request, in its API's form.

    Args:
        data: The request.
        before, after: As a chat completion has it.
        named: The API's form of a choice of one function.
    """
    if after is None:
        data.pop("tool_choice", None)
    elif after != before:
        data["tool_choice"] = named(after["function"]["name"])
    drop_empty_tools(data)


def simplified(message: Any, kinds: Sequence[str]) -> Any:
    """A message that is one part, of one of these kinds of text, as that text: what came as a text goes on as
    one."""
    parts = message.get("content") if isinstance(message, dict) else None
    if not isinstance(parts, list) or len(parts) != 1 or not isinstance(parts[0], dict):
        return message
    plain = parts[0].get("type") in kinds and parts[0].keys() <= {"type", "text"}
    return {**message, "content": parts[0]["text"]} if plain else message


def with_metadata(data: dict[str, Any]) -> dict[str, Any]:
    """LiteLLM's notes on the request, where chat completions carry them.

    On `/v1/responses` and `/v1/messages` LiteLLM keeps ``metadata`` for the client's own and writes its notes
    (key, user, team) into ``litellm_metadata``; the spend of later rounds is booked by these.
    """
    notes = data.get("litellm_metadata")
    kept = {key: value for key, value in data.items() if key not in ("metadata", "litellm_metadata")}
    return kept | {"metadata": dict(notes) if isinstance(notes, dict) else {}}
