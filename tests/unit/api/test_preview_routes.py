"""`/v1/pipelines` and `/v1/collections/{id}/preview`: the child is a real process."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from plugins.collections import preview
from plugins.core.preview_task import Task
from tests.support.api_server import Server

PATH = "/v1/collections/handbook/preview"
LIMIT_S = 30.0
FORM = {"type": "object", "properties": {"kind": {"type": "string"}}}


def child(server: Server, code: str) -> None:
    """Have previews made by this program."""
    server.preview_command[:] = [sys.executable, "-c", code]


async def until(path: Path) -> str:
    async with asyncio.timeout(LIMIT_S):
        while not path.exists() or not path.read_text():  # noqa: ASYNC110, ASYNC240 - another process writes
            await asyncio.sleep(0.01)
    return path.read_text()  # noqa: ASYNC240


async def gone(pid: int) -> None:
    async with asyncio.timeout(LIMIT_S):
        while Path(f"/proc/{pid}").exists():  # noqa: ASYNC110, ASYNC240 - another process ends
            await asyncio.sleep(0.01)


async def test_a_markdown_document_is_shown_with_its_title_and_where_it_is_cut(server: Server) -> None:
    await server.collection()
    markdown = "# Leave\n\n" + "Everyone has 30 days of leave. " * 20 + "\n\n## Notice\n\nNinety days."
    answer = await server.as_alice.post(PATH, json={"markdown": markdown, "filename": "leave.md"})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["object"], found["filename"], found["markdown"]) == ("preview", "leave.md", markdown)
    assert found["metadata"]["title"] == "Leave"
    assert (found["warnings"], found["pages"], found["attachments"]) == ([], None, [])
    assert len(found["chunks"]) > 2, "the pipeline of the configuration in force cuts small"
    assert found["chunks"][0]["start"] == 0
    assert found["chunks"][-1]["headings"] == ["Leave", "Notice"]
    assert markdown[found["chunks"][-1]["start"] : found["chunks"][-1]["end"]].endswith("Ninety days.")
    documents = await server.as_alice.get("/v1/collections/handbook/documents")
    assert documents.json()["data"] == []
    assert server.spooled() == []


async def test_a_file_is_converted_and_nothing_of_it_is_left(server: Server) -> None:
    await server.collection()
    html = b"<html><head><title>Rules</title></head><body><h1>Rules</h1><p>Be kind.</p></body></html>"
    answer = await server.as_alice.post(PATH, files={"file": ("rules.html", html, "text/html")})
    assert answer.status_code == 200, answer.text
    assert "Be kind." in answer.json()["markdown"]
    assert answer.json()["metadata"]["title"] == "Rules"
    assert server.spooled() == []


async def test_the_answer_is_taken_by_add_as_it_is(server: Server) -> None:
    await server.collection()
    body: dict[str, Any] = {"markdown": "# Invoice\n\n7 euros", "metadata": {"title": "Mine", "amount": 7}}
    found = (await server.as_alice.post(PATH, json=body)).json()
    assert found["metadata"] == {"title": "Mine", "amount": 7}
    edited = {"markdown": found["markdown"], "metadata": found["metadata"], "filename": found["filename"]}
    added = await server.as_alice.post("/v1/collections/handbook/add", json={"documents": [edited]})
    assert added.status_code == 202, added.text
    assert added.json()["data"][0]["attributes"] == {"amount": 7}


async def test_what_cannot_be_converted_is_refused_in_the_words_of_its_job(server: Server) -> None:
    await server.collection()
    answer = await server.as_alice.post(PATH, files={"file": ("a.pdf", b"%PDF-1.7 broken")})
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "unreadable_document"
    assert server.spooled() == []


@pytest.mark.parametrize(
    ("options", "status", "param"),
    [
        ({"files": {"files": ("a.txt", b"x")}}, 400, "file"),
        ({"files": [("file", ("a.txt", b"x")), ("file", ("b.txt", b"x"))]}, 413, "file"),
        ({"files": {"file": ("a.txt", b"x")}, "data": {"metadata": "{}"}}, 400, "metadata"),
        ({"files": {"file": ("a.txt", b"")}}, 400, "file"),
        ({"files": {"file": ("a.exe", b"MZ")}}, 415, "file"),
        ({"files": {"file": ("a.txt", b"x" * 200_001)}}, 413, "file"),
        ({"json": {"markdown": "a", "text": "b"}}, 400, None),
        ({"json": {"markdown": " "}}, 400, "markdown"),
        ({"json": {"url": "file:///etc/passwd"}}, 400, "url"),
        ({"json": {"text": "a", "metadata": {"k": [1]}}}, 400, "metadata.k"),
        ({"json": {"markdown": "a", "metadata": {"page": 1}}}, 400, "metadata"),
        ({"json": {"documents": []}}, 400, "documents"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 400, None),
    ],
)
async def test_what_is_no_one_document_is_refused_with_the_field(
    server: Server, options: dict[str, Any], status: int, param: str | None
) -> None:
    await server.collection()
    child(server, "raise SystemExit('there was nothing to preview')")
    answer = await server.as_alice.post(PATH, **options)
    assert answer.status_code == status, answer.text
    given = answer.json()["error"]["param"]
    assert given == param or (param == "metadata.k" and given.startswith(param))
    assert server.spooled() == []


async def test_a_child_that_dies_or_babbles_is_a_502_without_its_words(server: Server) -> None:
    await server.collection()
    for code in (
        "import sys; sys.exit(3)",
        "print('{\"secret\": 1}')",
        "print('{}')",
        "import os; os.kill(os.getpid(), 9)",
    ):
        child(server, code)
        answer = await server.as_alice.post(PATH, json={"markdown": "a"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_error"), answer.text
        assert "secret" not in answer.text


async def test_a_refusal_of_the_child_is_ours_in_status_and_code(server: Server) -> None:
    await server.collection()
    for code, status in [
        ("model_failed", 503),
        ("not_configured", 503),
        ("document_too_large", 413),
        ("internal_error", 500),
    ]:
        refusal = json.dumps({"error": {"code": code, "message": "Do this next."}})
        child(server, f"print({refusal!r})")
        answer = await server.as_alice.post(PATH, json={"markdown": "a"})
        assert answer.status_code == status
        assert code == "internal_error" or answer.json()["error"]["message"] == "Do this next."


async def test_the_child_is_told_everything_on_standard_input_and_nothing_in_its_arguments(
    server: Server, tmp_path: Path
) -> None:
    collection = await server.collection()
    told = tmp_path / "told"
    child(server, f"import sys; open({str(told)!r}, 'w').write(sys.stdin.readline())")
    await server.as_alice.post(f"/v1/collections/{collection}/preview", json={"text": "words"})
    task = json.loads(told.read_text())
    assert (task["pipeline"], task["user"], task["filename"]) == ("default", "local/alice", "document.txt")
    assert task["path"].startswith(str(server.spool_dir))
    assert task["markdown"] is None


async def test_when_the_client_leaves_the_child_is_ended(server: Server, tmp_path: Path) -> None:
    await server.collection()
    pid = tmp_path / "pid"
    child(server, f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(1000)")
    asking = asyncio.create_task(server.as_alice.post(PATH, json={"text": "a"}))
    started = int(await until(pid))
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await gone(started)
    assert server.spooled() == []


async def test_a_child_whose_standard_input_closes_gives_up_whatever_it_waits_for(
    server: Server, tmp_path: Path
) -> None:
    os.mkfifo(endless := tmp_path / "endless")
    running = await asyncio.create_subprocess_exec(
        *server.preview_command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert running.stdin is not None
    task = Task(
        pipeline="default",
        settings={},
        proxy_url=None,
        api_key=None,
        embedding_model="local/minilm",
        dimension=384,
        user="local/alice",
        filename="a.html",
        media_type=None,
        path=endless,
        url=None,
        markdown=None,
        metadata=None,
        max_bytes=1,
    )
    running.stdin.write(task.model_dump_json().encode() + b"\n")
    running.stdin.close()
    output, _ = await asyncio.wait_for(running.communicate(), LIMIT_S)
    assert output == b""
    assert running.returncode == 1


async def test_a_preview_leaves_no_figures(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "figures").mkdir()
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path / "figures"))
    await server.collection()
    answer = await server.as_alice.post(PATH, json={"markdown": "words"})
    assert answer.status_code == 200, answer.text
    assert list((tmp_path / "figures").iterdir()) == []


async def test_only_a_few_previews_are_made_at_once_and_only_a_few_wait(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preview, "WAITING", 1)
    await server.collection(add=["*"])
    begun, go = tmp_path / "begun", tmp_path / "go"
    begun.mkdir()
    child(
        server,
        f"import os, pathlib, time\n(pathlib.Path({str(begun)!r}) / str(os.getpid())).touch()\n"
        f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\n"
        'print(\'{"error": {"code": "unreadable_document", "message": "x"}}\')',
    )

    def ask(user: str) -> asyncio.Task[httpx.Response]:
        return asyncio.create_task(server.client(user).post(PATH, json={"text": "a"}))

    at_work = [ask("bob"), ask("carol")]
    async with asyncio.timeout(LIMIT_S):
        while len(os.listdir(begun)) < 2:  # noqa: ASYNC110 - other processes write
            await asyncio.sleep(0.01)
    again = await ask("bob")
    assert again.status_code == 429
    assert "of yours" in again.json()["error"]["message"]
    third, fourth = ask("dave"), ask("eve")
    done, _ = await asyncio.wait({third, fourth}, return_when=asyncio.FIRST_COMPLETED, timeout=LIMIT_S)
    [refused] = [task.result() for task in done]
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert len(os.listdir(begun)) == 2
    go.touch()
    answers: list[httpx.Response] = [await task for task in (*at_work, *({third, fourth} - done))]
    assert [answer.status_code for answer in answers] == [400, 400, 400]
    assert (await ask("bob")).status_code == 400


async def test_a_preview_that_takes_too_long_is_ended_and_says_what_to_do(
    server: Server, tmp_path: Path
) -> None:
    await server.collection()
    pid = tmp_path / "pid"
    child(server, f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(1000)")
    server.previewer.timeout_s = 2.0
    answer = await server.as_alice.post(PATH, json={"text": "a"})
    assert answer.status_code == 504
    assert "Add the document without one" in answer.json()["error"]["message"]
    if pid.exists():
        await gone(int(pid.read_text()))


async def test_to_preview_needs_the_right_to_add(server: Server) -> None:
    await server.collection(query=["user:bob"], add=["user:carol"])
    body = {"markdown": "# A"}
    assert (await server.client("bob").post(PATH, json=body)).status_code == 403
    assert (await server.client("dave").post(PATH, json=body)).status_code == 404
    assert (await server.client("carol").post(PATH, json=body)).status_code == 200


async def test_pipelines_are_listed_with_what_they_take_and_look_for(server: Server) -> None:
    answer = await server.client("bob").get("/v1/pipelines")
    assert answer.status_code == 200
    [pipeline] = answer.json()["data"]
    assert (pipeline["id"], pipeline["object"]) == ("default", "pipeline")
    assert {"pdf", "docx", "text"} <= set(pipeline["formats"])
    assert (pipeline["chunker"], pipeline["extractor"]) == ("headings", "rules")
    assert pipeline["metadata_schema"] is None
    assert pipeline["limits"]["max_pages"] == 5_000
    assert "chunker" in pipeline["schema"]["properties"]
