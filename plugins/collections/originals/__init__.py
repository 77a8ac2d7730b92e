"""The files as they were uploaded, and what was made of them, keyed collection, document and revision."""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Generic, Literal, TypeVar

from crawler.settings import Settings

C = TypeVar("C", bound=Settings)

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
SPOOL_AGE_S = 24 * 3600.0
"""A spooled upload that nobody wrote to for so long is of a request that died."""


Part = Literal["original", "prepared"]
"""What is kept of a revision: the file as it was uploaded, and what was made of it so far."""
PARTS: tuple[Part, ...] = ("original", "prepared")


class Originals(ABC, Generic[C]):
    """Where files are kept, by collection, document and revision. Names are ids only, never a user's text."""

    def __init__(self, settings: C, data_dir: Path) -> None:
        self.settings = settings
        self.spool_dir = data_dir.absolute() / "spool"
        """Where uploads are spooled to; `put` takes a file away from here."""
        self.spool_dir.mkdir(mode=0o700, parents=True, exist_ok=True)

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
    async def revisions(self, collection_id: str, document_id: str) -> set[str]:
        """The revisions of a document of which anything is kept."""

    @abstractmethod
    async def drop(self, collection_id: str) -> None:
        """Remove all files of a collection; harmless when there are none."""

    @abstractmethod
    async def documents(self, older_than_s: float) -> list[tuple[str, str]]:
        """Collection and document id of everything kept that was last touched so long ago."""

    async def sweep_spool(self) -> None:
        """Remove what dead requests left in the spool."""
        await asyncio.to_thread(self._sweep_spool, time.time() - SPOOL_AGE_S)

    def _sweep_spool(self, before: float) -> None:
        for path in self.spool_dir.glob("*"):
            if path.is_file() and path.stat().st_mtime < before:
                path.unlink(missing_ok=True)

    async def ping(self) -> None:
        """Answer, or raise Upstream."""
        return

    async def close(self) -> None:
        """Close what was opened."""
        return


def check_ids(*ids: str) -> None:
    """Raises ValueError unless these are ids, of which keys and paths are made."""
    if not all(_ID.fullmatch(part) for part in ids):
        raise ValueError("an original's key consists of ids")
