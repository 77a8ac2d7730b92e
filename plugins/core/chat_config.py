"""What `config/chat.yaml` steers: which models search, how, and what one request may use."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from crawler.settings import Settings

Mode = Literal["tool", "context", "always"]
"""How a model comes to passages."""


class Profile(Settings):
    """What a model with `model_info.rag: <name>` searches."""

    collections: list[str] | None = None
    """Names; None = all that the caller may query."""
    max_num_results: int = Field(default=8, ge=1, le=50)
    """Passages of one search."""
    tools: list[str] | None = None
    """None = all that the caller may run; `list_collections` only where there are too many to describe."""
    mode: Mode | Literal["auto"] = "auto"
    """`tool`: the model searches when it wants to. `context`: we search with the question, and the model gets
    the passages and no tools of ours. `always`: both. `auto`: `tool` where the model calls functions, else
    `context`."""
    condense_model: str | None = None
    """The model that makes one question of a conversation, for `context` and `always`; None = the model that
    is asked."""


class Budget(Settings):
    """What one request may use; when it is spent, the model answers with what it has."""

    max_rounds: int = Field(default=5, ge=1, le=50)
    """Rounds of tool calls before the model must answer without tools."""
    max_tool_calls: int = Field(default=20, ge=1)
    """Runs of tools, all rounds together."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Tokens of all rounds together, prompts and answers, after which no more tools are offered."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Of the rounds that offer tools, in seconds; the answer then has as long again."""


class SubjectsBudget(Settings):
    """A budget of these subjects. What it leaves out is everyone's."""

    subjects: list[str] = Field(min_length=1)
    """Subjects: `user:<source>/<name>`, `group:<source>/<path>`, `role:<source>/<name>` or `*`."""
    max_rounds: int | None = Field(default=None, ge=1, le=50)
    """Instead of `chat.max_rounds`."""
    max_tool_calls: int | None = Field(default=None, ge=1)
    """Instead of `chat.max_tool_calls`."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Instead of `chat.max_tokens`."""
    deadline_s: float | None = Field(default=None, gt=0)
    """Instead of `chat.deadline_s`."""


class ChatConfig(Budget):
    public_base_url: str = "http://127.0.0.1:4000"
    """Where people's browsers reach this proxy; citations link to it."""
    profiles: dict[str, Profile] = {"default": Profile()}
    """By name; `default` is what `rag: true` means."""
    budgets: list[SubjectsBudget] = []
    """Of some subjects: the first entry that names the caller counts, for the keys that it has."""
    tool_timeout_s: float = Field(default=30.0, gt=0)
    """Of one run of a tool, in seconds."""
    max_parallel_tools: int = Field(default=8, ge=1)
    """Tools of one round that run at once."""
    max_tool_result_chars: int = Field(default=100_000, ge=1000)
    """Characters of one result that the model is given; of more passages the last are left out."""
    open_webui: Literal["auto", "always", "never"] = "auto"
    """Whom the sources are sent to as Open WebUI's events: who asks with its headers, everyone, nobody."""
    prompt: str = "answer.md"
    """The file in `config/prompts/` that tells the model how to search and to cite."""
    context_prompt: str = "context.md"
    """The one for a model that is given passages and cannot search; without the file, `prompt`."""
    condense_prompt: str = "condense.md"
    """The one that makes one question of a conversation; without the file, the last question is searched."""
    max_description_tokens: int = Field(default=600, ge=50)
    """Of the collections that the description of `search_documents` lists."""

    @field_validator("public_base_url")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
            raise ValueError("must be the address of this proxy: `https://llm.example.com`")
        return value
