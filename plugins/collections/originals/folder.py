"""Originals as files on this machine, or on a file system that all machines share."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from crawler.settings import Settings
from plugins.collections.originals import PARTS, Originals, Part, check_ids


class FolderSettings(Settings):
    """None: it is in the data directory."""


class Folder(Originals[FolderSettings]):
    """Files in the data directory: `originals/<collection>/<document>/<revision>`, readable by us alone."""

    def __init__(self, settings: FolderSettings, data_dir: Path) -> None:
        super().__init__(settings, data_dir)
        self._root = data_dir.absolute() / "originals"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)

    async def put(
        self, collection_id: str, document_id: str, revision: str, spooled: Path, part: Part = "original"
    ) -> None:
        target = self._part(self._path(collection_id, document_id, revision), part)
        await asyncio.to_thread(self._put, target, spooled)

    def _put(self, target: Path, spooled: Path) -> None:
        with spooled.open("rb+") as file:
            os.fsync(file.fileno())
        _until_there(target.parent, lambda: os.replace(spooled, target))
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
        except FileNotFoundError:  # replaced meanwhile
            return False
        except OSError:  # a file system without hard links
            part = self.spool_dir / f"copy-{target.name}"
            try:
                shutil.copyfile(source, part)
            except FileNotFoundError:
                return False
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
        await asyncio.to_thread(self._remove, path)

    def _remove(self, path: Path) -> None:
        for part in PARTS:
            self._part(path, part).unlink(missing_ok=True)
        with suppress(OSError):  # other revisions are there
            path.parent.rmdir()

    async def revisions(self, collection_id: str, document_id: str) -> set[str]:
        folder = self._path(collection_id, document_id, "_").parent
        return await asyncio.to_thread(lambda: {path.stem for path in folder.glob("*")})

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

    def _part(self, path: Path, part: Part) -> Path:
        return path if part == "original" else path.with_suffix(f".{part}")

    def _path(self, *ids: str) -> Path:
        check_ids(*ids)
        return self._root.joinpath(*ids)


def _until_there(folder: Path, write: Callable[[], None]) -> None:
    """Write into a folder that whoever clears up may remove, whenever it is empty."""
    while True:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return write()
        except FileNotFoundError:
            if folder.is_dir():
                raise
