"""The jobs of what was uploaded: how far they are, and how each of them ended."""

from __future__ import annotations

import time
from typing import Any

from crawler.commands import say
from crawler.commands.client import Collection, Failed

POLL_S = 0.5
SHOW_S = 10.0
"""How often it is said how far many documents are."""
ENDED = {"completed", "failed", "cancelled"}


class Jobs:
    """Follows jobs until the last one has ended, and says how each did.

    Args:
        collection: Where they are.
        total: How many documents are to be uploaded.
        stalled_s: Give up when nothing moves for so many seconds.
    """

    def __init__(self, collection: Collection, total: int, stalled_s: float) -> None:
        self.failed = 0
        self._collection = collection
        self._total = total
        self._stalled_s = stalled_s
        self._ended = 0
        self._waiting: dict[str, dict[str, str]] = {}
        """By batch: the names of its jobs that have not ended."""
        self._own: set[str] = set()
        """Batches of which all jobs are ours."""
        self._shown: dict[str, str] = {}
        self._shown_at = time.monotonic()

    def fail(self, name: str, reason: str) -> None:
        """Say that a document failed."""
        self.failed += 1
        self._ended += 1
        say(f"{name}: failed: {reason}", error=True)

    def follow(self, name: str, document: dict[str, Any], batch: str | None = None) -> None:
        """Wait for a document that is as the server shows it, and for what is found in it.

        Args:
            name: What it is called here.
            document: As the server shows it.
            batch: The upload that it was sent in. Content that was there already is of another.
        """
        job = document.get("job") or {}
        if batch:
            self._own.add(batch)
        if document.get("status") in ENDED:
            self._end(name, {**document, "total": document.get("chunks")})
            return
        try:
            self._waiting.setdefault(document["batch_id"], {})[job["id"]] = name
        except KeyError as error:
            raise Failed("the server's answer is not one of this API; check --url") from error

    def wait(self) -> None:
        """Until all have ended, those of files inside of archives and mails included.

        Raises:
            Failed: Nothing moves any more, or the server is gone.
        """
        for batch, names in self._waiting.items():
            ended: set[str] = set()
            before, since = None, time.monotonic()
            while (state := self._look(batch, names, ended)) is not None:
                if state != before:
                    before, since = state, time.monotonic()
                elif time.monotonic() - since > self._stalled_s:
                    reason = f"nothing moved for {self._stalled_s:g} s; it goes on being processed"
                    raise Failed(f"{len(names)} not done: {reason}")
                time.sleep(POLL_S)

    def _look(self, batch: str, names: dict[str, str], ended: set[str]) -> object:
        """Say what has ended of a batch; what still moves in it, or None when all has ended."""
        moving, listed = [], set()
        for job in self._collection.list("/jobs", batch=batch):
            job_id = job["id"]
            listed.add(job_id)
            if job_id not in names and job_id not in ended and batch in self._own:
                names[job_id] = f"{job.get('filename')} (inside)"
                self._total += 1
            if job_id not in names:
                continue
            if job.get("status") in ENDED:
                ended.add(job_id)
                self._end(names.pop(job_id), job)
            else:
                moving.append((job_id, job.get("stage"), job.get("done")))
                self._show(names[job_id], job)
        for job_id in names.keys() - listed:
            self.fail(names.pop(job_id), "it was deleted meanwhile")
        self._show_all()
        return moving or None

    def _end(self, name: str, job: dict[str, Any]) -> None:
        if job.get("status") != "completed":
            reason = (job.get("last_error") or {}).get("message")
            self.fail(name, str(reason or job.get("status")))
            return
        self._ended += 1
        total = job.get("total")
        say(f"{name}: done, {total} chunks" if total else f"{name}: done")

    def _show(self, name: str, job: dict[str, Any]) -> None:
        """How far one document is, where it is the only one."""
        line = f"{job.get('stage')} {job.get('done')}/{job.get('total')}"
        line = line if job.get("total") else str(job.get("stage"))
        if self._total == 1 and self._shown.get(name) != line:
            say(f"{name}: {line}")
            self._shown[name] = line

    def _show_all(self) -> None:
        if self._total > 1 and time.monotonic() - self._shown_at > SHOW_S:
            say(f"{self._ended} of {self._total} have ended, {self.failed} failed")
            self._shown_at = time.monotonic()
