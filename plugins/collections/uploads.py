"""An upload on its way to being a row: checked, its original kept, known content recognised."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crawler.contracts import audience_key
from crawler.properties import (
    MAX_DEPTH,
    MAX_INTEGER,
    MAX_KEY,
    MAX_TEXT,
    PLACES,
    PROPERTIES,
    is_attribute,
    is_too_deep,
)
from plugins.collections.expiry import moment
from plugins.collections.records import (
    DOCUMENT_ID,
    has_controls,
    new_id,
)
from plugins.collections.rights import Rights
from plugins.core.errors import InvalidRequest

RESERVED = PLACES | {"created_at", "language", "title"}
"""Attributes that we set ourselves."""

MAX_ATTRIBUTES = 16
MAX_METADATA_BYTES = 64 * 1024
"""Of what is given with Markdown, as JSON."""
MAX_URL = 2000
MANAGE_AUDIENCE = "To change a document's audience needs the right `manage`."


@dataclass(frozen=True)
class Upload:
    """One document as it came in; exactly one of `path`, `markdown` and `url` is set."""

    filename: str
    media_type: str | None
    path: Path | None
    """A file in the spool directory; it is moved away."""
    size: int
    """Bytes."""
    sha256: str
    """Of the bytes, in hex."""
    markdown: str | None
    url: str | None
    metadata: dict[str, Any]
    """Attributes; beside Markdown any JSON, also what would be found in the document otherwise."""
    acl: list[str] | None
    document_id: str | None
    expires_at: float | str | None = None
    """Seconds since 1970 (UTC), or ISO 8601."""


@dataclass(frozen=True)
class CheckedUpload:
    """An upload that passed all checks."""

    upload: Upload
    """Its `metadata` are its attributes."""
    kind: str
    document_id: str
    revision: str
    acl: list[str] | None
    pipeline: str
    """Digest of its settings."""
    properties: dict[str, Any] = field(default_factory=dict)
    """What is known of the document, given with its Markdown; with a `title` nothing is looked for."""
    expires_at: float | None = None
    """Seconds since 1970 (UTC)."""
    batch_id: str | None = None
    """The documents of one request have the same."""

    @property
    def size(self) -> int:
        """In bytes; 0 for an address that is not fetched yet."""
        return 0 if self.kind == "url" else self.upload.size

    @property
    def acl_key(self) -> str:
        return audience_key(self.acl)


def check_upload(
    upload: Upload, rights: Rights, pipeline: Mapping[str, Any], batch_id: str | None = None
) -> CheckedUpload:
    """Check what the uploader said.

    Args:
        upload: One document.
        rights: Who is known.
        pipeline: Its collection's, as the configuration has it.
        batch_id: Of the request.

    Raises:
        InvalidRequest: With the field that is wrong.
    """
    if upload.document_id is not None and not DOCUMENT_ID.fullmatch(upload.document_id):
        raise InvalidRequest("A document's id has 1 to 128 of the characters A-Z a-z 0-9 _ -", param="id")
    if not 1 <= len(upload.filename) <= 255 or has_controls(upload.filename):
        raise InvalidRequest(
            "A file name has 1 to 255 characters and no control characters.", param="filename"
        )
    url = upload.url
    if url is not None and (
        not url.startswith(("http://", "https://")) or len(url) > MAX_URL or has_controls(url)
    ):
        raise InvalidRequest(f"`url` is an http(s) address of at most {MAX_URL} characters", param="url")
    kinds = {"file": upload.path, "markdown": upload.markdown, "url": url}
    given = [kind for kind, value in kinds.items() if value is not None]
    if len(given) != 1:
        raise InvalidRequest("A document is given by one of a file, `markdown`, `text` and `url`.")
    if upload.markdown is not None and _has_surrogates(upload.markdown):
        raise InvalidRequest("`markdown` is not Unicode text.", param="markdown")
    attributes, properties = split_metadata(upload)
    return CheckedUpload(
        upload=replace(upload, metadata=attributes),
        kind=given[0],
        document_id=upload.document_id or new_id("file-"),
        revision=uuid.uuid4().hex,
        acl=canonical_acl(upload.acl, rights),
        pipeline=digest(pipeline),
        properties=properties,
        expires_at=moment(upload.expires_at),
        batch_id=batch_id,
    )


def split_metadata(upload: Upload) -> tuple[dict[str, Any], dict[str, Any]]:
    """The upload's attributes, and its properties: what is said of it beside its Markdown instead of being
    found in it. Those are the names that conversion and rules give, and all that is no scalar.

    Metadata with a `title` is what a preview answered, perhaps edited: what does not go as an attribute is
    then kept as a property, and nothing of it is refused for that.

    Raises:
        InvalidRequest: It cannot be taken.
    """
    given = upload.metadata
    if upload.markdown is None:
        check_attributes(given)
        return given, {}
    _check_json(given)
    given = {key: value for key, value in given.items() if value is not None}
    if taken := sorted(PLACES & given.keys()):
        raise InvalidRequest(f"`{taken[0]}` is set by this server; use another key", param="metadata")
    title = given.get("title", "-")
    if not isinstance(title, str) or not title.strip():
        raise InvalidRequest("`title` is a text that is not empty.", param="metadata")
    if "title" in given:
        fitting = [key for key, value in given.items() if is_attribute(key, value) and not has_controls(key)]
        attributes = {key: given[key] for key in fitting[:MAX_ATTRIBUTES]}
    else:
        scalars = {key: value for key, value in given.items() if not isinstance(value, dict | list)}
        attributes = {key: value for key, value in scalars.items() if key not in PROPERTIES}
        check_attributes(attributes)
    return attributes, {key: value for key, value in given.items() if key not in attributes}


def _check_json(metadata: Mapping[str, Any]) -> None:
    """Raises InvalidRequest unless every database takes it."""
    try:
        size = len(json.dumps(metadata, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidRequest("`metadata` is not a JSON object of Unicode text.", param="metadata") from error
    if size > MAX_METADATA_BYTES:
        raise InvalidRequest(f"`metadata` has at most {MAX_METADATA_BYTES} bytes.", param="metadata")
    if is_too_deep(metadata):
        raise InvalidRequest(
            f"Lists and objects in `metadata` lie at most {MAX_DEPTH} deep in each other.", param="metadata"
        )
    left: list[Any] = [metadata]
    while left:
        value = left.pop()
        if isinstance(value, str) and "\x00" in value:
            raise InvalidRequest("A text in `metadata` has a NUL character.", param="metadata")
        if isinstance(value, dict):
            left += [*value, *value.values()]
        elif isinstance(value, list):
            left += value


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def canonical_acl(acl: list[str] | None, rights: Rights) -> list[str] | None:
    """An audience with its subjects in full.

    Raises:
        InvalidRequest: It is empty, or one of them is not a subject.
    """
    if acl is None:
        return None
    if not acl:
        raise InvalidRequest(
            "An empty `acl` lets nobody read the document; leave it out for everyone who may query.",
            param="acl",
        )
    return rights.canonical(acl, "acl")


def check_attributes(attributes: Mapping[str, Any]) -> None:
    """Raises InvalidRequest unless these may be a document's attributes."""
    if len(attributes) > MAX_ATTRIBUTES:
        raise InvalidRequest(f"`metadata` has at most {MAX_ATTRIBUTES} keys", param="metadata")
    for key, value in attributes.items():
        if key in RESERVED:
            raise InvalidRequest(f"`{key}` is set by this server; use another key", param="metadata")
        if not 1 <= len(key) <= MAX_KEY or has_controls(key):
            raise InvalidRequest("A key of `metadata` has 1 to 64 characters.", param="metadata")
        if not isinstance(value, str | int | float | bool):
            raise InvalidRequest("A value of `metadata` is a string, number or boolean.", param="metadata")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise InvalidRequest("A number in `metadata` is too large; send it as text.", param="metadata")
        if isinstance(value, str) and len(value) > MAX_TEXT:
            raise InvalidRequest(f"A text in `metadata` has at most {MAX_TEXT} characters.", param="metadata")


def digest(pipeline: Mapping[str, Any]) -> str:
    """Tells whether a document was made with the same settings."""
    text = json.dumps(pipeline, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
