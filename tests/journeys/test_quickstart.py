"""`make run` on a machine of one's own: its keys and its sample documents."""

from __future__ import annotations

import re
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from dotenv import dotenv_values

from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart, copy, variables

KEYS = ["LITELLM_MASTER_KEY", "DEMO_ALICE_KEY", "DEMO_BOB_KEY", "DEMO_CAROL_KEY"]


def test_the_keys_are_strong_random_and_for_their_owner_only(running: Quickstart) -> None:
    path = running.folder / ".env"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    values = dotenv_values(path)
    keys = [values[name] or "" for name in KEYS]
    assert len(set(keys)) == len(KEYS)
    assert all(key.startswith("sk-") and len(key) >= 40 for key in keys)
    assert not any(key in running.log for key in keys)


def test_the_sample_documents_are_in_two_collections_with_the_rights_of_the_story(
    running: Quickstart,
) -> None:
    for line in ("annual-report-2025.pdf: completed", "travel-policy.docx: completed"):
        assert line in running.log
    rights = {
        person: {
            c["name"]: c["permissions"] for c in running.http(person).get("/v1/collections").json()["data"]
        }
        for person in ("alice", "bob", "carol")
    }
    assert {person: rights[person]["finance"] for person in rights} == {
        "alice": ["discover", "query", "add", "manage"],
        "bob": ["discover"],
        "carol": ["discover", "add"],
    }
    assert all("query" in rights[person]["handbook"] for person in rights)


def test_it_listens_on_loopback_only(running: Quickstart) -> None:
    for address, reached in (("127.0.0.1", True), ("127.0.0.2", False)):
        with socket.socket() as client:
            assert (client.connect_ex((address, running.port)) == 0) is reached


def test_the_page_of_the_api_is_where_the_hints_and_the_readme_say(running: Quickstart) -> None:
    [said] = re.findall(r"\(API: (\S+), admin pages", running.log)
    assert f"All routes with examples: `{said}`" in (ROOT / "README.md").read_text(encoding="utf-8")
    page = running.http("bob").get(said)
    assert (page.status_code, "swagger" in page.text.lower()) == (200, True)


def test_a_port_that_is_taken_is_told_and_nothing_is_sent_to_who_has_it(tmp_path: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "examples/quickstart.py", "--port", str(port)],
            cwd=copy(tmp_path),
            env=variables(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert ended.returncode == 1
    assert f"Port {port} is not free; take another: make run PORT={port + 1}" in ended.stderr
