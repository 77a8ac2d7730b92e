"""What `/add` takes in: a multipart form or JSON, as uploads."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from fastapi import Request
from pydantic import BaseModel, Field, ValidationError

from crawler.filenames import clean_name
from plugins.api.multipart import NO_NAME, CheckFormat, Form, Names, SpooledFile, receive_form
from plugins.api.route import read_body
from plugins.collections.documents import Upload
from plugins.core.config import LimitsConfig
from plugins.core.document_shapes import AddDocuments, DocumentInput, Moment
from plugins.core.errors import InvalidRequest, TooLarge
from plugins.core.shapes import Attributes, Shape
from plugins.core.validation import invalid, read_json

MAX_JSON_BYTES = 8 * 2**20
"""Of a JSON body, which is held in memory; larger documents are uploaded as files."""

FORM, JSON = "multipart/form-data", "application/json"
ONE_FILE = Names(files="file", texts=())

M = TypeVar("M", bound=BaseModel)
ReadJson = Callable[[bytes, Path, LimitsConfig, list[SpooledFile]], list[Upload]]


class FormFields(Shape):
    """The text fields of the form, each JSON; they hold for all files."""

    metadata: Attributes = Field(default={}, max_length=16)
    acl: list[str] | None = None
    ids: list[str] | None = None
    """One for each file; an id that exists replaces that document."""
    expires_at: Moment | None = None


class PlainFields(Shape):
    """Of documents that are not Markdown."""

    metadata: Attributes = Field(default={}, max_length=16)


@asynccontextmanager
async def receive(
    request: Request, spool_dir: Path, limits: LimitsConfig, check_format: CheckFormat
) -> AsyncIterator[list[Upload]]:
    """The uploads of the request; spool files that are still there at the end are removed.

    Raises:
        InvalidRequest: It is neither a form nor JSON as `/add` takes it; ``param`` names the field.
        TooLarge: Told while the body comes in; the rest of it is not read.
        UnsupportedFormat: Of a file that no format accepts.
    """
    media_type = _media_type(request)
    if media_type == FORM:
        async with receive_form(request, spool_dir, limits, check_format) as form:
            yield _from_form(form)
        return
    if media_type != JSON:
        raise InvalidRequest("Send a multipart form with `files`, or JSON with `documents`.")
    async with _spooled_json(request, spool_dir, limits, _from_json) as uploads:
        yield uploads


@asynccontextmanager
async def receive_one(
    request: Request, spool_dir: Path, limits: LimitsConfig, check_format: CheckFormat
) -> AsyncIterator[Upload]:
    """The one document of the request: a form's `file`, or JSON as an element of `/add`'s `documents`.

    Raises:
        InvalidRequest, TooLarge, UnsupportedFormat: As `receive`.
    """
    media_type = _media_type(request)
    if media_type == FORM:
        one = limits.model_copy(update={"max_files": 1})
        async with receive_form(request, spool_dir, one, check_format, ONE_FILE) as form:
            yield _from_form(form, ONE_FILE.files)[0]
        return
    if media_type != JSON:
        raise InvalidRequest("Send a multipart form with `file`, or one document as JSON.")
    async with _spooled_json(request, spool_dir, limits, _one_from_json) as uploads:
        yield uploads[0]


@asynccontextmanager
async def _spooled_json(
    request: Request, spool_dir: Path, limits: LimitsConfig, read: ReadJson
) -> AsyncIterator[list[Upload]]:
    body = await read_body(request, min(limits.max_upload_bytes, MAX_JSON_BYTES))
    spooled: list[SpooledFile] = []
    try:
        yield await asyncio.to_thread(read, body, spool_dir, limits, spooled)
    finally:
        await asyncio.to_thread(_discard, spooled)


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _from_form(form: Form, field: str = "files") -> list[Upload]:
    if not form.files:
        raise InvalidRequest("There is no file in this upload.", param=field)
    fields = _read(FormFields, {name: _field(name, text) for name, text in form.fields.items()})
    if fields.ids is not None and len(fields.ids) != len(form.files):
        raise InvalidRequest("`ids` has one id for each file, in their order.", param="ids")
    if fields.ids is not None and len(set(fields.ids)) != len(fields.ids):
        raise InvalidRequest("`ids` has an id twice.", param="ids")
    ids: Sequence[str | None] = fields.ids or [None] * len(form.files)
    return [
        Upload(
            filename=file.filename,
            media_type=file.media_type,
            path=file.path,
            size=file.size,
            sha256=file.sha256,
            markdown=None,
            url=None,
            metadata=dict(fields.metadata),
            acl=fields.acl,
            document_id=document_id,
            expires_at=fields.expires_at,
        )
        for file, document_id in zip(form.files, ids, strict=True)
    ]


def _field(name: str, text: str) -> Any:
    """A field of the form; a time needs no quotes."""
    return text if name == "expires_at" and "-" in text and '"' not in text else _loads(text, name)


def _from_json(
    body: bytes, spool_dir: Path, limits: LimitsConfig, spooled: list[SpooledFile]
) -> list[Upload]:
    """Blocking: large bodies take a while, and texts become spool files, which are added to ``spooled``."""
    documents = _read(AddDocuments, _loads(body, None)).documents
    if len(documents) > limits.max_files:
        raise TooLarge(f"At most {limits.max_files} documents in one request.", param="documents")
    return [
        _upload(given, f"documents.{index}.", spool_dir, spooled) for index, given in enumerate(documents)
    ]


def _one_from_json(
    body: bytes, spool_dir: Path, limits: LimitsConfig, spooled: list[SpooledFile]
) -> list[Upload]:
    return [_upload(_read(DocumentInput, _loads(body, None)), "", spool_dir, spooled)]


def _upload(given: DocumentInput, where: str, spool_dir: Path, spooled: list[SpooledFile]) -> Upload:
    contents = {k: v for k in ("markdown", "text", "url") if (v := getattr(given, k)) is not None}
    if len(contents) != 1:
        message = "give exactly one of `markdown`, `text` and `url`"
        place = where.rstrip(".")
        raise InvalidRequest(f"{place}: {message}" if place else message, param=place or None)
    [(kind, content)] = contents.items()
    if not content.strip():
        raise InvalidRequest(f"{where}{kind}: is empty", param=f"{where}{kind}")
    metadata = given.metadata
    if kind != "markdown":
        try:
            metadata = dict(PlainFields.model_validate({"metadata": metadata}).metadata)
        except ValidationError as error:
            raise invalid(
                error.errors(include_url=False), {"metadata": metadata}, where.rstrip(".")
            ) from error
    data = content.encode()
    path, media_type, default = None, None, "document.md"
    if kind == "text":
        path, media_type, default = spool_dir / SpooledFile.new_name(), "text/plain", "document.txt"
        file = SpooledFile(default, media_type, path)
        spooled.append(file)
        file.write(data)
        file.finish()
    elif kind == "markdown":
        media_type = "text/markdown"
    else:
        default = _name_of_address(content, f"{where}url")
    return Upload(
        filename=clean_name(given.filename or default, NO_NAME),
        media_type=media_type,
        path=path,
        size=0 if kind == "url" else len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        markdown=given.markdown,
        url=given.url,
        metadata=metadata,
        acl=given.acl,
        document_id=given.id,
        expires_at=given.expires_at,
    )


def _name_of_address(url: str, where: str) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidRequest(f"{where}: must be an address that begins with https:// or http://", param=where)
    return parts.path.rstrip("/").rpartition("/")[2] or host


def _loads(text: str | bytes, field: str | None) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        what = f"`{field}`" if field else "The body"
        raise InvalidRequest(f"{what} is not valid JSON.", param=field) from error


def _read(model: type[M], given: Any) -> M:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise invalid(error.errors(include_url=False), given) from error


def _discard(files: list[SpooledFile]) -> None:
    for file in files:
        file.discard()
