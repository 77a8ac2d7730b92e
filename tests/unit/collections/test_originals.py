"""Originals in a folder: durable names, and what the sweep takes away."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from plugins.collections.originals import SPOOL_AGE_S, Folder

IDS = ("vs_1", "doc-1")


async def put(folder: Folder, revision: str, content: bytes = b"x") -> None:
    spooled = folder.spool_dir / "upload"
    spooled.write_bytes(content)
    await folder.put(*IDS, revision, spooled)


async def path_of(folder: Folder, collection: str, document: str, revision: str) -> Path | None:
    async with folder.open(collection, document, revision) as path:
        return path


async def test_what_is_put_is_got_and_moved_away_from_the_spool(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await put(folder, "r1", b"the bytes")
    found = await path_of(folder, *IDS, "r1")
    assert found is not None
    assert found.read_bytes() == b"the bytes"
    assert list(folder.spool_dir.iterdir()) == []
    assert await path_of(folder, *IDS, "r2") is None
    assert oct(found.parent.stat().st_mode & 0o777) == "0o700"


async def test_a_copy_outlives_what_it_was_copied_from(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await put(folder, "r1", b"the bytes")
    assert await folder.copy(*IDS, "r1", "r2")
    await folder.keep(*IDS, {"r2"})
    assert await path_of(folder, *IDS, "r1") is None
    found = await path_of(folder, *IDS, "r2")
    assert found is not None
    assert found.read_bytes() == b"the bytes"
    assert not await folder.copy(*IDS, "gone", "r3")


async def test_a_file_system_without_hard_links_copies_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    folder = Folder(tmp_path)
    await put(folder, "r1", b"the bytes")
    assert await folder.copy(*IDS, "r1", "r2")
    await folder.remove(*IDS, "r1")
    found = await path_of(folder, *IDS, "r2")
    assert found is not None
    assert found.read_bytes() == b"the bytes"


@pytest.mark.parametrize("bad", ["..", "a/b", "", "a\x00", "x" * 129])
async def test_a_key_that_is_no_id_is_refused(tmp_path: Path, bad: str) -> None:
    folder = Folder(tmp_path)
    with pytest.raises(ValueError, match="ids"):
        await path_of(folder, "vs_1", bad, "r1")


async def test_only_what_is_old_is_swept(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await put(folder, "r1")
    assert await folder.documents(3600) == []
    path = await path_of(folder, *IDS, "r1")
    assert path is not None
    os.utime(path.parent, (1, 1))
    assert await folder.documents(3600) == [IDS]
    fresh, old = folder.spool_dir / "fresh", folder.spool_dir / "old"
    for spooled in (fresh, old):
        spooled.touch()
    age = old.stat().st_mtime - SPOOL_AGE_S - 1
    os.utime(old, (age, age))
    await folder.sweep_spool()
    assert list(folder.spool_dir.iterdir()) == [fresh]


async def test_dropping_a_collection_takes_all_its_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    await put(folder, "r1")
    await folder.drop("vs_1")
    await folder.drop("vs_1")
    assert await path_of(folder, *IDS, "r1") is None
