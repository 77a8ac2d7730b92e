"""The console command, against a server on a free port of the loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from crawler.cli import main
from tests.unit.crawler.samples import encrypted_pdf, pdf


class Proxy(ThreadingHTTPServer):
    """Answers ``/add`` and ``/v1/jobs``; a file named ``bad...`` fails in its job."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, str, bytes]] = []
        self.asked: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Proxy

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(
            (self.path, self.headers["Authorization"], self.headers["Content-Type"], body)
        )
        if self.headers["Authorization"] != "Bearer sk-test":
            return self.answer(401, {"error": {"message": "The key is unknown.", "type": "t", "code": "c"}})
        job = "bad" if b'filename="bad' in body else "good"
        return self.answer(
            202, {"object": "list", "data": [{"id": "doc", "job": {"id": job, "stage": "queued"}}]}
        )

    def do_GET(self) -> None:
        job = self.path.rpartition("/")[2]
        self.server.asked[job] = self.server.asked.get(job, 0) + 1
        if self.server.asked[job] == 1:
            return self.answer(
                200, {"id": job, "status": "in_progress", "stage": "embed", "done": 3, "total": 9}
            )
        if job == "bad":
            error = {"code": "unreadable_document", "message": "It is encrypted."}
            return self.answer(200, {"id": job, "status": "failed", "stage": "convert", "last_error": error})
        return self.answer(200, {"id": job, "status": "completed", "stage": "done", "done": 9, "total": 9})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("LITELLM_API_KEY", "sk-test")
    monkeypatch.setattr("crawler.cli._POLL_S", 0.01)
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join(timeout=10)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    contents = {"good.pdf": pdf(), "bad.pdf": encrypted_pdf(), "words.txt": b"words"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents}


Output = pytest.CaptureFixture[str]


def test_a_file_is_uploaded_with_the_key_and_its_progress_shown(
    proxy: Proxy, files: dict[str, str], capsys: Output
) -> None:
    assert main(["crawl", files["words.txt"], "--collection", "hand book", "--url", proxy.url]) == 0
    path, key, media_type, body = proxy.requests[0]
    assert (path, key) == ("/v1/collections/hand%20book/add", "Bearer sk-test")
    assert media_type.startswith("multipart/form-data")
    assert b'name="files"; filename="words.txt"' in body
    assert capsys.readouterr().out.splitlines() == [
        "[1/1] words.txt: embed 3/9",
        "[1/1] words.txt: done, 9 chunks",
    ]


def test_one_failed_file_does_not_stop_the_others_but_is_the_exit_status(
    proxy: Proxy, files: dict[str, str], capsys: Output
) -> None:
    given = [files["bad.pdf"], "missing.pdf", files["good.pdf"]]
    assert main(["crawl", *given, "--collection", "c", "--url", proxy.url]) == 1
    output = capsys.readouterr()
    assert "[1/3] bad.pdf: failed: It is encrypted." in output.err
    assert "[2/3] missing.pdf: failed: the file cannot be read (No such file or directory)" in output.err
    assert "2 of 3 failed" in output.err
    assert "[3/3] good.pdf: done, 9 chunks" in output.out


def test_a_refused_key_is_shown_in_the_servers_words(
    proxy: Proxy, files: dict[str, str], capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER", "sk-wrong")
    arguments = ["crawl", files["good.pdf"], "--collection", "c", "--url", proxy.url, "--key-env", "OTHER"]
    assert main(arguments) == 1
    assert "The key is unknown. (status 401)" in capsys.readouterr().err


def test_without_a_key_it_says_which_variable_to_set(
    files: dict[str, str], capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LITELLM_API_KEY", raising=False)
    assert main(["crawl", files["good.pdf"], "--collection", "c"]) == 1
    assert "LITELLM_API_KEY" in capsys.readouterr().err


def test_a_server_that_is_not_there_is_said_to_be_so(
    proxy: Proxy, files: dict[str, str], capsys: Output
) -> None:
    proxy.server_close()
    assert main(["crawl", files["good.pdf"], "--collection", "c", "--url", proxy.url]) == 1
    assert "cannot be reached (ConnectError); check --url" in capsys.readouterr().err


def test_convert_prints_metadata_markdown_and_chunks(files: dict[str, str], capsys: Output) -> None:
    assert main(["convert", files["good.pdf"]]) == 0
    output = capsys.readouterr().out
    assert "title: Annual report" in output
    assert "| North | 10 | 12 |" in output
    assert "--- chunk 0 [0:" in output


def test_convert_prints_json_that_programs_can_read(files: dict[str, str], capsys: Output) -> None:
    assert main(["convert", files["good.pdf"], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["metadata"]["page_count"] == 2
    assert shown["chunks"][0]["page_first"] == 1


def test_convert_of_an_unreadable_file_says_what_to_do(files: dict[str, str], capsys: Output) -> None:
    assert main(["convert", files["bad.pdf"]]) == 1
    assert "Remove the password" in capsys.readouterr().err


def test_convert_follows_a_configuration_and_tells_all_its_mistakes(
    files: dict[str, str], tmp_path: Path, capsys: Output
) -> None:
    config = tmp_path / "pipeline.yaml"
    config.write_text("limits: {max_bytes: 3}\n")
    assert main(["convert", files["words.txt"], "--config", str(config)]) == 1
    assert "larger than 3B" in capsys.readouterr().err
    config.write_text("formats: [{use: pdf, colour: 1}]\nspeed: 2\n")
    assert main(["convert", files["words.txt"], "--config", str(config)]) == 1
    errors = capsys.readouterr().err
    assert "formats[0].colour: unknown setting" in errors
    assert "speed: unknown setting" in errors
