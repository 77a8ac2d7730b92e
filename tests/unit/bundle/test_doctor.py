"""How findings read, that they hold nothing secret, and what is said of database and directories."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from crawler.conversion import Confinement
from plugins.bundle.doctor.findings import Finding, Level, Redact, attempt, secrets_in, summary, written
from plugins.bundle.doctor.storage import examine_conversion, examine_data_dir, examine_database
from plugins.bundle.doctor.store import runs
from plugins.collections.database import database_url, migrate
from plugins.core.config import StorageConfig
from tests.support.doctor import found, said

LIMIT_S = 20.0


def test_secrets_are_taken_out_wherever_they_come_from() -> None:
    redact = Redact()
    settings = {
        "api_key": "plain-provider-key",
        "nested": [{"password": "open-sesame-1"}],
        "uri": "redis://user:redis-secret@host:1",
        "secret": SecretStr("wrapped-secret"),
        "name": "harmless-value",
    }
    redact.add(secrets_in(settings))
    text = "plain-provider-key open-sesame-1 redis-secret wrapped-secret harmless-value"
    assert redact(text) == "*** *** *** *** harmless-value"
    assert redact("sk-abcdefghij eyJhb.eyJpc.c2ln") == "*** ***"
    assert redact("at postgresql://u:p@ss@db/x\nnext") == "at postgresql://***@db/x next"


async def test_a_part_that_breaks_or_hangs_is_a_finding_without_its_text() -> None:
    async def breaks(notes: object) -> None:
        raise RuntimeError("the password is open-sesame")

    async def hangs(notes: object) -> None:
        await asyncio.Event().wait()

    [broken] = await attempt("part", breaks, Redact(), LIMIT_S)
    [hung] = await attempt("part", hangs, Redact(), 0.01)
    assert (broken.level, broken.found) == ("fail", "could not be examined: RuntimeError")
    assert (hung.level, hung.found) == ("fail", "gave no answer within 0 s")


def test_lines_are_aligned_and_counted() -> None:
    findings = [Finding("ok", "a", "fine"), Finding("fail", "longer", "broken", "Mend it.")]
    assert list(written(findings, 8)) == ["ok    a         fine", "fail  longer    broken  -> Mend it."]
    assert summary(findings) == "1 ok, 0 to look at, 1 failed"


async def of_database(storage: StorageConfig) -> tuple[list[Finding], list[Mapping[str, Any]]]:
    rows: list[Mapping[str, Any]] = []
    return await found(lambda notes: examine_database(notes, storage, rows)), rows


@pytest.mark.parametrize(
    ("statement", "level", "line"),
    [
        ("UPDATE alembic_version SET version_num = '9999'", "fail", "a newer version made them"),
        ("UPDATE alembic_version SET version_num = '0001'", "warn", "its tables are of revision 0001"),
        ("DROP TABLE alembic_version", "warn", "it has no tables of ours yet"),
    ],
)
async def test_the_databases_revision_is_compared_and_nothing_is_migrated(
    tmp_path: Path, statement: str, level: str, line: str
) -> None:
    storage = StorageConfig(data_dir=tmp_path)
    await asyncio.to_thread(migrate, database_url(storage))
    with sqlite3.connect(tmp_path / "collections.db") as connection:
        connection.execute(statement)
    connection.close()
    before = contents(tmp_path)
    findings, rows = await of_database(storage)
    assert line in said(findings, level)
    assert rows == []
    assert contents(tmp_path) == before


async def test_a_file_that_is_no_database_fails_and_a_server_that_is_down_names_no_password(
    tmp_path: Path,
) -> None:
    (tmp_path / "collections.db").write_bytes(b"not a database at all" * 100)
    findings, _ = await of_database(StorageConfig(data_dir=tmp_path))
    assert "cannot be read" in said(findings, "fail") or "damaged" in said(findings, "fail")
    url = SecretStr("postgresql://owner:open-sesame@127.0.0.1:1/collections")
    findings, _ = await of_database(StorageConfig(data_dir=tmp_path, database=url))
    assert "postgresql at 127.0.0.1/collections cannot be read: the connection is refused" in said(
        findings, "fail"
    )
    assert "open-sesame" not in str(findings)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def of_data_dir(path: Path) -> list[Finding]:
    async def examine(notes: Any) -> None:
        await asyncio.to_thread(examine_data_dir, notes, path)

    return await found(examine)


async def test_a_data_directory_that_others_can_enter_is_something_to_look_at(tmp_path: Path) -> None:
    open_to_all = tmp_path / "data"
    open_to_all.mkdir()
    open_to_all.chmod(0o755)
    assert "has mode 755: others can enter it -> Run `chmod 700" in said(
        await of_data_dir(open_to_all), "warn"
    )
    assert "GiB are free" in said(await of_data_dir(open_to_all), "ok")


async def test_an_embedded_store_that_would_not_start_is_a_failure_and_is_left_alone(tmp_path: Path) -> None:
    directory = tmp_path / "store"

    async def examine(notes: Any) -> None:
        assert await asyncio.to_thread(runs, notes, directory) is False

    assert "was never started here" in said(await found(examine), "warn")
    assert not directory.exists()
    directory.mkdir()
    directory.chmod(0o755)
    assert "has mode 755" in said(await found(examine), "fail")
    directory.chmod(0o700)
    assert "is not running" in said(await found(examine), "warn")
    assert list(directory.iterdir()) == []


@pytest.mark.parametrize(
    ("confinement", "level"),
    [
        (Confinement(seccomp=True, landlock=7), "ok"),
        (Confinement(seccomp=True, landlock=0), "warn"),
        (Confinement(seccomp=False, landlock=4), "warn"),
        (Confinement(seccomp=False, landlock=0), "warn"),
    ],
)
async def test_what_confines_conversions_is_told(confinement: Confinement, level: Level) -> None:
    async def examine(notes: Any) -> None:
        examine_conversion(notes, confinement)

    findings = await found(examine)
    assert str(confinement) in said(findings, level)
