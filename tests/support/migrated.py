"""A database with this version's tables, for each test that wants one."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from plugins.collections.database import SQLITE_FILE, database_url, migrate
from plugins.core.config import StorageConfig


@cache
def template() -> Path:
    """An empty database, migrated once in this process."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    migrate(database_url(StorageConfig(data_dir=folder)))
    return folder / SQLITE_FILE


def migrated(storage: StorageConfig) -> str:
    """The URL of the database of these settings, with the tables in it. A copy in a folder takes a
    hundredth of the time of a migration."""
    url = database_url(storage)
    if storage.database is None:
        storage.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(template(), storage.data_dir / SQLITE_FILE)
    else:
        migrate(url)
    return url
