"""Our log: one line for each record, which names the request and the user that it is about.

`JSON_LOGS=true`, the variable that does the same for LiteLLM's log, makes each line one JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

from plugins.core.telemetry import trace_id

ROOMS = ("plugins", "crawler")
"""The loggers that are ours; the others are LiteLLM's to set up."""
IDS = ("request_id", "user_id")
GONE = 499
"""As the status of a request whose client went away before it was answered."""

_PLAIN = re.compile(r"[\w./:@+-]+", re.ASCII)
_about: ContextVar[Mapping[str, str] | None] = ContextVar("about", default=None)


def about(**ids: str) -> None:
    """Say what the running task is about from here on; every record names the `IDS` among it."""
    _about.set({**(_about.get() or {}), **ids})


def current() -> Mapping[str, str]:
    """What the running task is about: `IDS`, and whatever else was named (``peer``), as far as known."""
    return _about.get() or {}


def configure() -> None:
    """Write our records to standard error from `INFO` on; harmless when repeated."""
    as_json = os.environ.get("JSON_LOGS", "").lower() in ("true", "1")
    for room in ROOMS:
        logger = logging.getLogger(room)
        if not logger.handlers:
            handler = logging.StreamHandler()
            handler.setFormatter(JsonLine() if as_json else Line())
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False


def status_of(error: BaseException) -> int:
    """What a client is answered for an error that is LiteLLM's to answer."""
    status = getattr(error, "status_code", None) or getattr(error, "code", None)
    return int(str(status)) if str(status).isdecimal() else 500


def log_request(
    logger: logging.Logger,
    method: str,
    route: str,
    status: int,
    began: float,
    *,
    level: int = logging.INFO,
    request_id: str = "",
    user_id: str = "",
    numbers: Mapping[str, str | int] | None = None,
) -> None:
    """Write the one line of a request: ``GET /v1/collections: 200 in 12 ms``, then the numbers.

    Args:
        logger: Whose line it is.
        method: Of the request.
        route: With its placeholders, not the path: names are the users' own words.
        status: That was answered.
        began: In seconds of ``time.monotonic()``.
        level: Of the line.
        request_id, user_id: Where the running task does not know them.
        numbers: Of what was done for it.
    """
    duration = round(1000 * (time.monotonic() - began))
    numbers = numbers or {}
    words = "".join(f" {name}={_quoted(str(value))}" for name, value in numbers.items())
    fields = {"method": method, "route": route, "status": status, "duration_ms": duration, **numbers}
    logger.log(
        level,
        "%s %s: %d in %d ms%s",
        method,
        route,
        status,
        duration,
        words,
        extra={"fields": fields, "request_id": request_id, "user_id": user_id},
    )


class Line(logging.Formatter):
    """`time LEVEL logger: message request_id=... user_id=...`, then the traceback where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        ids = (f"{key}={_quoted(value)}" for key, value in _ids(record))
        return " ".join([super().formatMessage(record), *ids])


class JsonLine(logging.Formatter):
    """The same as one JSON object: timestamp (ISO 8601, UTC), level, logger, message, ids, `trace_id`, the
    fields of a request's line, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_ids(record)),
            **({"trace_id": trace} if (trace := trace_id()) else {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _quoted(value: str) -> str:
    """A value that cannot be taken for another field, nor begin a line."""
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


def _ids(record: logging.LogRecord) -> list[tuple[str, str]]:
    """What the record itself names (``extra``) goes before what its task is about."""
    task = current()
    found = ((key, getattr(record, key, None) or task.get(key)) for key in IDS)
    return [(key, value) for key, value in found if value]
