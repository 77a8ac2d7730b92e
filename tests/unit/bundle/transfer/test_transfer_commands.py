"""`crawler export` and `crawler import` as an operator runs them: on the configuration folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from crawler.cli import main
from crawler.stores import LiteSupervisor
from crawler.stores.milvus import Milvus, MilvusSettings
from plugins.collections.storage import STORE_FOLDER
from tests.support.collections import World, a_config, make_tables

Output = pytest.CaptureFixture[str]


async def fill(folder: Path) -> None:
    """An installation in this folder with one collection of one document."""
    store = Milvus(MilvusSettings(uri=str(folder / "data" / STORE_FOLDER)))
    config = a_config(folder)
    await make_tables(config)
    world = World(config, store)
    made = await world.collection("handbook", query=["user:kc/bob"])
    await world.add(made.id, "The notice period is thirty days.")
    await world.work()
    await world.database.close()
    await store.close()


def configure(folder: Path, sources: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "config").mkdir()
    content = {
        "identity": {"sources": [{"use": "oidc", "name": name, "issuer": "https://x"} for name in sources]},
        "storage": {"data_dir": str(folder / "data")},
    }
    (folder / "config" / "all.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("COLLECTIONS_CONFIG", str(folder / "config"))
    monkeypatch.chdir(folder)


@pytest.fixture
def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An installation whose store runs, as it does while the proxy does."""
    folder = tmp_path / "here"
    configure(make(folder), ["kc"], monkeypatch)
    supervisor = LiteSupervisor(folder / "data" / STORE_FOLDER)
    try:
        supervisor.start()
        asyncio.run(fill(folder))
        yield folder
    finally:
        supervisor.stop()


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_a_collection_moves_to_an_installation_that_was_never_started(
    running: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    assert main(["export", "handbook", str(tmp_path / "out")]) == 0
    assert "1 documents, 1 passages, " in capsys.readouterr().out
    configure(make(tmp_path / "there"), ["other"], monkeypatch)
    assert main(["import", str(tmp_path / "out"), "--collection", "moved"]) == 0
    output = capsys.readouterr().out
    assert "Imported `moved` as vs_" in output
    assert "read back and equal." in output
    assert "searches need the embedding model `local/words`" in output
    assert "it grants rights to people of kc, which is no identity source here" in output
    assert main(["export", "moved", str(tmp_path / "again")]) == 0


def test_what_cannot_be_is_said_in_one_line_and_is_the_exit_status(
    running: Path, tmp_path: Path, capsys: Output
) -> None:
    assert main(["export", "nothing", str(tmp_path / "out")]) == 1
    assert capsys.readouterr().err == "failed: there is no such collection\n"
    assert main(["import", str(tmp_path / "nowhere")]) == 1
    assert "is no complete export" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["export", "handbook", str(tmp_path / "file" / "out")]) == 1
    assert "Not a directory" in capsys.readouterr().err
    assert main(["export", "handbook", str(tmp_path / "out")]) == 0
    assert main(["import", str(tmp_path / "out")]) == 1
    assert "already a collection `handbook`; give another name with --collection" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "out"), "--collection", "vs_x"]) == 1
    assert "may not begin like an id" in capsys.readouterr().err
