"""The models of an Ollama server, for those who may manage them (`ollama.managers`).

Ollama's own API (https://github.com/ollama/ollama/blob/main/docs/api.md) with its own field names. What it
says of a failure is for the log only: it names hosts and paths.
"""

from __future__ import annotations

import logging
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from plugins.collections.audit import Action, record
from plugins.collections.database import Database
from plugins.collections.rights import Rights
from plugins.core.config import OllamaConfig
from plugins.core.errors import (
    BundleError,
    DeadlineExceeded,
    Forbidden,
    InvalidRequest,
    ModelUnavailable,
    UnknownModel,
    Upstream,
)
from plugins.core.identity import Principal
from plugins.core.metrics import refused
from plugins.core.validation import read_json

log = logging.getLogger(__name__)

MAX_RESPONSE_BYTES = 16 * 2**20
MAX_LINE_BYTES = 2**16
"""Of one line of a pull's progress."""
CONNECT_S = 10.0
CHECKING_S = 900.0
"""Between two lines of a pull: of a large file's checksum Ollama says nothing until it is done."""

OWN_REGISTRY = "registry.ollama.ai"
NAME = re.compile(
    r"(?:(?:(?P<host>[A-Za-z0-9_][A-Za-z0-9_.:-]{0,349})/)?[A-Za-z0-9_][A-Za-z0-9_-]{0,79}/)?"
    r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,79})?"
)
"""`[[host/]namespace/]model[:tag]`: https://github.com/ollama/ollama/blob/main/types/model/name.go"""
MALFORMED = "A model's name is `model`, `namespace/model` or `host/namespace/model`; `:tag` may follow."
NO_SUCH = "The registry has no such model. Check the name and the tag."
UNREACHED = "Ollama cannot be reached. Check that it runs (`ollama serve`)."
NOT_OLLAMA = "What answers at `ollama.base_url` is not Ollama."

_FAILURES: tuple[tuple[str, type[BundleError], str], ...] = (
    ("file does not exist", UnknownModel, NO_SUCH),
    ("newer version", Upstream, "This model needs a newer version of Ollama. Update it, then try again."),
    ("no space left", Upstream, "There is no space left where Ollama keeps its models. Delete some."),
)
"""What a pull's error line says, and what the caller is told."""


