"""Many files of two people through the real proxy, followed by server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.quickstart import Quickstart, until

MANY, FEW = 27, 3
ENDED = {"completed", "failed", "cancelled"}


@pytest.fixture
def shelf(running: Quickstart) -> Iterator[str]:
    """An empty collection of alice's, to which carol may add."""
    body = {"name": "shelf of many jobs", "access": {"add": ["user:local/carol"]}}
    created = running.http("alice").post("/v1/collections/new", json=body)
    assert created.status_code == 201, created.text
    yield created.json()["id"]
    running.http("alice").delete(f"/v1/collections/{created.json()['id']}").raise_for_status()


def upload(client: httpx.Client, shelf: str, who: str, count: int) -> dict[str, Any]:
    files = [
        ("files", (f"{who}-{number}.txt", f"The number of {who} is {number}.".encode()))
        for number in range(count)
    ]
    answer = client.post(f"/v1/collections/{shelf}/add", files=files)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def events(client: httpx.Client, path: str, last: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Number and job of each event of a stream."""
    headers = {"Last-Event-ID": last} if last else {}
    with client.stream("GET", path, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        number = ""
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                number = value
            elif name == "data":
                yield number, json.loads(value)


def test_thirty_files_of_two_people_are_followed_to_their_end_through_a_break_of_the_connection(
    running: Quickstart, shelf: str
) -> None:
    alice, carol = running.http("alice"), running.http("carol")
    many = upload(alice, shelf, "alice", MANY)
    few = upload(carol, shelf, "carol", FEW)
    assert len(many["data"]) == MANY
    assert {document["batch_id"] for document in few["data"]} == {few["batch_id"]}
    path = f"/v1/collections/{shelf}/jobs/events"
    states: dict[str, dict[str, Any]] = {}
    order: list[str] = []
    last = 0

    def hear(number: str, job: dict[str, Any]) -> None:
        nonlocal last
        assert int(number) > last, "in the order of the changes, none twice"
        last = int(number)
        if job["status"] in ENDED and states.get(job["id"], {}).get("status") not in ENDED:
            order.append(job["filename"])
        states[job["id"]] = job

    for heard, (number, job) in enumerate(events(alice, path)):
        hear(number, job)
        if heard == 10:
            break  # the connection is lost
    # whoever was away hears of all that happened meanwhile
    for number, job in events(alice, path, str(last)):
        hear(number, job)
        if len(order) == MANY + FEW:
            break
    assert {job["status"] for job in states.values()} == {"completed"}
    assert {job["percent"] for job in states.values()} == {100}
    of_carol = [place for place, name in enumerate(order) if name.startswith("carol")]
    assert max(of_carol) < MANY, f"three files did not wait for twenty-seven: {order}"
    listed = alice.get(f"/v1/collections/{shelf}/jobs?limit=1000").json()["data"]
    assert {job["id"]: job["status"] for job in listed} == dict.fromkeys(states, "completed")
    own = carol.get(f"/v1/collections/{shelf}/jobs", params={"batch": few["batch_id"]}).json()["data"]
    assert len(own) == FEW
    assert carol.get(f"/v1/collections/{shelf}/jobs").json()["data"] == own, "others' are not shown"


def test_a_job_is_followed_to_its_end_and_tried_again(running: Quickstart, shelf: str) -> None:
    alice = running.http("alice")
    files = [("files", ("empty.txt", b"   "))]
    [added] = alice.post(f"/v1/collections/{shelf}/add", files=files).json()["data"]
    path = f"/v1/jobs/{added['job']['id']}"
    *_, (_, failed) = events(alice, f"{path}/events")
    assert (failed["status"], failed["last_error"]["code"]) == ("failed", "unreadable_document")
    assert alice.post(f"{path}/cancel").status_code == 409
    assert alice.post(f"{path}/retry").json()["status"] == "in_progress"

    def ended() -> bool:
        return bool(alice.get(path).json()["status"] == "failed")

    until(ended, "the second try to end")
