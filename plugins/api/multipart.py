"""A multipart form on its way from the request's stream to spool files on disk."""

from __future__ import annotations

import asyncio
import hashlib
import re
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from crawler.contracts import Source
from crawler.errors import UnsupportedFormat
from crawler.filenames import clean_name
from plugins.api.route import chunks
from plugins.core.config import LimitsConfig
from plugins.core.errors import InvalidRequest, TooLarge

CheckFormat = Callable[[Source], object]
"""Raises UnsupportedFormat for what no format accepts; its content is the file's beginning and end."""

NO_NAME = "document"
"""What a file is called whose name has nothing that can be kept."""
SAMPLE_BYTES = 65536
"""How much of a file's beginning, and of its end, tells its type (a ZIP's directory is at its end)."""


_WRITE_BYTES = 2**20
_FIELDS_BYTES = 2**16
_PART_OVERHEAD_BYTES = 2**14
_MEDIA_TYPE = re.compile(r"[A-Za-z0-9.+-]{1,64}/[A-Za-z0-9.+-]{1,128}")


class Names(NamedTuple):
    """The fields that a form may have."""

    files: str = "files"
    """Of each file."""
    texts: tuple[str, ...] = ("metadata", "acl", "ids", "expires_at")
    """At most once each; JSON."""


FILES = Names()


@dataclass
class SpooledFile:
    """A file that was received; ``path`` is there once something was written or it is finished."""

    filename: str
    media_type: str | None
    path: Path
    size: int = 0
    sha256: str = ""
    _hash: hashlib._Hash = field(default_factory=hashlib.sha256, repr=False)
    _file: IO[bytes] | None = field(default=None, repr=False)

    @staticmethod
    def new_name() -> str:
        """A name in the spool folder that no other file has."""
        return uuid.uuid4().hex

    def write(self, data: bytes) -> None:
        """Blocking."""
        if self._file is None:
            self._file = self.path.open("xb")
        self._file.write(data)
        self._hash.update(data)

    def finish(self) -> None:
        """Blocking."""
        self.write(b"")  # an empty file is a file
        self.sha256 = self._hash.hexdigest()
        if self._file is not None:
            self._file.close()

    def discard(self) -> None:
        """Remove the file unless it was moved away. Blocking."""
        if self._file is not None:
            self._file.close()
        self.path.unlink(missing_ok=True)

    def sample(self) -> bytes:
        """The file's beginning and end. Blocking."""
        with self.path.open("rb") as file:
            head = file.read(SAMPLE_BYTES)
            if self.size > 2 * SAMPLE_BYTES:
                file.seek(-SAMPLE_BYTES, 2)
            return head + file.read(SAMPLE_BYTES)


@dataclass
class Form:
    """A multipart form: its files in their order, and its text fields."""

    files: list[SpooledFile] = field(default_factory=list)
    fields: dict[str, str] = field(default_factory=dict)


