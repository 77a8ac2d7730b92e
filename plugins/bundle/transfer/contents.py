"""What is in an export, checked as a whole before anything of it is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from pydantic import TypeAdapter, ValidationError

from crawler.contracts import audience_key
from plugins.bundle.transfer.files import COLLECTION, DOCUMENTS, Digest, Reader, TransferError, damaged
from plugins.collections.records import (
    DOCUMENT_ID,
    EVERYONE_KEY,
    LIVE_AS,
    CollectionRecord,
    DocumentRecord,
    live_as,
)
from plugins.core.identity import RIGHTS, Right

_COLLECTION = TypeAdapter(CollectionRecord)
_DOCUMENT = TypeAdapter(DocumentRecord)
NEWER = "the export was made by a newer version of this product; install that, and import it then"


@dataclass(frozen=True)
class Contents:
    """A checked export, without its documents."""

    collection: CollectionRecord
    audiences: Mapping[str, list[str]]
    live: Mapping[str, tuple[str, int]]
    """By document id: the revision that is searchable, and how many passages it has."""


def checked(reader: Reader) -> Contents:
    """The export, if all of it is there and fits together. Blocks; reads every file.

    Raises:
        TransferError: What is wrong.
    """
    reader.check_sums()
    whole = reader.collection()
    try:
        grants, audiences = whole["grants"], whole["audiences"]
        known = all(right in RIGHTS and all(map(_is_subject, held)) for right, held in grants.items())
        honest = all(audience_key(subjects) == key for key, subjects in audiences.items())
    except (KeyError, TypeError, AttributeError) as error:
        raise damaged(COLLECTION) from error
    if not (known and honest):
        raise damaged(COLLECTION)
    collection = _collection(whole["collection"], reader)
    live = _check_documents(reader, collection, {EVERYONE_KEY, *audiences})
    _check_passages(reader, live, {EVERYONE_KEY, *audiences})
    held: dict[Right, frozenset[str]] = {right: frozenset(subjects) for right, subjects in grants.items()}
    return Contents(replace(collection, grants=held), audiences, live)


def _is_subject(text: object) -> bool:
    return isinstance(text, str) and 0 < len(text) <= 512


def _collection(given: Any, reader: Reader) -> CollectionRecord:
    manifest = reader.manifest
    ours = {"state": "creating", "store_name": ""}
    collection: CollectionRecord = _valid(_COLLECTION, given, ours, COLLECTION)
    for name in ("id", "name", "embedding_model", "dimension", "metric", "retrieval"):
        if getattr(collection, name) != getattr(manifest, name):
            raise damaged(COLLECTION)
    if collection.kind != "bundle":
        raise TransferError("the export is of a collection whose rights are Milvus's own")
    return collection


def documents(reader: Reader, collection_id: str) -> Iterator[DocumentRecord]:
    """The documents' rows; nobody works on them.

    Raises:
        TransferError: One of them is no row.
    """
    ours = {"collection_id": collection_id, "worker": None, "lease_until": 0.0}
    for given in reader.documents():
        yield _valid(_DOCUMENT, given, ours, DOCUMENTS)


def _valid(adapter: TypeAdapter[Any], given: Any, ours: Mapping[str, Any], name: str) -> Any:
    record = CollectionRecord if adapter is _COLLECTION else DocumentRecord
    if isinstance(given, dict) and not given.keys() <= {found.name for found in fields(record)}:
        raise TransferError(NEWER)
    try:
        return adapter.validate_python({**given, **ours})
    except (TypeError, ValidationError) as error:
        raise damaged(name) from error


def _check_documents(
    reader: Reader, collection: CollectionRecord, audiences: set[str]
) -> dict[str, tuple[str, int]]:
    live, revisions = {}, {}
    for row in documents(reader, collection.id):
        ids = (row.id, row.revision, row.live_revision or row.revision)
        fits = all(map(DOCUMENT_ID.fullmatch, ids)) and _has_audiences(row)
        if not fits or row.acl_key not in audiences or row.id in revisions:
            raise damaged(DOCUMENTS)
        revisions[row.id] = set(ids[1:])
        if row.live_revision is not None:
            live[row.id] = (row.live_revision, row.chunks)
    files = 0
    for document_id, revision, _, _ in reader.originals():
        files += 1
        if revision not in revisions.get(document_id, ()):
            raise damaged(DOCUMENTS)
    if (len(revisions), files) != (reader.manifest.documents, reader.manifest.files):
        raise damaged(DOCUMENTS)
    return live


def _has_audiences(row: DocumentRecord) -> bool:
    """Whether the keys are those of the audiences, also of the live revision where that has its own."""
    if set(row.live_as or LIVE_AS) != set(LIVE_AS):
        return False
    live = live_as(row)
    return row.acl_key == audience_key(row.acl) and live["acl_key"] == audience_key(live["acl"])


def _check_passages(reader: Reader, live: Mapping[str, tuple[str, int]], audiences: set[str]) -> None:
    digest, counted = Digest(), Counter[str]()
    for row in reader.rows():
        digest.add(row)
        counted[row.document_id] += 1
        if live.get(row.document_id, ("", 0))[0] != row.revision or row.acl_key not in audiences:
            raise damaged("passages")
    complete = all(counted[document_id] == chunks for document_id, (_, chunks) in live.items())
    whole = (digest.rows, str(digest)) == (reader.manifest.passages, reader.manifest.digest)
    if not (complete and whole):
        raise damaged("passages")
