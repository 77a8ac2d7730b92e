"""Which settings of the storage cannot be, told before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.bundle.check import check_config
from plugins.bundle.doctor.findings import Notes, Redact
from plugins.bundle.doctor.storage import examine_originals
from plugins.collections.originals.folder import Folder
from plugins.collections.originals.s3 import S3
from plugins.collections.storage import check_store, open_originals
from plugins.core.config import Config, StorageConfig
from plugins.core.errors import ConfigError
from plugins.core.plugin import Plugin
from tests.support.bucket import endpoint
from tests.support.collections import a_config

ADOPT = {"names": "old_*", "embedding_model": "m", "fields": {"text": "body", "vector": "embedding"}}


def configured(folder: Path, uri: str | None, **collections: Any) -> Config:
    store = Plugin.model_validate({"use": "milvus", **({"uri": uri} if uri else {})})
    storage = StorageConfig(data_dir=folder / "data", store=store)
    return a_config(folder, **collections).model_copy(update={"storage": storage})


def test_the_embedded_store_has_neither_users_nor_collections_of_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        check_store(configured(tmp_path, None, rights="milvus", adopt=[ADOPT, ADOPT]))
    places = [line.partition(":")[0] for line in refused.value.mistakes]
    assert places == ["collections.rights", "collections.adopt[0]", "collections.adopt[1]"]
    assert all("storage.store.uri" in line for line in refused.value.mistakes)


def test_a_server_has_both_and_the_embedded_store_all_else(tmp_path: Path) -> None:
    check_store(configured(tmp_path, "http://127.0.0.1:9", rights="milvus", adopt=[ADOPT]))
    check_store(configured(tmp_path, None))


def stored(folder: Path, **originals: Any) -> StorageConfig:
    return StorageConfig(data_dir=folder / "data", originals=Plugin.model_validate(originals))


def test_files_are_kept_in_a_folder_unless_told_otherwise(tmp_path: Path) -> None:
    assert isinstance(open_originals(StorageConfig(data_dir=tmp_path)), Folder)
    assert isinstance(open_originals(stored(tmp_path, use="s3", bucket="files")), S3)


@pytest.mark.parametrize(
    ("originals", "place"),
    [
        ({"use": "tape"}, "storage.originals.use"),
        ({"use": "folder", "path": "x"}, "storage.originals.path"),
        ({"use": "s3"}, "storage.originals.bucket"),
        ({"use": "s3", "bucket": "files", "prefix": "x"}, "storage.originals.prefix"),
        ({"use": "s3", "bucket": "files", "access_key_id": "x"}, "storage.originals"),
        ({"use": "s3", "bucket": "files", "secret_access_key": "os.environ/NO_SUCH"}, "storage.originals"),
    ],
    ids=str,
)
def test_a_storage_of_files_that_cannot_be_is_told_at_start(
    tmp_path: Path, originals: dict[str, Any], place: str
) -> None:
    config = a_config(tmp_path).model_copy(update={"storage": stored(tmp_path, **originals)})
    lines = check_config(config, {"identity", "chat", "tools"})
    assert [line for line in lines if place in line], lines
    assert not (tmp_path / "data").exists()


async def test_the_doctor_says_what_of_a_bucket_is_wrong_and_no_secret(tmp_path: Path) -> None:
    with endpoint() as server, server.bucket() as bucket:
        given = server.settings(bucket.name).model_dump() | {"secret_access_key": server.secret_access_key}
        for changed, levels in (({}, ["ok"]), ({"bucket": "no-such-bucket"}, ["fail"])):
            notes = Notes("uploaded files", Redact())
            await examine_originals(notes, stored(tmp_path, **{"use": "s3", **given, **changed}))
            assert [finding.level for finding in notes.findings] == levels
            assert server.secret_access_key not in str(notes.findings)
    assert not (tmp_path / "data").exists()
