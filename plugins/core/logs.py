"""Our log: one line for each record, which names the request and the user that it is about.

`JSON_LOGS=true`, the variable that does the same for LiteLLM's log, makes each line one JSON object.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import UTC, datetime

ROOMS = ("plugins", "crawler")
"""The loggers that are ours; the others are LiteLLM's to set up."""
IDS = ("request_id", "user_id")

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


class Line(logging.Formatter):
    """`time LEVEL logger: message request_id=... user_id=...`, then the traceback where there is one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        ids = (
            f"{key}={value if _PLAIN.fullmatch(value) else json.dumps(value)}" for key, value in _ids(record)
        )
        return " ".join([super().formatMessage(record), *ids])


class JsonLine(logging.Formatter):
    """The same as one JSON object: timestamp (ISO 8601, UTC), level, logger, message, ids, exception."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **dict(_ids(record)),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _ids(record: logging.LogRecord) -> list[tuple[str, str]]:
    """What the record itself names (``extra``) goes before what its task is about."""
    task = current()
    found = ((key, getattr(record, key, None) or task.get(key)) for key in IDS)
    return [(key, value) for key, value in found if value]