class OllamaModels:
    """Lists, shows, pulls and deletes them.

    A pull and a deletion are in the audit log before Ollama is asked: it cannot be undone, so that none is
    done which could not be written down.

    All raise Forbidden where the principal is no manager, ModelUnavailable where Ollama is not configured or
    does not answer, DeadlineExceeded where it is too slow, and Upstream where it answers something else.
    """

    def __init__(self, config: OllamaConfig, rights: Rights, database: Database) -> None:
        self._config = config
        self._rights = rights
        self._database = database
        self._client: httpx.AsyncClient | None = None
        self._asking = 0
        self._closing = False
        self._insecure = {host.lower() for host in config.insecure_registries}
        self._registries = {OWN_REGISTRY, *self._insecure, *(host.lower() for host in config.registries)}

    async def close(self) -> None:
        """Hold no connection any more, as soon as nothing is asked."""
        self._closing = True
        await self._close_idle()

    async def list(self, principal: Principal, *, loaded: bool = False) -> dict[str, Any]:
        """``{"models": [...]}``: all that Ollama has (`/api/tags`), or those in its memory (`/api/ps`)."""
        self._check(principal)
        return await self._object("GET", "/api/ps" if loaded else "/api/tags")

    async def show(self, principal: Principal, model: str) -> dict[str, Any]:
        """One of them (`/api/show`).

        Raises:
            InvalidRequest: That is no name.
            UnknownModel: There is none of this name.
        """
        self._check(principal)
        _host(model)
        return await self._object("POST", "/api/show", model)

    async def delete(self, principal: Principal, model: str) -> None:
        """Delete one (`/api/delete`); raises as `show` does."""
        self._check(principal)
        _host(model)
        await self._record(principal, "ollama.delete", model)
        async with self._asked("DELETE", "/api/delete", {"model": model}):
            return

    async def pull(self, principal: Principal, model: str) -> AsyncGenerator[dict[str, Any], None]:
        """Begin a pull (`/api/pull`): Ollama's objects as they come in, at last ``{"status": "success"}``.

        Closing the generator ends the pull. What goes wrong in it is raised by the generator: UnknownModel,
        Upstream, and what all raise.

        Raises:
            InvalidRequest: That is no name.
            Forbidden: Its registry is not one that models may be pulled from.
        """
        self._check(principal)
        host = _host(model).lower()
        if host not in self._registries:
            raise Forbidden(
                "The right `ollama` does not reach to this registry. Ask who runs this server to add it to "
                "`ollama.registries`.",
                param="model",
            )
        await self._record(principal, "ollama.pull", model)
        body: dict[str, Any] = {"model": model, "stream": True}
        return self._progress(body | ({"insecure": True} if host in self._insecure else {}))

    async def _progress(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        status = None
        async with self._asked("POST", "/api/pull", body, silence_s=CHECKING_S) as response:
            async for line in _lines(response):
                found = _parsed(line)
                if "error" in found:
                    raise _failure(str(found["error"]))
                status = found.get("status")
                yield found
        if status != "success":
            log.warning("ollama: a pull ended without success")
            raise Upstream("Ollama stopped before the model was there. Try again: it goes on where it was.")

    def _check(self, principal: Principal) -> None:
        if not self._rights.decide_ollama(principal).allowed:
            message = "This needs the right `ollama`, which you do not have. Ask who runs this server."
            raise refused("ollama", Forbidden(message))
        if self._config.base_url is None:
            raise ModelUnavailable("There is no Ollama here: set `ollama.base_url` in the configuration.")

    async def _record(self, principal: Principal, action: Action, model: str) -> None:
        async with self._database.write() as connection:
            await record(connection, principal, action, detail={"model": model})

    async def _object(self, method: str, path: str, model: str | None = None) -> dict[str, Any]:
        content = bytearray()
        async with self._asked(method, path, None if model is None else {"model": model}) as response:
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_RESPONSE_BYTES:
                    log.warning("ollama: %s answers more than %d bytes", path, MAX_RESPONSE_BYTES)
                    raise Upstream
        return _parsed(bytes(content))

    @asynccontextmanager
    async def _asked(
        self, method: str, path: str, body: dict[str, Any] | None, silence_s: float | None = None
    ) -> AsyncIterator[httpx.Response]:
        """A good response, not yet read; whatever fails until it is read becomes an error of ours."""
        timeout = httpx.Timeout(silence_s or self._config.timeout_s, connect=CONNECT_S)
        self._asking += 1
        request = self._http().build_request(method, path, json=body, timeout=timeout)
        try:
            response = await self._http().send(request, stream=True)
            try:
                if response.status_code != httpx.codes.OK:
                    raise await _refusal(response)
                yield response
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            log.warning("ollama: %s: %s", path, type(error).__name__)
            raise DeadlineExceeded("Ollama did not answer in time. Try again.") from error
        except httpx.ConnectError as error:
            log.warning("ollama: %s: %s", path, error)
            raise ModelUnavailable(UNREACHED) from error
        except httpx.HTTPError as error:
            log.warning("ollama: %s: %s", path, error)
            raise Upstream("The connection to Ollama broke. Try again.") from error
        finally:
            self._asking -= 1
            if self._closing:
                await self._close_idle()

    async def _close_idle(self) -> None:
        client = self._client
        if client is not None and not self._asking:
            self._client = None
            await client.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                base_url=self._config.base_url or "", verify=ssl.create_default_context(), trust_env=False
            )
        return self._client


def _host(model: str) -> str:
    """The registry that the name means.

    Raises:
        InvalidRequest: It is no name.
    """
    found = NAME.fullmatch(model)
    if found is None or ".." in model:
        raise InvalidRequest(MALFORMED, param="model")
    return found["host"] or OWN_REGISTRY


async def _refusal(response: httpx.Response) -> BundleError:
    content = bytearray()
    async for part in response.aiter_bytes():
        content += part
        if len(content) > MAX_LINE_BYTES:
            break
    said = content[:500].decode(errors="replace")
    log.warning("ollama: %s: %d %s", response.request.url.path, response.status_code, said)
    if response.status_code == httpx.codes.NOT_FOUND:
        return UnknownModel(param="model")
    if response.status_code == httpx.codes.BAD_REQUEST:
        return InvalidRequest("Ollama does not accept this name.", param="model")
    return Upstream("Ollama failed. Its log says why.")


def _failure(said: str) -> BundleError:
    """Of a pull; Ollama says it in a line, after the status 200."""
    log.warning("ollama: a pull failed: %s", said[:500])
    for words, kind, message in _FAILURES:
        if words in said:
            return kind(message, param="model")
    return Upstream("Ollama could not pull the model. Its log says why.", param="model")


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    rest = b""
    async for part in response.aiter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > MAX_LINE_BYTES:
            break
    if rest:
        yield rest


def _parsed(content: bytes) -> dict[str, Any]:
    """Raises Upstream where it is not an object."""
    try:
        found = read_json(content)
    except ValueError as error:
        raise Upstream(NOT_OLLAMA) from error
    if not isinstance(found, dict):
        raise Upstream(NOT_OLLAMA)
    return found
