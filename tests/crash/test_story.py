"""Somebody drops three hundred files and goes away, while everything is killed now and then."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.crash.library import File, library
from tests.crash.test_crash import SEED, Installation
from tests.support.quickstart import copy, until

STORY_KILLS = int(os.environ.get("STORY_KILLS", "6"))
COLLECTION = "library"
FILES_PER_REQUEST = 80
ENDS_S = 1500.0


@pytest.fixture
def installation(tmp_path: Path) -> Iterator[Installation]:
    with ExitStack() as stack:
        yield Installation(copy(tmp_path), None, stack)


def test_all_that_can_be_read_is_found_and_each_failure_says_why(installation: Installation) -> None:
    chance = random.Random(SEED)  # noqa: S311 - not a secret
    files = library()
    access = {"add": ["user:local/bob"], "query": ["user:local/bob"]}
    create(installation.running.http("alice"), access)
    began = time.monotonic()
    documents = drop(installation.running.http("alice"), files)
    bobs = drop(installation.running.http("bob"), [File("bob.md", b"# Bob\n\nA note of bob's.", "bob")])
    until(lambda: ended(installation, "bob", bobs), "bob's one note is done", 120)
    waiting = sum(d["status"] == "in_progress" for d in listed(installation))
    assert waiting > len(files) // 4, "it did not wait for all of alice's"
    for _ in range(STORY_KILLS):
        time.sleep(chance.uniform(1, 6))  # the random moment itself, not a wait for anything
        victims = installation.victims()
        victims[chance.choice(sorted(victims))]()
    until(lambda: ended(installation, "alice", documents), f"all jobs have ended (seed {SEED})", ENDS_S)
    print(f"\n{len(files)} files in {time.monotonic() - began:.0f} s, {STORY_KILLS} kills")  # noqa: T201 - figures
    check(installation, files, documents)


def create(client: httpx.Client, access: dict[str, list[str]]) -> None:
    made = client.post("/v1/collections/new", json={"name": COLLECTION, "access": access})
    assert made.status_code == 201, made.text


def drop(client: httpx.Client, files: list[File]) -> list[str]:
    """The ids of the documents, in the order of the files."""
    ids: list[str] = []
    for start in range(0, len(files), FILES_PER_REQUEST):
        part = [("files", (f.name, f.content)) for f in files[start : start + FILES_PER_REQUEST]]
        answer = client.post(f"/v1/collections/{COLLECTION}/add", files=part)
        assert answer.status_code == 202, answer.text
        ids += [document["id"] for document in answer.json()["data"]]
    return ids


def listed(installation: Installation) -> list[dict[str, Any]]:
    answer = installation.running.http("alice").get(f"/v1/collections/{COLLECTION}/documents?limit=1000")
    return list(answer.json()["data"]) if answer.status_code == 200 else []


def ended(installation: Installation, person: str, ids: list[str]) -> bool:
    wanted = set(ids)
    answer = installation.running.http(person).get(f"/v1/collections/{COLLECTION}/documents?limit=1000")
    if answer.status_code != 200:
        return False
    found = [d for d in answer.json()["data"] if d["id"] in wanted]
    return len(found) == len(wanted) and all(d["status"] != "in_progress" for d in found)


def check(installation: Installation, files: list[File], ids: list[str]) -> None:
    by_id = {document["id"]: document for document in listed(installation)}
    firsts: dict[bytes, str] = {}
    for file, document_id in zip(files, ids, strict=True):
        assert firsts.setdefault(file.content, document_id) == document_id, "twins are one document"
        document = by_id[document_id]
        if file.word is None:
            assert document["status"] == "failed", document
            assert document["last_error"]["message"], document
            assert document["last_error"]["code"] not in ("internal_error", "worker_died"), document
        else:
            assert document["status"] == "completed", document
            assert finds(installation.running.http("bob"), file.word) == {document_id}, document


def finds(client: httpx.Client, word: str) -> set[str]:
    """The documents whose passages hold the word."""
    body = {"query": word, "max_num_results": 20, "ranking_options": {"ranker": "bm25"}}
    answer = client.post(f"/v1/collections/{COLLECTION}/search", json=body)
    assert answer.status_code == 200, answer.text
    return {hit["file_id"] for hit in answer.json()["data"] if word in hit["content"][0]["text"]}
