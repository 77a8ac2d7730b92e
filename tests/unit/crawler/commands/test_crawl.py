"""`crawler crawl`, against a server on a free port of loopback."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from crawler.cli import main
from tests.support.upload_server import UploadServer

Output = pytest.CaptureFixture[str]


def crawl(proxy: UploadServer, *arguments: object) -> int:
    return main(["crawl", *map(str, arguments), "--collection", "hand book", "--url", proxy.url])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("words.txt", "bad.pdf", "a/b/deep.md", "a/.hidden/x.txt", ".hidden.txt", "huge.bin"):
        path = tmp_path / "files" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "files" / "link.txt").symlink_to(tmp_path / "files" / "words.txt")
    return tmp_path / "files"


def test_a_file_is_uploaded_with_the_key_and_its_progress_shown(
    proxy: UploadServer, folder: Path, capsys: Output
) -> None:
    assert crawl(proxy, folder / "words.txt") == 0
    assert proxy.requests[0] == ("POST", "/v1/collections/hand%20book/add")
    assert [document["filename"] for document in proxy.documents.values()] == ["words.txt"]
    assert capsys.readouterr().out.splitlines() == [
        "[1/1] words.txt: embed 3/9",
        "[1/1] words.txt: done, 9 chunks",
    ]


def test_many_files_go_in_few_requests(proxy: UploadServer, tmp_path: Path, capsys: Output) -> None:
    for number in range(120):
        (tmp_path / f"{number:03}.txt").write_text(str(number))
    assert crawl(proxy, tmp_path) == 0
    assert [len(names) for names in proxy.uploads] == [50, 50, 20]
    done = capsys.readouterr().out
    assert all(f"[{number + 1}/120] {number:03}.txt: done, 9 chunks" in done for number in range(120))


def test_large_files_do_not_go_together(
    proxy: UploadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crawler.commands.uploads.BATCH_BYTES", 10)
    for name, size in (("a", 6), ("b", 4), ("c", 1), ("d", 30), ("e", 1)):
        (tmp_path / f"{name}.txt").write_text("x" * size)
    assert crawl(proxy, tmp_path) == 0
    assert proxy.uploads == [["a.txt", "b.txt"], ["c.txt"], ["d.txt"], ["e.txt"]]


def test_a_folder_is_uploaded_with_its_folders_but_not_what_is_hidden_or_a_link(
    proxy: UploadServer, folder: Path
) -> None:
    (folder / "huge.bin").unlink()
    assert crawl(proxy, folder) == 1
    assert sorted(name for names in proxy.uploads for name in names) == ["bad.pdf", "deep.md", "words.txt"]


def test_one_failed_file_does_not_stop_the_others_but_is_the_exit_status(
    proxy: UploadServer, folder: Path, capsys: Output
) -> None:
    files = [folder / "bad.pdf", folder / "missing.pdf", folder / "words.txt", folder / "huge.bin"]
    assert crawl(proxy, *files) == 1
    output = capsys.readouterr()
    assert "[1/4] bad.pdf: failed: It is encrypted." in output.err
    assert "[2/4] missing.pdf: failed: the file cannot be read (No such file or directory)" in output.err
    assert "[4/4] huge.bin: failed: The file is too large. (status 413)" in output.err
    assert output.err.count("failed:") == 3
    assert "3 of 4 failed" in output.err
    assert "[3/4] words.txt: done, 9 chunks" in output.out


def test_what_is_inside_of_a_file_is_waited_for_as_well(
    proxy: UploadServer, tmp_path: Path, capsys: Output
) -> None:
    (tmp_path / "mail.zip").write_text("mail")
    assert crawl(proxy, tmp_path / "mail.zip") == 0
    assert "attached.txt (inside): done, 9 chunks" in capsys.readouterr().out


def test_content_that_is_there_already_is_done_at_once_and_others_uploads_are_not_waited_for(
    proxy: UploadServer, folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = proxy.add("theirs.txt", b"theirs", "theirs", "batch_theirs")
    mine = proxy.add("words.txt", b"words.txt", "mine", "batch_theirs")
    monkeypatch.setattr(proxy, "add", lambda *_: mine)
    assert crawl(proxy, folder / "words.txt") == 0
    assert theirs["filename"] not in capsys.readouterr().out
    assert crawl(proxy, folder / "words.txt") == 0
    assert capsys.readouterr().out.splitlines() == ["[1/1] words.txt: done, 9 chunks"]


def test_a_document_that_is_deleted_meanwhile_has_failed(
    proxy: UploadServer, folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proxy, "jobs", lambda batch: [])
    assert crawl(proxy, folder / "words.txt") == 1
    assert "words.txt: failed: it was deleted meanwhile" in capsys.readouterr().err


def test_when_nothing_moves_for_long_it_gives_up_and_says_so(
    proxy: UploadServer, folder: Path, capsys: Output
) -> None:
    proxy.never_ends = True
    assert crawl(proxy, folder / "words.txt", "--timeout", "0.05") == 1
    assert "nothing moved for 0.05 s; it goes on being processed" in capsys.readouterr().err


def test_a_server_that_asks_for_a_pause_gets_it(proxy: UploadServer, folder: Path) -> None:
    proxy.pauses = 3
    assert crawl(proxy, folder / "words.txt") == 0
    [document] = proxy.documents.values()
    assert document["sha256"] == hashlib.sha256(b"words.txt").hexdigest()


def test_a_server_that_never_stops_asking_for_one_is_believed(
    proxy: UploadServer, folder: Path, capsys: Output
) -> None:
    proxy.pauses = 100
    assert crawl(proxy, folder / "words.txt") == 1
    assert "Too many requests. (status 429)" in capsys.readouterr().err


def test_a_refused_key_is_shown_in_the_servers_words(
    proxy: UploadServer, folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "sk-wrong")
    assert crawl(proxy, folder / "words.txt", folder / "bad.pdf", "--key-env", "OTHER") == 1
    assert "The key is unknown. (status 401)" in capsys.readouterr().err
    assert len(proxy.requests) == 1


def test_without_a_key_it_says_which_variable_to_set(
    proxy: UploadServer, folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LITELLM_API_KEY")
    assert crawl(proxy, folder / "words.txt") == 1
    assert "LITELLM_API_KEY" in capsys.readouterr().err


def test_an_empty_folder_is_said_to_be_so(proxy: UploadServer, tmp_path: Path, capsys: Output) -> None:
    assert crawl(proxy, tmp_path) == 1
    assert "There is no file to upload." in capsys.readouterr().err


def test_a_server_that_is_not_there_is_said_to_be_so(
    proxy: UploadServer, folder: Path, capsys: Output
) -> None:
    proxy.server_close()
    assert crawl(proxy, folder / "words.txt") == 1
    assert "cannot be reached (ConnectError); check --url" in capsys.readouterr().err


def test_a_name_that_is_no_text_is_sent_as_one(proxy: UploadServer, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"r\xe9sum\xe9.txt")).write_text("Latin 1")
    assert crawl(proxy, tmp_path) == 0
    assert proxy.uploads == [["r\ufffdsum\ufffd.txt"]]
