"""The files as they were uploaded, keyed collection, document and revision."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Literal

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
SPOOL_AGE_S = 24 * 3600.0
"""A spooled upload that nobody wrote to for so long is of a request that died."""


Part = Literal["original", "prepared"]
"""What is kept of a revision: the file as it was uploaded, and what was made of it so far."""
PARTS: tuple[Part, ...] = ("original", "prepared")


class Originals(ABC):
    """Where files are kept, by collection, document and revision. Names are ids only, never a user's text."""

    spool_dir: Path
    """Where uploads are spooled to; `put` moves a file from here without copying."""

    @abstractmethod
    async def put(
        self, collection_id: str, document_id: str, revision: str, spooled: Path, part: Part = "original"
    ) -> None:
        """Move a spooled file in; it is durable when this returns. What is there already is replaced."""

    @abstractmethod
    async def copy(self, collection_id: str, document_id: str, revision: str, to: str) -> bool:
        """Make the original of one revision also that of the revision `to`; False when there is none."""

    @abstractmethod
    def open(
        self, collection_id: str, document_id: str, revision: str, part: Part = "original"
    ) -> AbstractAsyncContextManager[Path | None]:
        """A local file to read while the context is open; None when there is none."""

    @abstractmethod
    async def remove(self, collection_id: str, document_id: str, revision: str) -> None:
        """Remove all parts of one revision; harmless when there are none."""

    @abstractmethod
    async def keep(self, collection_id: str, document_id: str, revisions: Collection[str]) -> None:
        """Remove the document's files except those of the revisions; harmless when there are none."""

    @abstractmethod
    async def drop(self, collection_id: str) -> None:
        """Remove all files of a collection; harmless when there are none."""

    @abstractmethod
    async def documents(self, older_than_s: float) -> list[tuple[str, str]]:
        """Collection and document id of everything kept that was last touched so long ago."""

    @abstractmethod
    async def sweep_spool(self) -> None:
        """Remove what dead requests left in the spool."""


class Folder(Originals):
    """Originals in a folder: ``<collection>/<document>/<revision>``, mode 0700; other parts beside them."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute() / "originals"
        self.spool_dir = root.absolute() / "spool"
        for path in (self._root, self.spool_dir):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(
        self, collection_id: str, document_id: str, revision: str, spooled: Path, part: Part = "original"
    ) -> None:
        target = self._part(self._path(collection_id, document_id, revision), part)
        await asyncio.to_thread(self._put, target, spooled)

    def _put(self, target: Path, spooled: Path) -> None:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with spooled.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(spooled, target)
        self._sync(target)

    def _sync(self, target: Path) -> None:
        for folder in (target.parent, target.parent.parent, self._root):
            os.utime(folder)  # the sweep goes by age
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)

    async def copy(self, collection_id: str, document_id: str, revision: str, to: str) -> bool:
        source = self._path(collection_id, document_id, revision)
        target = self._path(collection_id, document_id, to)
        return await asyncio.to_thread(self._copy, source, target)

    def _copy(self, source: Path, target: Path) -> bool:
        if not source.exists():
            return False
        try:
            os.link(source, target)
        except OSError:  # a file system without hard links
            part = self.spool_dir / f"copy-{target.name}"
            shutil.copyfile(source, part)
            self._put(target, part)
        self._sync(target)
        return True

    @asynccontextmanager
    async def open(
        self, collection_id: str, document_id: str, revision: str, part: Part = "original"
    ) -> AsyncIterator[Path | None]:
        path = self._part(self._path(collection_id, document_id, revision), part)
        yield path if await asyncio.to_thread(path.is_file) else None

    async def remove(self, collection_id: str, document_id: str, revision: str) -> None:
        path = self._path(collection_id, document_id, revision)
        for part in PARTS:
            await asyncio.to_thread(self._part(path, part).unlink, missing_ok=True)

    async def keep(self, collection_id: str, document_id: str, revisions: Collection[str]) -> None:
        folder = self._path(collection_id, document_id, "_").parent
        await asyncio.to_thread(self._keep, folder, frozenset(revisions))

    def _keep(self, folder: Path, revisions: frozenset[str]) -> None:
        if not revisions:
            shutil.rmtree(folder, ignore_errors=True)
            return
        for path in folder.glob("*"):
            if path.stem not in revisions:
                path.unlink(missing_ok=True)

    async def drop(self, collection_id: str) -> None:
        folder = self._path(collection_id, "_", "_").parent.parent
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def documents(self, older_than_s: float) -> list[tuple[str, str]]:
        return await asyncio.to_thread(self._documents, time.time() - older_than_s)

    def _documents(self, before: float) -> list[tuple[str, str]]:
        return [
            (path.parent.name, path.name)
            for path in self._root.glob("*/*")
            if path.is_dir() and path.stat().st_mtime < before
        ]

    async def sweep_spool(self) -> None:
        await asyncio.to_thread(self._sweep_spool, time.time() - SPOOL_AGE_S)

    def _sweep_spool(self, before: float) -> None:
        for path in self.spool_dir.glob("*"):
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    def _part(self, path: Path, part: Part) -> Path:
        return path if part == "original" else path.with_suffix(f".{part}")

    def _path(self, *ids: str) -> Path:
        if not all(_ID.fullmatch(part) for part in ids):
            raise ValueError("an original's key consists of ids")
        return self._root.joinpath(*ids)
