"""The tools of this server: what each principal may run, and running one."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from crawler.errors import CrawlError
from plugins.core.errors import (
    BundleError,
    DeadlineExceeded,
    InvalidRequest,
    ToolFailed,
    ToolRetry,
    UnknownTool,
)
from plugins.core.identity import Decision, Principal
from plugins.core.metrics import OTHER, TOOL_RUNS, counted, refused, result_of
from plugins.core.ports import Call, Tool, ToolResult
from plugins.core.telemetry import stage
from plugins.core.validation import invalid, read_json

log = logging.getLogger(__name__)

Arguments = Mapping[str, Any] | str | None
"""An object, or its JSON as models write it; None and the empty string are the empty object."""


class Toolbox:
    """All tools by their names, behind the right to run them.

    There are two ways to run one. `run` is for programs: what goes wrong is raised as it is.
    `run_for_model` is for models: whatever goes wrong becomes `ToolRetry` or `ToolFailed`, whose text
    the model reads.
    """

    def __init__(
        self, tools: Mapping[str, Tool[Any, Any]], allowed: Callable[[Principal, str], Decision]
    ) -> None:
        self._tools = dict(tools)
        self._allowed = allowed
        self._arguments = {name: arguments_type(type(tool)) for name, tool in tools.items()}
        self._schemas = {name: self._schema(name) for name in tools}

    def __contains__(self, name: object) -> bool:
        """Whether there is such a tool, allowed or not: a call by this name is not the client's own."""
        return name in self._tools

    def names(self, principal: Principal) -> list[str]:
        """The tools that the principal may run."""
        return [name for name in self._tools if self._allowed(principal, name).allowed]

    def schemas(self, principal: Principal, names: Collection[str] | None = None) -> list[dict[str, Any]]:
        """``{"type": "function", "function": {"name", "description", "parameters"}}`` of each tool.

        Args:
            principal: Tools that it may not run are left out.
            names: Only these; None = all.
        """
        return [self._schemas[n] for n in self.names(principal) if names is None or n in names]

    def parse(self, principal: Principal, name: str, arguments: Arguments) -> BaseModel:
        """The arguments of a call, read as the tool's argument model.

        Raises:
            UnknownTool: There is no such tool, or the principal may not run it.
            InvalidRequest: They are not valid; ``param`` is the field (``arguments.query``).
        """
        try:
            self._check(principal, name)
            return self._read(name, arguments)
        except (UnknownTool, InvalidRequest) as error:
            TOOL_RUNS.labels(self._label(name), result_of(error)).inc()
            raise

    async def run(self, name: str, args: BaseModel, call: Call, timeout_s: float) -> ToolResult:
        """Run a tool for a program.

        Args:
            name: The tool.
            args: From `parse`.
            call: On whose behalf.
            timeout_s: Seconds; the call's deadline counts as well.

        Raises:
            UnknownTool: There is no such tool, or the principal may not run it.
            ToolRetry, ToolFailed: The tool says so, or something unforeseen happened (logged).
            DeadlineExceeded: It took too long.
            BundleError, CrawlError: As the tool's services raise them (Forbidden, UnknownCollection, ...).
        """
        with stage("tool", tool=self._label(name)), counted(TOOL_RUNS, self._label(name)):
            self._check(call.principal, name)
            return await self._run(name, args, call, timeout_s)

    async def _run(self, name: str, args: BaseModel, call: Call, timeout_s: float) -> ToolResult:
        seconds = min(timeout_s, call.deadline - time.monotonic())
        try:
            async with asyncio.timeout(seconds) as limit:
                return await self._tools[name].run(args, call)
        except (ToolRetry, ToolFailed, BundleError, CrawlError):
            raise
        except Exception as error:  # a tool's defect must cost its answer, not the request
            if limit.expired():
                raise DeadlineExceeded(f"`{name}` did not answer in time; ask for less.") from error
            ids = {"request_id": call.request_id, "user_id": call.principal.user_id}
            log.error("tool %s failed", name, exc_info=error, extra=ids)
            raise ToolFailed(f"`{name}` failed unexpectedly; do without it.") from error

    async def run_for_model(
        self, name: str, arguments: Arguments, call: Call, timeout_s: float
    ) -> ToolResult:
        """Read the arguments and run a tool for a model.

        Raises:
            ToolRetry: The arguments are wrong; the text names the field.
            ToolFailed: Anything else; the text says what the caller may know.
        """
        try:
            args = self.parse(call.principal, name, arguments)
            return await self.run(name, args, call, timeout_s)
        except InvalidRequest as error:
            raise ToolRetry(error.message) from error
        except (BundleError, CrawlError) as error:
            raise ToolFailed(error.message) from error

    def describe(self, name: str, arguments: Arguments, titles: Mapping[str, str]) -> str:
        """What a call does, in words for the user; see `Tool.describe`."""
        try:
            args = self._arguments[name].model_validate(_decode(arguments))
            return self._tools[name].describe(args, titles)
        except (KeyError, InvalidRequest, ValidationError):
            return f"Running {name}"
        except Exception:  # a tool's mistake in its words must not cost the answer
            log.exception("tool %s could not describe its run", name)
            return f"Running {name}"

    def _check(self, principal: Principal, name: str) -> None:
        if name not in self._tools:
            raise UnknownTool
        if not self._allowed(principal, name).allowed:
            raise refused("tool", UnknownTool())

    def _read(self, name: str, arguments: Arguments) -> BaseModel:
        given = _decode(arguments)
        try:
            return self._arguments[name].model_validate(given)
        except ValidationError as error:
            raise invalid(error.errors(include_url=False), given, "arguments") from error

    def _label(self, name: str) -> str:
        """The tool in metrics: names that are not ours are whatever somebody wrote."""
        return name if name in self._tools else OTHER

    def _schema(self, name: str) -> dict[str, Any]:
        parameters = _plain(self._arguments[name].model_json_schema())
        parameters.pop("description", None)
        parameters.setdefault("properties", {})
        description = inspect.cleandoc(type(self._tools[name]).__doc__ or "")
        function = {"name": name, "description": description, "parameters": parameters}
        return {"type": "function", "function": function}


