"""What an export is made of.

manifest.json            written last: an export without it is not complete
SHA256SUMS               of every other file, as `sha256sum -c` reads it
collection.json          the collection, its grants and audiences
documents.jsonl          the rows of its documents
passages-00000.jsonl     passages, up to 10,000 in a file, without their vectors
vectors-00000.f32        the vectors of those passages in their order: single precision, little endian
files/DOCUMENT/REVISION  the file as it was uploaded; beside it `.prepared`, what was made of it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from array import array
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pydantic import Field, ValidationError

from crawler.contracts import Frozen
from crawler.store import Metric, Retrieval, Row
from plugins.collections.originals import Part

FORMAT = 1
SHARD_ROWS = 10_000
BLOCK = 2**20
MANIFEST, SUMS, COLLECTION, DOCUMENTS = "manifest.json", "SHA256SUMS", "collection.json", "documents.jsonl"
_NAME = re.compile(
    r"collection\.json|documents\.jsonl|passages-\d{5,}\.jsonl|vectors-\d{5,}\.f32"
    r"|files/[A-Za-z0-9_-]{1,128}/[A-Za-z0-9_-]{1,32}(\.prepared)?"
)
_LINE = re.compile(r"([0-9a-f]{64})  (.+)")


class TransferError(Exception):
    """A collection cannot be exported or imported; the text says why and what to do."""


class Manifest(Frozen):
    """What is in an export; its numbers are compared with what is written and read back."""

    format: int
    exported_at: float
    id: str
    name: str
    embedding_model: str
    dimension: int = Field(ge=1)
    metric: Metric
    retrieval: Retrieval
    documents: int
    passages: int
    files: int
    """Originals, and what was made of them."""
    digest: str
    """Of all passages and their vectors, in any order: see :class:`Digest`."""
    sums_sha256: str
    """Of the file SHA256SUMS, and so of every file."""


class Digest:
    """A number over rows that does not depend on their order: the sum of their sha256, modulo 2**256."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, row: Row) -> None:
        line = json.dumps(fields_of(row), sort_keys=True).encode()
        found = hashlib.sha256(line + b"\n" + packed(row.vector)).digest()
        self._sum = (self._sum + int.from_bytes(found)) % 2**256
        self.rows += 1

    def __str__(self) -> str:
        return f"{self._sum:064x}"


def fields_of(row: Row) -> dict[str, Any]:
    """All of a row but its vector, as JSON."""
    return {
        "document_id": row.document_id,
        "revision": row.revision,
        "index": row.index,
        "page_first": row.page_first,
        "page_last": row.page_last,
        "text": row.text,
        "acl_key": row.acl_key,
        "meta": dict(row.meta),
    }


def packed(vector: array[float]) -> bytes:
    """Single precision, little endian."""
    if sys.byteorder == "little":
        return vector.tobytes()
    swapped = array("f", vector)
    swapped.byteswap()
    return swapped.tobytes()


def unpacked(content: bytes) -> array[float]:
    """The vector that ``packed`` made the bytes of."""
    vector = array("f")
    vector.frombytes(content)
    if sys.byteorder != "little":
        vector.byteswap()
    return vector


class Writer:
    """Writes an export, each file's sha256 along with it. Only its owner may read what it writes.

    Raises:
        TransferError: The folder is not empty.
        OSError: It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise TransferError(f"{folder} is not empty; export into a new folder")
        folder.chmod(0o700)
        self.digest = Digest()
        self.documents = self.files = 0
        self._folder = folder
        self._sums = _Hashed(folder / SUMS)
        self._documents = _Hashed(folder / DOCUMENTS)
        self._shard: tuple[_Hashed, _Hashed] | None = None

    def copy(self, source: Path, name: str) -> str:
        """Copy an original to `files/...`; its sha256."""
        with source.open("rb") as file:
            target = _Hashed(self._folder / name)
            while block := file.read(BLOCK):
                target.write(block)
        return target.close()

    def forget(self, name: str) -> None:
        """Remove what was copied."""
        (self._folder / name).unlink()

    def add(self, document: Mapping[str, Any], rows: list[Row], copied: Mapping[str, str]) -> None:
        """A document with its passages, and the sums of its files by their names."""
        self._documents.line(document)
        self.documents += 1
        for row in rows:
            passages, vectors = self._current_shard()
            passages.line(fields_of(row))
            vectors.write(packed(row.vector))
            self.digest.add(row)
        for name, digest in copied.items():
            self._sum(name, digest)
            self.files += 1

    def _current_shard(self) -> tuple[_Hashed, _Hashed]:
        number, into = divmod(self.digest.rows, SHARD_ROWS)
        if into == 0 or self._shard is None:
            self._close_shard()
            passages = _Hashed(self._folder / f"passages-{number:05}.jsonl")
            self._shard = passages, _Hashed(self._folder / f"vectors-{number:05}.f32")
        return self._shard

    def _close_shard(self) -> None:
        for part in self._shard or ():
            self._sum(part.path.name, part.close())

    def _sum(self, name: str, digest: str) -> None:
        self._sums.write(f"{digest}  {name}\n".encode())

    def finish(self, collection: Mapping[str, Any], **fields: Any) -> Manifest:
        """The collection itself, and the manifest: from here on the export is complete."""
        self._close_shard()
        self._sum(DOCUMENTS, self._documents.close())
        whole = _Hashed(self._folder / COLLECTION)
        whole.line(collection)
        self._sum(COLLECTION, whole.close())
        manifest = Manifest(
            format=FORMAT,
            documents=self.documents,
            passages=self.digest.rows,
            files=self.files,
            digest=str(self.digest),
            sums_sha256=self._sums.close(),
            **fields,
        )
        part = self._folder / f"{MANIFEST}.part"
        written = _Hashed(part)
        written.write(manifest.model_dump_json(indent=2).encode() + b"\n")
        written.close()
        part.rename(self._folder / MANIFEST)
        return manifest


class _Hashed:
    """A new file that is written once, and hashed meanwhile; durable when it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._sha256 = hashlib.sha256()

    def write(self, content: bytes) -> None:
        self._file.write(content)
        self._sha256.update(content)

    def line(self, fields: Mapping[str, Any]) -> None:
        self.write(json.dumps(fields, ensure_ascii=False).encode() + b"\n")

    def close(self) -> str:
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        return self._sha256.hexdigest()


