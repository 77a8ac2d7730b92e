"""Messages made to fit what a model takes: passages first, then old turns."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from litellm import token_counter

from plugins.core.passages import place, render
from plugins.proxy.tool_calls import NO_RESULT, Ran

Message = dict[str, Any]

SEARCHED = "searched"
"""The id of what was found before the model was asked."""
OPENING, CLOSING = "<documents>", "</documents>"
"""Around it, in the user's message."""

PER_MESSAGE = 4
"""Tokens of a message beside its text."""
PER_PART = 800
"""Tokens taken for an image, a sound or a file: its bytes are not looked at."""
LEAST_PASSAGES = 3
"""So many of the newest round's passages stay while there are older turns to leave out."""
ANSWER_TOKENS = 1024
"""Kept free for the answer where the request does not say how long it may be, at most a quarter."""


class Window:
    """What a model takes, for one request.

    Args:
        tokens: What the prompt and the answer may be together; None = not known, and nothing is left out.
        answer_tokens: Of these, the answer's; None = the request does not say.
        tools: The tools that it is offered: they take room, too.
    """

    def __init__(
        self, tokens: int | None = None, answer_tokens: int | None = None, tools: Sequence[Any] = ()
    ) -> None:
        self._limit: int | None = None
        self._tools = json.dumps(tools, default=str) if tools else ""
        self._counted: dict[str, int] = {}
        self._messages: dict[int, tuple[Message, int]] = {}
        self._before = ""
        if tokens is not None:
            self._limit = max(0, tokens - min(answer_tokens or min(ANSWER_TOKENS, tokens // 4), tokens // 2))

    async def fit(self, messages: Sequence[Message], results: Sequence[Ran]) -> list[Message]:
        """The messages as the model gets them: no passage twice, and none that does not fit.

        The oldest results are shortened first, the last passage of each first; then the oldest turns are
        left out, then what remains of the newest results. System messages and all from the last user
        message on stay, so what is answered may still be too long.

        Args:
            messages: The whole conversation.
            results: What our tools found, the oldest first. What was found before the model was asked has
                `SEARCHED` as its id: the first call puts it in front of the last user message's text.
        """
        fitted, before = await asyncio.to_thread(self._fitted, list(messages), results)
        self._before = self._before or before
        return fitted

    def _fitted(self, messages: list[Message], results: Sequence[Ran]) -> tuple[list[Message], str]:
        kept = [len(ran.passages) for ran in results]
        newest = newest_results(messages)
        over = self._over(messages, results, kept)
        for least in ([LEAST_PASSAGES if ran.id in newest else 0 for ran in results], [0] * len(results)):
            for index, fewest in enumerate(least):
                while over > 0 and kept[index] > fewest:
                    kept[index] -= 1
                    over = self._over(messages, results, kept)
            if over > 0:
                messages = without_oldest_turns(messages, over, self._of_message)
                over = self._over(messages, results, kept)
        return _written(messages, results, kept, self._before)

    def _over(self, messages: Sequence[Message], results: Sequence[Ran], kept: Sequence[int]) -> int:
        """By how many tokens it is too long, with so many passages of each result."""
        if self._limit is None:
            return 0
        written, _ = _written(messages, results, kept, self._before)
        return self._count(self._tools) + sum(map(self._of_message, written)) - self._limit

    def _of_message(self, message: Message) -> int:
        known = self._messages.get(id(message))
        if known is None or known[0] is not message:
            known = self._messages[id(message)] = (message, self._count_message(message))
        return known[1]

    def _count_message(self, message: Message) -> int:
        content = message.get("content")
        tokens = PER_MESSAGE
        for part in content if isinstance(content, list) else [content]:
            text = part.get("text") if isinstance(part, Mapping) else part
            if isinstance(text, str):
                # By paragraph: where a passage is left out, the others need not be counted again.
                tokens += sum(map(self._count, text.split("\n\n")))
            elif part is not None:
                tokens += PER_PART
        calls = message.get("tool_calls")
        return tokens + (self._count(json.dumps(calls, default=str)) if calls else 0)

    def _count(self, text: str) -> int:
        if text not in self._counted:
            # With LiteLLM's own tokenizer: a model's may have to be downloaded.
            self._counted[text] = 1 + token_counter(model="", text=text) if text else 0
        return self._counted[text]


def newest_results(messages: Sequence[Message]) -> set[str]:
    """The ids of the tool results at the end; before there are any, of what was searched beforehand."""
    ids = takewhile(bool, (m.get("tool_call_id") for m in reversed(messages)))
    return {str(result) for result in ids} or {SEARCHED}


def without_oldest_turns(
    messages: Sequence[Message], excess: int, tokens_of: Callable[[Message], int]
) -> list[Message]:
    """The messages without as many of the first turns as have ``excess`` tokens.

    A turn is a user message and what answers it, up to the next one. System messages stay, and so does the
    turn of the last user message.
    """
    first = next((i for i, message in enumerate(messages) if not is_system(message)), len(messages))
    begins = [i for i, message in enumerate(messages) if message.get("role") == "user" and i > first]
    kept: list[Message] = []
    start = first
    for end in begins:
        if excess <= 0:
            break
        kept += filter(is_system, messages[start:end])
        excess -= sum(tokens_of(message) for message in messages[start:end] if not is_system(message))
        start = end
    return [*messages[:first], *kept, *messages[start:]]


def is_system(message: Message) -> bool:
    return message.get("role") in ("system", "developer")


def last_user(messages: Sequence[Message]) -> int | None:
    """Where the last question is; None where there is none."""
    return next((i for i in reversed(range(len(messages))) if messages[i].get("role") == "user"), None)


def with_text(message: Message, change: Callable[[str], str]) -> Message:
    """The message with its text, or the first part of it that is text, changed."""
    content = message.get("content")
    if not isinstance(content, list):
        return {**message, "content": change(content if isinstance(content, str) else "")}
    for index, part in enumerate(content):
        if isinstance(part, Mapping) and isinstance(part.get("text"), str):
            changed = {**part, "text": change(part["text"])}
            return {**message, "content": [*content[:index], changed, *content[index + 1 :]]}
    return {**message, "content": [{"type": "text", "text": change("")}, *content]}


def _written(
    messages: Sequence[Message], results: Sequence[Ran], kept: Sequence[int], before: str
) -> tuple[list[Message], str]:
    """The messages with so many passages of each result, and what stands before the question.

    Args:
        before: What stands there in `messages`.
    """
    given: set[int] = set()
    texts = {ran.id: _text(ran, count, given) for ran, count in zip(results, kept, strict=True)}
    written = [
        {**message, "content": texts[str(message.get("tool_call_id"))]}
        if message.get("role") == "tool" and str(message.get("tool_call_id")) in texts
        else message
        for message in messages
    ]
    asked = last_user(messages)
    if SEARCHED not in texts or asked is None:
        return written, before
    found = f"{OPENING}\n{texts[SEARCHED]}\n{CLOSING}\n\n"
    if not before:
        written[asked] = with_text(written[asked], lambda text: found + text)
    elif found != before:
        # Only where it stands as it was put: a guardrail may have changed the message since.
        written[asked] = with_text(written[asked], lambda text: text.replace(before, found, 1))
    return written, found


def _text(ran: Ran, kept: int, given: set[int]) -> str:
    """What the model reads of a result, with so many of its passages.

    Args:
        given: The numbers of the passages that it has read before; added to.
    """
    blocks = [ran.text] if ran.text else []
    for number, passage in list(zip(ran.numbers, ran.passages, strict=True))[:kept]:
        again = number in given
        given.add(number)
        blocks.append(f"[{number}] {place(passage)}: given above." if again else render([passage], [number]))
    if (left := len(ran.passages) - kept) > 0:
        what = "passages were" if left > 1 else "passage was"
        blocks.append(f"{left} more {what} left out: the conversation has become too long.")
    return "\n\n".join(blocks) or NO_RESULT
