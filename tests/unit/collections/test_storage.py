"""Which settings need a Milvus server, told before anything is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.collections.storage import check_store
from plugins.core.config import Config, StorageConfig
from plugins.core.errors import ConfigError
from plugins.core.plugin import Plugin
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