class Reader:
    """An export that is to be read. Blocks.

    Raises:
        TransferError: There is no complete export of this version's format.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            content = json.loads((folder / MANIFEST).read_bytes())
        except FileNotFoundError as error:
            raise TransferError(
                f"{folder} is no complete export: it has no {MANIFEST}; export it again"
            ) from error
        except ValueError as error:
            raise damaged(MANIFEST) from error
        if isinstance(content, dict) and content.get("format") != FORMAT:
            raise TransferError("the export was made by another version of this product; import it with that")
        try:
            self.manifest = Manifest.model_validate(content)
        except ValidationError as error:
            raise damaged(MANIFEST) from error

    def check_sums(self) -> None:
        """That every file is there and as it was written.

        Raises:
            TransferError: Naming the first that is not.
        """
        sums = self.folder / SUMS
        if not sums.is_file() or sha256_of(sums) != self.manifest.sums_sha256:
            raise damaged(SUMS)
        for name, digest in self._listed():
            path = self.folder / name
            if path.is_symlink() or not path.is_file():
                raise TransferError(f"the export is incomplete: {name} is missing; export it again")
            if sha256_of(path) != digest:
                raise damaged(name)

    def _listed(self) -> Iterator[tuple[str, str]]:
        with (self.folder / SUMS).open(encoding="utf-8") as file:
            for line in file:
                found = _LINE.fullmatch(line.rstrip("\n"))
                if found is None or not _NAME.fullmatch(found[2]):
                    raise damaged(SUMS)
                yield found[2], found[1]

    def originals(self) -> Iterator[tuple[str, str, Part, str]]:
        """Document, revision, part and sha256 of each file that is kept."""
        for name, digest in self._listed():
            if name.startswith("files/"):
                _, document_id, last = name.split("/")
                revision, _, prepared = last.partition(".")
                yield document_id, revision, "prepared" if prepared else "original", digest

    def collection(self) -> dict[str, Any]:
        [found] = list(_lines(self.folder / COLLECTION))
        return found

    def documents(self) -> Iterator[dict[str, Any]]:
        return _lines(self.folder / DOCUMENTS)

    def rows(self) -> Iterator[Row]:
        """All passages.

        Raises:
            TransferError: A file of vectors has not as many as there are passages.
        """
        size = 4 * self.manifest.dimension
        for passages in sorted(self.folder.glob("passages-*.jsonl")):
            vectors = self.folder / passages.name.replace("passages", "vectors").replace(".jsonl", ".f32")
            with vectors.open("rb") as file:
                for fields in _lines(passages):
                    content = file.read(size)
                    if len(content) != size:
                        raise damaged(vectors.name)
                    yield _row(fields, content, passages.name)
                if file.read(1):
                    raise damaged(vectors.name)


def _row(fields: dict[str, Any], content: bytes, name: str) -> Row:
    try:
        return Row(**fields, vector=unpacked(content))
    except TypeError as error:
        raise damaged(name) from error


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError as error:
                raise damaged(path.name) from error
            if not isinstance(found, dict):
                raise damaged(path.name)
            yield found


def name_of(document_id: str, revision: str, part: Part) -> str:
    """Where a document's file is in an export."""
    return f"files/{document_id}/{revision}" + ("" if part == "original" else f".{part}")


def damaged(name: str) -> TransferError:
    """The export's file is not as it was written."""
    return TransferError(f"the export is damaged: {name} is not as it was written; use another copy")


def sha256_of(path: Path) -> str:
    """In hexadecimal. Blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
