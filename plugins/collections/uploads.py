"""An upload on its way to being a row: checked, its original kept, known content recognised."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crawler.contracts import audience_key
from plugins.collections.records import (
    has_controls,
    new_id,
)
from plugins.collections.rights import Rights
from plugins.core.errors import InvalidRequest

DOCUMENT_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
RESERVED = frozenset(
    {
        "collection",
        "collection_id",
        "created_at",
        "document_id",
        "filename",
        "headings",
        "language",
        "page",
        "page_first",
        "page_last",
        "title",
    }
)
"""Attributes that we set ourselves."""

MAX_ATTRIBUTES = 16
MAX_VALUE = 512  # characters, as OpenAI's file attributes
MAX_INTEGER = 2**53 - 1
"""What JSON numbers hold exactly everywhere (RFC 8259, section 6)."""
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
    acl: list[str] | None
    document_id: str | None


@dataclass(frozen=True)
class Prepared:
    """An upload that passed all checks."""

    upload: Upload
    kind: str
    document_id: str
    revision: str
    acl: list[str] | None
    pipeline: str

    @property
    def size(self) -> int:
        """In bytes; 0 for an address that is not fetched yet."""
        return 0 if self.kind == "url" else self.upload.size

    @property
    def acl_key(self) -> str:
        return audience_key(self.acl)


def prepare(upload: Upload, rights: Rights, pipeline: Mapping[str, Any]) -> Prepared:
    """Check what the uploader said.

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
    check_attributes(upload.metadata)
    return Prepared(
        upload=upload,
        kind=given[0],
        document_id=upload.document_id or new_id("file-"),
        revision=uuid.uuid4().hex,
        acl=canonical_acl(upload.acl, rights),
        pipeline=digest(pipeline),
    )


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
        if not 1 <= len(key) <= 64 or has_controls(key):
            raise InvalidRequest("A key of `metadata` has 1 to 64 characters.", param="metadata")
        if not isinstance(value, str | int | float | bool):
            raise InvalidRequest("A value of `metadata` is a string, number or boolean.", param="metadata")
        if isinstance(value, int) and abs(value) > MAX_INTEGER:
            raise InvalidRequest("A number in `metadata` is too large; send it as text.", param="metadata")
        if isinstance(value, str) and len(value) > MAX_VALUE:
            raise InvalidRequest(
                f"A text in `metadata` has at most {MAX_VALUE} characters.", param="metadata"
            )


def digest(pipeline: Mapping[str, Any]) -> str:
    """Tells whether a document was made with the same settings."""
    text = json.dumps(pipeline, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