class FormReader:
    """The callbacks of python-multipart's push parser; what they collect is written by `flush`.

    RFC 7578, with file names in UTF-8 as browsers send them.
    """

    def __init__(self, boundary: bytes, spool_dir: Path, limits: LimitsConfig, names: Names = FILES) -> None:
        self.form = Form()
        self._names = names
        self._spool_dir = spool_dir
        self._limits = limits
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = b"", b""
        self._complete = False
        self._file: SpooledFile | None = None
        self._field = ""
        self._text = bytearray()
        self._text_bytes = 0
        self._pending: list[tuple[SpooledFile, bytes]] = []
        self._pending_bytes = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._ended,
            },
        )

    async def feed(self, data: bytes) -> None:
        """Take the next bytes of the body.

        Raises:
            TooLarge: A file is over its limit, or there are too many.
            InvalidRequest: It is not a multipart form.
        """
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequest("The body is not a valid multipart form.") from error
        if self._pending_bytes >= _WRITE_BYTES:
            await self._flush()

    async def finish(self) -> Form:
        """The form, when all of it was fed.

        Raises:
            InvalidRequest: It ends before its end.
        """
        if not self._complete:  # the parser's own finalize() takes a form that is cut off
            raise InvalidRequest("The multipart form is cut off.")
        await self._flush()
        return self.form

    def _ended(self) -> None:
        self._complete = True

    async def _flush(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        await asyncio.to_thread(_write, pending)

    def _begin(self) -> None:
        self._headers, self._name, self._value = {}, b"", b""
        self._file, self._field, self._text = None, "", bytearray()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name, self._value = b"", b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self._field = _text(options.get(b"name", b""))
        if b"filename" not in options:
            return
        if self._field != self._names.files:
            name = self._names.files
            raise InvalidRequest(f"Files are sent in the field `{name}`, repeated for each.", param=name)
        if len(self.form.files) >= self._limits.max_files:
            raise TooLarge(
                f"Too many files: one request takes {self._limits.max_files}. Send the others in another.",
                param=self._names.files,
            )
        media_type = _text(self._headers.get(b"content-type", b"")).partition(";")[0].strip().lower()
        self._file = SpooledFile(
            filename=clean_name(_text(options[b"filename"]), NO_NAME),
            media_type=media_type if _MEDIA_TYPE.fullmatch(media_type) else None,
            path=self._spool_dir / SpooledFile.new_name(),
        )
        self.form.files.append(self._file)

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._file is None:
            self._text_bytes += end - start
            if self._text_bytes > _FIELDS_BYTES:
                raise TooLarge("The form's text fields are too large.", param=self._field or None)
            self._text += data[start:end]
            return
        self._file.size += end - start
        if self._file.size > self._limits.max_upload_bytes:
            raise TooLarge(
                f"`{self._file.filename}` is larger than {self._limits.max_upload_bytes} bytes, "
                "the limit of one file.",
                param=self._names.files,
            )
        self._pending.append((self._file, data[start:end]))
        self._pending_bytes += end - start

    def _end(self) -> None:
        if self._file is None:
            if self._field not in self._names.texts or self._field in self.form.fields:
                others = "".join(f", `{name}`" for name in self._names.texts)
                raise InvalidRequest(
                    f"The form's fields are `{self._names.files}`, and at most once each: "
                    f"{others.removeprefix(', ') or 'no other'}.",
                    param=self._field[:64] or None,
                )
            self.form.fields[self._field] = _text(bytes(self._text))


@asynccontextmanager
async def receive_form(
    request: Request,
    spool_dir: Path,
    limits: LimitsConfig,
    check_format: CheckFormat,
    names: Names = FILES,
) -> AsyncIterator[Form]:
    """The multipart form of the request, its files on disk; whichever are not moved away are removed.

    Raises:
        TooLarge: Too many bytes or files; told as soon as it is known, the rest is not read.
        InvalidRequest: It is no multipart form, or all files are empty.
        UnsupportedFormat: No format accepts any of the files.
    """
    _, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if not 1 <= len(boundary) <= 200:
        raise InvalidRequest("The multipart form has no boundary in its Content-Type.")
    most_bytes = limits.max_files * (limits.max_upload_bytes + _PART_OVERHEAD_BYTES) + _FIELDS_BYTES
    too_large = f"At most {limits.max_files} files of {limits.max_upload_bytes} bytes each in one request."
    if _content_length(request) > most_bytes:
        raise TooLarge(too_large, param=names.files)
    reader = FormReader(boundary, spool_dir, limits, names)
    received = 0
    try:
        async for data in chunks(request):
            received += len(data)
            if received > most_bytes:
                raise TooLarge(too_large, param=names.files)
            await reader.feed(data)
        form = await reader.finish()
        await asyncio.to_thread(_check, form, check_format, names.files)
        yield form
    finally:
        await asyncio.to_thread(_discard, reader.form)


def _content_length(request: Request) -> int:
    text = request.headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else 0


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _write(pending: list[tuple[SpooledFile, bytes]]) -> None:
    for file, data in pending:
        file.write(data)


def _check(form: Form, check_format: CheckFormat, field: str) -> None:
    """Refuse the form when none of its files can be read. One of many is not worth that: it becomes a
    document that fails, and says why."""
    problems = []
    for file in form.files:
        file.finish()
        problems.append(_problem(file, check_format, field))
    if problems and problems[0] is not None and all(problems):
        raise problems[0]


def _problem(
    file: SpooledFile, check_format: CheckFormat, field: str
) -> InvalidRequest | UnsupportedFormat | None:
    if file.size == 0:
        return InvalidRequest(f"`{file.filename}` is empty.", param=field)
    source = Source(filename=file.filename, content=file.sample(), media_type=file.media_type)
    try:
        check_format(source)
    except UnsupportedFormat as error:
        return UnsupportedFormat(f"`{file.filename}`: {error.message}", param=field)
    return None


def _discard(form: Form) -> None:
    for file in form.files:
        file.discard()
