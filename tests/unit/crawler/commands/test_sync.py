"""`crawler sync`: a folder or a list of addresses, against a server on a free port of loopback."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from crawler.cli import main
from tests.support.upload_server import UploadServer

Output = pytest.CaptureFixture[str]


def sync(proxy: UploadServer, source: Path, *options: str) -> int:
    return main(["sync", str(source), "--collection", "c", "--url", proxy.url, *options])


class NotThere(dict[str, Any]):
    """Documents that are listed, and gone when they are to be deleted."""

    def pop(self, key: str, default: Any = None) -> Any:
        return default


def names(proxy: UploadServer) -> list[str]:
    return sorted(document["filename"] for document in proxy.documents.values())


def writes(proxy: UploadServer) -> list[str]:
    return [method for method, _ in proxy.requests if method != "GET"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "notes"
    for name in ("one.md", "two.md", "deep/one.md", "deep/four.md"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.fixture
def synced(proxy: UploadServer, folder: Path, capsys: Output) -> Path:
    assert sync(proxy, folder) == 0
    assert "4 added, 0 changed, 0 deleted, 0 unchanged; 0 failed" in capsys.readouterr().out
    proxy.requests.clear()
    return folder


def test_all_files_come_in_with_ids_that_filters_and_urls_take(proxy: UploadServer, synced: Path) -> None:
    assert names(proxy) == ["four.md", "one.md", "one.md", "two.md"]
    assert all(re.fullmatch(r"sync_[0-9a-f]{16}_[0-9a-f]{40}", key) for key in proxy.documents)


def test_a_second_run_sends_nothing(proxy: UploadServer, synced: Path, capsys: Output) -> None:
    assert sync(proxy, synced) == 0
    assert writes(proxy) == []
    assert "0 added, 0 changed, 0 deleted, 4 unchanged; 0 failed" in capsys.readouterr().out


def test_what_is_new_changed_or_vanished_follows(proxy: UploadServer, synced: Path, capsys: Output) -> None:
    before = dict(proxy.documents)
    (synced / "five.md").write_text("five")
    (synced / "two.md").write_text("another two")
    (synced / "deep" / "four.md").unlink()
    os.utime(synced / "one.md", (1, 1))
    assert sync(proxy, synced) == 0
    assert proxy.uploads[-1] == ["five.md", "two.md"]
    assert names(proxy) == ["five.md", "one.md", "one.md", "two.md"]
    changed = [key for key, document in before.items() if document["filename"] == "two.md"]
    assert proxy.documents[changed[0]]["sha256"] != before[changed[0]]["sha256"]
    assert "1 added, 1 changed, 1 deleted, 2 unchanged; 0 failed" in capsys.readouterr().out


def test_a_dry_run_says_what_it_would_do_and_does_nothing(
    proxy: UploadServer, synced: Path, capsys: Output
) -> None:
    (synced / "five.md").write_text("five")
    (synced / "deep" / "one.md").write_text("new")
    (synced / "two.md").unlink()
    assert sync(proxy, synced, "--dry-run") == 0
    assert writes(proxy) == []
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["would add five.md", "would change deep/one.md"]
    assert lines[2].startswith("would delete two.md (sync_")
    assert lines[3] == "would add 1, change 1, delete 1; 2 unchanged"


def test_what_somebody_else_deleted_meanwhile_is_no_failure(
    proxy: UploadServer, synced: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    (synced / "one.md").unlink()
    monkeypatch.setattr(proxy, "documents", NotThere(proxy.documents))
    assert sync(proxy, synced) == 0
    assert "1 deleted, 3 unchanged; 0 failed" in capsys.readouterr().out


def test_what_others_uploaded_and_other_sources_synced_is_never_touched(
    proxy: UploadServer, synced: Path, tmp_path: Path
) -> None:
    proxy.add("mine.md", b"mine", None, "b")
    proxy.add("inside.md", b"x", f"{next(iter(proxy.documents))}0", "b", parent_id="its mail")
    other = shutil.copytree(synced, tmp_path / "other")
    assert sync(proxy, other) == 0
    assert len(proxy.documents) == 10
    for path in synced.glob("*.md"):
        path.unlink()
    assert sync(proxy, synced) == 0
    assert len(proxy.documents) == 8
    assert {"mine.md", "inside.md"} < set(names(proxy))


def test_a_source_with_a_name_is_the_same_one_wherever_it_is(
    proxy: UploadServer, folder: Path, tmp_path: Path, capsys: Output
) -> None:
    assert sync(proxy, folder, "--name", "notes") == 0
    elsewhere = folder.rename(tmp_path / "checkout-2")
    assert sync(proxy, elsewhere, "--name", "notes") == 0
    assert "4 unchanged" in capsys.readouterr().out
    assert len(proxy.documents) == 4


def test_a_source_that_became_empty_deletes_nothing(
    proxy: UploadServer, synced: Path, capsys: Output
) -> None:
    shutil.rmtree(synced)
    synced.mkdir()
    assert sync(proxy, synced) == 1
    assert "the source is empty, and the collection has 4 documents of it" in capsys.readouterr().err
    assert len(proxy.documents) == 4


def test_a_source_that_is_not_there_deletes_nothing(
    proxy: UploadServer, synced: Path, capsys: Output
) -> None:
    shutil.rmtree(synced)
    assert sync(proxy, synced) == 1
    assert "cannot be read (No such file or directory)" in capsys.readouterr().err
    assert len(proxy.documents) == 4


def test_a_file_that_failed_is_tried_again_and_the_exit_status_says_so(
    proxy: UploadServer, synced: Path, capsys: Output
) -> None:
    (synced / "bad.pdf").write_text("bad")
    for _ in range(2):
        assert sync(proxy, synced) == 1
        output = capsys.readouterr()
        assert "[1/1] bad.pdf: failed: It is encrypted." in output.err
        assert "4 unchanged; 1 failed" in output.out


def test_after_an_interruption_what_is_under_way_is_not_sent_again_but_waited_for(
    proxy: UploadServer, synced: Path, capsys: Output
) -> None:
    for document in proxy.documents.values():
        document["status"] = "in_progress"
    assert sync(proxy, synced) == 0
    assert writes(proxy) == []
    assert "deep/four.md: done, 9 chunks" in capsys.readouterr().out


def test_a_list_of_addresses_is_followed(proxy: UploadServer, tmp_path: Path, capsys: Output) -> None:
    source = tmp_path / "pages.txt"
    source.write_text("# our pages\nhttps://example.com/a\n\n  https://example.com/b  \n")
    assert sync(proxy, source) == 0
    assert names(proxy) == ["https://example.com/a", "https://example.com/b"]
    source.write_text("https://example.com/b\nhttps://example.com/c\n")
    assert sync(proxy, source) == 0
    assert names(proxy) == ["https://example.com/b", "https://example.com/c"]
    assert "1 added, 1 changed, 1 deleted, 0 unchanged; 0 failed" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["ftp://example.com/a", "notes.txt", "https://exam ple.com"])
def test_a_line_that_is_no_address_is_named_before_anything_is_done(
    proxy: UploadServer, tmp_path: Path, capsys: Output, line: str
) -> None:
    source = tmp_path / "pages.txt"
    source.write_text(f"https://example.com/a\n{line}\n")
    assert sync(proxy, source) == 1
    assert "pages.txt:2 is no address" in capsys.readouterr().err
    assert proxy.requests == []


def test_a_document_that_may_not_be_deleted_is_told(
    proxy: UploadServer, synced: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    (synced / "two.md").unlink()
    refusal = {"error": {"message": "This needs the right `manage`."}}
    handler = proxy.RequestHandlerClass
    monkeypatch.setattr(handler, "do_DELETE", lambda request: request.answer(403, refusal))
    assert sync(proxy, synced) == 1
    output = capsys.readouterr()
    assert "This needs the right `manage`. (status 403)" in output.err
    assert "1 failed" in output.out
