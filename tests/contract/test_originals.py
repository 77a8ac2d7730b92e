"""The contract of the storage of uploaded files, over a folder and a bucket (of a real server where
S3_ENDPOINT_URL is set); what each is beyond that."""

from __future__ import annotations

import os
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from crawler import registry
from crawler.errors import ConfigError
from plugins.collections.originals import SPOOL_AGE_S, Originals, Part
from plugins.collections.originals import s3 as s3_module
from plugins.collections.originals.folder import Folder, FolderSettings
from plugins.collections.originals.s3 import S3
from plugins.core.errors import Upstream
from tests.support.bucket import PREFIX, Endpoint, endpoint

IDS = ("vs_1", "doc-1")


@pytest.fixture(scope="module")
def server() -> Iterator[Endpoint]:
    with endpoint() as running:
        yield running


@pytest.fixture
def bucket(server: Endpoint) -> Iterator[Any]:
    with server.bucket() as made:
        yield made


@pytest.fixture
async def s3(bucket: Any, server: Endpoint, tmp_path: Path) -> AsyncIterator[S3]:
    opened = S3(server.settings(bucket.name), tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(FolderSettings(), tmp_path)


@pytest.fixture(params=["folder", "s3"])
def originals(request: pytest.FixtureRequest) -> Originals[Any]:
    made: Originals[Any] = request.getfixturevalue(request.param)
    return made


async def put(
    originals: Originals[Any],
    revision: str,
    content: bytes = b"x",
    part: Part = "original",
    ids: tuple[str, str] = IDS,
) -> None:
    spooled = originals.spool_dir / uuid.uuid4().hex
    spooled.write_bytes(content)
    await originals.put(*ids, revision, spooled, part)


async def got(
    originals: Originals[Any], revision: str, part: Part = "original", ids: tuple[str, str] = IDS
) -> bytes | None:
    async with originals.open(*ids, revision, part) as path:
        return path.read_bytes() if path is not None else None


def test_every_storage_is_in_this_suite() -> None:
    package = "plugins.collections.originals"
    found = {registry.find(package, Originals, use) for use in registry.available(package)}  # type: ignore[type-abstract]
    assert found == {Folder, S3}


async def test_what_is_put_is_got_and_moved_away_from_the_spool(originals: Originals[Any]) -> None:
    await put(originals, "r1", b"the bytes")
    assert await got(originals, "r1") == b"the bytes"
    assert await got(originals, "r2") is None
    assert list(originals.spool_dir.iterdir()) == []


async def test_the_parts_of_a_revision_are_apart_and_go_together(originals: Originals[Any]) -> None:
    await put(originals, "r1", b"as uploaded")
    await put(originals, "r1", b"as prepared", "prepared")
    assert await got(originals, "r1") == b"as uploaded"
    assert await got(originals, "r1", "prepared") == b"as prepared"
    await originals.remove(*IDS, "r1")
    await originals.remove(*IDS, "r1")
    assert (await got(originals, "r1"), await got(originals, "r1", "prepared")) == (None, None)


async def test_what_is_put_again_replaces_what_was_there(originals: Originals[Any]) -> None:
    await put(originals, "r1", b"a longer text")
    await put(originals, "r1", b"new")
    assert await got(originals, "r1") == b"new"


async def test_an_empty_file_is_a_file(originals: Originals[Any]) -> None:
    await put(originals, "r1", b"")
    assert await got(originals, "r1") == b""


async def test_a_copy_outlives_what_it_was_copied_from(originals: Originals[Any]) -> None:
    await put(originals, "r1", b"the bytes")
    assert await originals.copy(*IDS, "r1", "r2")
    await originals.remove(*IDS, "r1")
    assert await got(originals, "r1") is None
    assert await got(originals, "r2") == b"the bytes"
    assert not await originals.copy(*IDS, "gone", "r3")


async def test_a_revision_goes_with_its_parts_and_no_other_does(originals: Originals[Any]) -> None:
    beside = ("vs_1", "doc-10")
    await put(originals, "r1", ids=beside)
    for revision in ("r1", "r2"):
        await put(originals, revision)
        await put(originals, revision, b"p", "prepared")
    assert await originals.revisions(*IDS) == {"r1", "r2"}
    await originals.remove(*IDS, "r1")
    assert [await got(originals, "r1"), await got(originals, "r1", "prepared")] == [None, None]
    assert [await got(originals, "r2"), await got(originals, "r2", "prepared")] == [b"x", b"p"]
    assert await originals.revisions(*IDS) == {"r2"}
    await originals.remove(*IDS, "r2")
    await originals.remove(*IDS, "r2")
    assert await got(originals, "r2") is None
    assert await originals.revisions(*IDS) == set()
    assert await originals.documents(-60) == [beside]
    assert await got(originals, "r1", ids=beside) == b"x"


async def test_dropping_a_collection_takes_all_its_files_and_no_other(originals: Originals[Any]) -> None:
    await put(originals, "r1")
    await put(originals, "r1", ids=("vs_10", "doc-1"))
    await originals.drop("vs_1")
    await originals.drop("vs_1")
    assert await got(originals, "r1") is None
    assert await got(originals, "r1", ids=("vs_10", "doc-1")) == b"x"


async def test_documents_are_listed_when_they_are_old(originals: Originals[Any]) -> None:
    await put(originals, "r1")
    await put(originals, "r1", b"p", "prepared")
    await put(originals, "r1", ids=("vs_2", "doc-2"))
    assert await originals.documents(3600) == []
    assert sorted(await originals.documents(-60)) == [IDS, ("vs_2", "doc-2")]


@pytest.mark.parametrize("bad", ["..", "a/b", "", "a\x00", "x" * 129])
async def test_a_key_that_is_no_id_is_refused(originals: Originals[Any], bad: str) -> None:
    for ids in (("vs_1", bad, "r1"), (bad, "doc-1", "r1"), ("vs_1", "doc-1", bad)):
        with pytest.raises(ValueError, match="ids"):
            async with originals.open(*ids):
                pass
    with pytest.raises(ValueError, match="ids"):
        await originals.drop(bad)


async def test_only_what_is_old_is_swept_from_the_spool(originals: Originals[Any]) -> None:
    fresh, old = originals.spool_dir / "fresh", originals.spool_dir / "old"
    for spooled in (fresh, old):
        spooled.touch()
    age = old.stat().st_mtime - SPOOL_AGE_S - 1
    os.utime(old, (age, age))
    await originals.sweep_spool()
    assert list(originals.spool_dir.iterdir()) == [fresh]


async def test_a_storage_that_is_there_answers(originals: Originals[Any]) -> None:
    await originals.ping()


async def test_a_folder_is_for_nobody_else(folder: Folder) -> None:
    await put(folder, "r1")
    async with folder.open(*IDS, "r1") as path:
        assert path is not None
        assert oct(path.parent.stat().st_mode & 0o777) == "0o700"


async def test_a_file_system_without_hard_links_copies_too(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "link", refuse)
    await put(folder, "r1", b"the bytes")
    assert await folder.copy(*IDS, "r1", "r2")
    await folder.remove(*IDS, "r1")
    assert await got(folder, "r2") == b"the bytes"


async def test_objects_are_named_by_ids_under_the_prefix(s3: S3, bucket: Any) -> None:
    await put(s3, "r1")
    await put(s3, "r1", part="prepared")
    names = [found.key for found in bucket.objects.all()]
    assert names == [f"{PREFIX}vs_1/doc-1/r1", f"{PREFIX}vs_1/doc-1/r1.prepared"]


async def test_a_large_file_goes_in_parts_and_comes_back_whole(
    s3: S3, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(2 * s3_module.PART_BYTES + 1)
    await put(s3, "r1", content)
    [found] = bucket.objects.all()
    assert found.e_tag.strip('"').endswith("-3"), "it was sent in one request"
    assert await got(s3, "r1") == content


async def test_what_is_fetched_is_removed_when_it_was_read(s3: S3) -> None:
    await put(s3, "r1")

    async def read() -> None:
        async with s3.open(*IDS, "r1") as path:
            assert path is not None
            assert path.is_file()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await read()
    assert list(s3.spool_dir.iterdir()) == []


async def test_a_file_that_is_not_as_it_was_stored_is_not_given_out(s3: S3, bucket: Any) -> None:
    await put(s3, "r1", b"the bytes")
    told = bucket.Object(f"{PREFIX}vs_1/doc-1/r1").metadata
    bucket.put_object(Key=f"{PREFIX}vs_1/doc-1/r1", Body=b"no bytes!", Metadata=told)
    with pytest.raises(Upstream, match="not as it was stored"):
        await got(s3, "r1")


async def test_more_objects_than_fit_a_page_are_all_removed(
    s3: S3, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "AT_ONCE", 2)
    for number in range(5):
        bucket.put_object(Key=f"{PREFIX}vs_1/doc-{number}/r1", Body=b"x")
    assert len(await s3.documents(-60)) == 5
    await s3.drop("vs_1")
    assert list(bucket.objects.all()) == []


async def test_objects_of_others_in_the_bucket_are_left_alone(s3: S3, bucket: Any) -> None:
    for key in ("readme", f"{PREFIX}readme", f"{PREFIX}a/b/c/d", "vs_1/doc-1/r1"):
        bucket.put_object(Key=key, Body=b"x")
    assert await s3.documents(-60) == []
    await s3.drop("vs_1")
    assert len(list(bucket.objects.all())) == 4


async def test_the_parts_of_a_sender_that_died_long_ago_are_swept(
    s3: S3, server: Endpoint, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.Object(f"{PREFIX}vs_1/doc-1/r1").initiate_multipart_upload().Part(1).upload(Body=b"x")
    if server.real:  # the one in this process says that all began in 2010
        await s3.sweep_spool()
        assert len(list(bucket.multipart_uploads.all())) == 1
    monkeypatch.setattr(s3_module, "SPOOL_AGE_S", -60)
    await s3.sweep_spool()
    assert list(bucket.multipart_uploads.all()) == []


async def test_a_bucket_that_is_not_there_or_does_not_answer_is_said_in_our_words(
    server: Endpoint, tmp_path: Path
) -> None:
    missing = server.settings("no-such-bucket")
    dead = server.settings("no-such-bucket", endpoint_url="http://127.0.0.1:9", timeout_s=1)
    for settings in (missing, dead):
        storage = S3(settings, tmp_path)
        with pytest.raises(Upstream) as failed:
            await storage.ping()
        for secret in (settings.bucket, "127.0.0.1", server.secret_access_key):
            assert secret not in failed.value.message
        (storage.spool_dir / "upload").write_bytes(b"x")
        with pytest.raises(Upstream):
            await storage.put(*IDS, "r1", storage.spool_dir / "upload")
        assert (storage.spool_dir / "upload").exists()
        await storage.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "UPPER"},
        {"prefix": "no-slash"},
        {"prefix": "/absolute/"},
        {"endpoint_url": "s3.example.com"},
        {"endpoint_url": "https://key:secret@s3.example.com"},
        {"secret_access_key": None},
        {"key": "unknown"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(server: Endpoint, wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, ConfigError)):
        server.settings(**{"bucket": "bucket", **wrong})
