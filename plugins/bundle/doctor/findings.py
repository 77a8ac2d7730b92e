"""What the doctor found: lines for people, with everything secret taken out."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, SecretStr

from crawler.errors import ConfigError, CrawlError
from plugins.core.errors import BundleError

Level = Literal["ok", "warn", "fail"]

MIN_SECRET = 8
"""Shorter values are words; to black them out would make the rest unreadable."""
SECRET_NAME = re.compile(r"(^|_|-)(key|secret|password|passwd|token|credentials?)$", re.IGNORECASE)
USER_INFO = re.compile(r"(?<=://)[^/\s]+(?=@)")
JWT = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]*")
API_KEY = re.compile(r"\bsk-[\w*.-]{6,}")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


@dataclass(frozen=True, slots=True)
class Finding:
    """One line."""

    level: Level
    part: str
    found: str
    do: str = ""
    """What to do about it; empty where nothing is to be done."""

    def as_json(self) -> dict[str, str]:
        return asdict(self)


class Redact:
    """Takes the configured secrets, and what looks like one, out of texts."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def add(self, secrets: Iterable[str]) -> None:
        self._known.update(secret for secret in secrets if len(secret) >= MIN_SECRET)

    def __call__(self, text: str) -> str:
        for secret in sorted(self._known, key=len, reverse=True):
            text = text.replace(secret, "***")
        for pattern in (JWT, USER_INFO, API_KEY):
            text = pattern.sub("***", text)
        return CONTROL.sub(" ", text).strip()


class Notes:
    """The findings about one part."""

    def __init__(self, part: str, redact: Redact) -> None:
        self._part = part
        self._redact = redact
        self.findings: list[Finding] = []

    def ok(self, found: str) -> None:
        self._add("ok", found, "")

    def warn(self, found: str, do: str) -> None:
        self._add("warn", found, do)

    def fail(self, found: str, do: str) -> None:
        self._add("fail", found, do)

    def _add(self, level: Level, found: str, do: str) -> None:
        self.findings.append(Finding(level, self._part, self._redact(found), self._redact(do)))


Examine = Callable[[Notes], Awaitable[None]]


async def attempt(part: str, examine: Examine, redact: Redact, timeout_s: float) -> list[Finding]:
    """The findings of one part; what goes wrong in finding out is one of them."""
    notes = Notes(part, redact)
    try:
        async with asyncio.timeout(timeout_s):
            await examine(notes)
    except TimeoutError:
        notes.fail(f"gave no answer within {timeout_s:.0f} s", "See that it is reachable from this machine.")
    except ConfigError as error:
        for line in error.mistakes:
            notes.fail(line, "Mend the configuration.")
    except (BundleError, CrawlError) as error:
        notes.fail(error.message, "")
    except Exception as error:  # noqa: BLE001 - one part that fails must not stop the others
        notes.fail(f"could not be examined: {reason(error)}", "")
    return notes.findings


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """Everything in settings or variables that is secret by its type, its name, or as part of an address."""
    if isinstance(value, SecretStr):
        yield from secrets_in(value.get_secret_value(), "secret")
    elif isinstance(value, BaseModel):
        for key, item in {**vars(value), **(value.model_extra or {})}.items():
            yield from secrets_in(item, key)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, str(key))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item, name)
    elif isinstance(value, str) and not value.startswith("os.environ/"):
        yield from USER_INFO.findall(value)
        yield from (info.partition(":")[2] for info in USER_INFO.findall(value))
        if SECRET_NAME.search(name):
            yield value


def reason(error: BaseException) -> str:
    """Why a connection failed, from the error at the bottom of it; never the error's own text."""
    chain = list(_causes(error))
    for cause in chain:
        match cause:
            case ssl.SSLCertVerificationError():
                return f"its TLS certificate is not trusted ({cause.verify_message})"
            case ssl.SSLError():
                return "it does not speak TLS as expected"
            case socket.gaierror():
                return "its host name is not known here"
            case ConnectionRefusedError():
                return "the connection is refused"
            case TimeoutError():
                return "it does not answer in time"
    return type(chain[-1]).__name__


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error, what it came from, and so on; each once, groups opened."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        found = waiting.pop(0)
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        waiting += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            waiting += found.exceptions


def written(findings: Iterable[Finding], width: int) -> Iterator[str]:
    """One line each: level, part, what was found, what to do."""
    for finding in findings:
        todo = f"  -> {finding.do}" if finding.do else ""
        yield f"{finding.level:<4}  {finding.part:<{width}}  {finding.found}{todo}"


def summary(findings: Iterable[Finding]) -> str:
    """How many of each level."""
    levels = [finding.level for finding in findings]
    words: dict[Level, str] = {"ok": "ok", "warn": "to look at", "fail": "failed"}
    return ", ".join(f"{levels.count(level)} {word}" for level, word in words.items())


def counted(number: int, noun: str) -> str:
    """`1 key`, `2 keys`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