def arguments_type(tool: type[Tool[Any, Any]]) -> type[BaseModel]:
    """The argument model of a tool: the second type argument that it gives to `Tool`."""
    for cls in tool.__mro__:
        for base in getattr(cls, "__orig_bases__", ()):
            if get_origin(base) is Tool:
                model = get_args(base)[1]
                if inspect.isclass(model) and issubclass(model, BaseModel):
                    return model
    raise TypeError(f"{tool.__name__} must derive from Tool[<settings>, <arguments>]")


def _decode(arguments: Arguments) -> Any:
    if arguments is None or arguments == "":
        return {}
    if not isinstance(arguments, str):
        return dict(arguments)
    try:
        return read_json(arguments)
    except ValueError as error:
        raise InvalidRequest("arguments: must be a JSON object", param="arguments") from error


def _plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema without Pydantic's titles, and ``T`` for ``T or null``: small models read it better."""
    plain: dict[str, Any] = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            plain[key] = {name: _plain(part) for name, part in value.items()}
        elif isinstance(value, dict):
            plain[key] = _plain(value)
        elif isinstance(value, list):
            plain[key] = [_plain(part) if isinstance(part, dict) else part for part in value]
        elif key != "title":
            plain[key] = value
    members = [part for part in plain.get("anyOf", []) if part != {"type": "null"}]
    if len(members) < len(plain.get("anyOf", [])):
        plain["anyOf"] = members
        plain = {key: value for key, value in plain.items() if key != "default" or value is not None}
    if len(members) == 1:
        del plain["anyOf"]
        plain = {**members[0], **plain}
    return plain
