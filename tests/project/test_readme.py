"""What README.md, CONTRIBUTING.md and the quickstart show, done against the running sample installation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart, until, variables

README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SHOWN_URL = "http://127.0.0.1:4000"


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Each `$ command` of README.md, with the lines that continue it."""
    return [command for block in blocks("console") for command in re.split(r"^\$ ", block, flags=re.M)[1:]]


def json_after(words: str) -> Any:
    """The JSON that README.md shows below the command with these words."""
    return json.loads(re.findall(r"```json\n(.*?)```", README[README.index(words) :], re.DOTALL)[0])


def run(running: Quickstart, command: str) -> str:
    """A command as a person would paste it into a shell of the folder; its output.

    Only the port is another, and the environment's programs are where these tests run.
    """
    shell = command.replace(SHOWN_URL, running.url).replace(".venv/bin/", "")
    done = subprocess.run(
        ["bash", "-c", shell],
        cwd=running.folder,
        env=variables(running.folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def command_with(*words: str) -> str:
    [found] = [command for command in commands() if all(word in command for word in words)]
    return found


def test_every_command_of_the_readme_is_tested_here() -> None:
    tested = [
        "/v1/chat/completions",
        "/v1/collections/finance/search",
        "/v1/collections/finance/add",
        "crawler crawl",
    ]
    assert [[word in command for word in tested].count(True) for command in commands()] == [1] * len(tested)
    assert len(blocks("python")) == 1


def test_alices_question_is_answered_as_shown(running: Quickstart) -> None:
    answer = json.loads(run(running, command_with("/v1/chat/completions")))
    shown = json_after("/v1/chat/completions")
    assert answer["model"] == shown["model"]
    message, shown_message = answer["choices"][0]["message"], shown["choices"][0]["message"]
    assert answer["choices"][0]["finish_reason"] == shown["choices"][0]["finish_reason"]
    assert message["content"] == shown_message["content"]
    [citation], [shown_citation] = message["annotations"], shown_message["annotations"]
    for key in ("start_index", "end_index", "title"):
        assert citation["url_citation"][key] == shown_citation["url_citation"][key]
    pattern = re.escape(shown_citation["url_citation"]["url"]).replace(r"\.\.\.", "[^/]+")
    assert re.fullmatch(pattern, citation["url_citation"]["url"].replace(running.url, SHOWN_URL))
    assert {"id", "created", "usage"} <= set(answer)
    assert message["provider_specific_fields"]["search_results"]


def test_bob_is_refused_as_shown(running: Quickstart) -> None:
    output = run(running, command_with("/v1/collections/finance/search"))
    assert json.loads(output) == json_after("/v1/collections/finance/search")


def test_the_python_example_prints_the_answer(running: Quickstart) -> None:
    [program] = blocks("python")
    done = subprocess.run(
        [sys.executable, "-c", program.replace(SHOWN_URL, running.url)],
        env=variables(running.folder) | {"DEMO_ALICE_KEY": running.key("alice"), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "60 days to the end of a month" in done.stdout


@pytest.fixture
def reports(running: Quickstart) -> Iterator[None]:
    """The PDFs that the upload commands name; their documents are removed again."""
    alice, finance = running.http("alice"), "/v1/collections/finance/documents"
    before = {d["id"] for d in alice.get(finance).json()["data"]}
    shutil.copy(ROOT / "examples" / "documents" / "annual-report-2025.pdf", running.folder / "report.pdf")
    yield
    (running.folder / "report.pdf").unlink()
    for document in alice.get(finance).json()["data"]:
        if document["id"] not in before:
            alice.delete(f"{finance}/{document['id']}").raise_for_status()


def test_carols_uploads_are_taken_as_shown(running: Quickstart, reports: None) -> None:
    [document] = json.loads(run(running, command_with("/v1/collections/finance/add")))["data"]
    assert (document["filename"], document["attributes"]) == ("report.pdf", {"year": 2025})
    job = f"/v1/jobs/{document['job']['id']}"
    until(lambda: running.http("carol").get(job).json()["status"] == "completed", "the job is done")
    output = run(running, command_with("crawler crawl"))
    assert "[1/1] report.pdf: done" in output


def test_the_yaml_of_the_readme_is_what_the_sample_has() -> None:
    sample = (ROOT / "litellm_config.yaml").read_text(encoding="utf-8")
    shown = next(block for block in blocks("yaml") if "custom_auth" in block)
    for line in shown.splitlines():
        assert line.strip() in sample, line


def test_the_make_targets_that_are_named_exist() -> None:
    offered = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    named = set(re.findall(r"(?:^|`)make ([a-z]+)", README + CONTRIBUTING, re.MULTILINE))
    assert {"run", "demo", "test", "lint", "help"} <= named
    assert named <= set(re.findall(r"^  make ([a-z]+)", offered.stdout, re.MULTILINE))


PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "crawler" / "README.md",
    *ROOT.glob("docs/**/*.md"),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_paths_into_the_repository_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    for target in re.findall(r"`((?:bench|config|docs|examples|plugins|tests)/[\w./-]+)`", text):
        assert (ROOT / target).exists() or "working_days" in target, target


def test_the_tool_that_contributing_shows_counts_and_corrects(running: Quickstart) -> None:
    bob = running.http("bob")
    listed = {t["function"]["name"]: t["function"] for t in bob.get("/v1/tools").json()["data"]}
    tool = listed["working_days"]
    assert tool["description"] == "Count the days from Monday to Friday between two dates, both included."
    assert tool["parameters"]["properties"]["first"]["description"] == "The first day, YYYY-MM-DD"
    call = {"name": "working_days", "arguments": {"first": "2026-06-01", "last": "2026-06-14"}}
    answer = bob.post("/v1/tools", json=call).json()
    assert (answer["content"][0]["text"], answer["structuredContent"]) == (
        "10 working days",
        {"working_days": 10},
    )
    call["arguments"] = {"first": "2026-06-14", "last": "2026-06-01"}
    backwards = bob.post("/v1/tools", json=call).json()
    assert (backwards["isError"], "`last` must not be before" in backwards["content"][0]["text"]) == (
        True,
        True,
    )


def hints(running: Quickstart) -> list[str]:
    """The three requests that the quickstart prints."""
    return re.findall(r"^  (\. \./\.env; curl .*?)(?=\n\n)", running.log, re.DOTALL | re.MULTILINE)


def test_the_requests_that_the_quickstart_prints_work_as_printed(running: Quickstart) -> None:
    collections, plain, streamed = (run(running, hint) for hint in hints(running))
    assert {c["name"] for c in json.loads(collections)["data"]} >= {"handbook", "finance"}
    assert "28 days" in json.loads(plain)["choices"][0]["message"]["content"]
    lines = [line.removeprefix("data: ") for line in streamed.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    deltas = [chunk["choices"][0]["delta"] for chunk in map(json.loads, lines[:-1]) if chunk["choices"]]
    assert "87.6 [1]" in "".join(delta.get("content") or "" for delta in deltas)
