"""`/v1/jobs` and `/v1/collections/{id}/jobs`: shapes, statuses, and the form of server-sent events."""

from __future__ import annotations

import json
from typing import Any

from tests.support.api_server import Server


def events(text: str) -> list[dict[str, Any]]:
    """The fields of each event; comments are left out."""
    found = []
    for block in text.split("\n\n"):
        lines = [line.partition(": ") for line in block.splitlines() if not line.startswith(":")]
        fields = {name: value for name, _, value in lines}
        if "data" in fields:
            found.append({**fields, "data": json.loads(fields["data"])})
    return found


async def test_the_jobs_of_an_upload_are_listed_and_shown(server: Server) -> None:
    collection = await server.collection()
    body = {"documents": [{"markdown": "# One"}, {"markdown": "# Two"}]}
    added = (await server.as_alice.post(f"/v1/collections/{collection}/add", json=body)).json()
    assert {document["batch_id"] for document in added["data"]} == {added["batch_id"]}
    await server.document(collection, markdown="# Three")
    path = f"/v1/collections/{collection}/jobs"
    listed = (await server.as_alice.get(path, params={"batch": added["batch_id"]})).json()
    assert {job["document_id"] for job in listed["data"]} == {document["id"] for document in added["data"]}
    job = listed["data"][0]
    assert (await server.as_alice.get(f"/v1/jobs/{job['id']}")).json() == job
    assert (job["object"], job["status"], job["stage"], job["percent"]) == (
        "job",
        "in_progress",
        "queued",
        0,
    )
    assert len((await server.as_alice.get(path, params={"status": "in_progress"})).json()["data"]) == 3
    wrong = await server.as_alice.get(path, params={"status": "sleeping"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "status")


async def test_a_job_is_cancelled_once_and_tried_again(server: Server) -> None:
    document = await server.document(await server.collection())
    path = f"/v1/jobs/{document['job']['id']}"
    cancelled = await server.as_alice.post(f"{path}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    again = await server.as_alice.post(f"{path}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    retried = await server.as_alice.post(f"{path}/retry")
    assert (retried.status_code, retried.json()["status"]) == (200, "in_progress")


async def test_the_events_of_a_job_end_with_it_and_go_on_behind_the_last_one(server: Server) -> None:
    document = await server.document(await server.collection())
    path = f"/v1/jobs/{document['job']['id']}"
    await server.as_alice.post(f"{path}/cancel")
    answer = await server.as_alice.get(f"{path}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.text.startswith("retry: ")
    [event] = events(answer.text)
    assert (event["event"], event["data"]["status"]) == ("job", "cancelled")
    assert event["data"] == (await server.as_alice.get(path)).json()
    before = {"Last-Event-ID": str(int(event["id"]) - 1)}
    resumed = await server.as_alice.get(f"{path}/events", headers=before)
    assert events(resumed.text) == [event]
    after_its_end = await server.as_alice.get(f"{path}/events", headers={"Last-Event-ID": event["id"]})
    assert (after_its_end.status_code, after_its_end.text) == (204, ""), "else clients ask again and again"


async def test_a_last_event_that_is_no_number_is_refused(server: Server) -> None:
    collection = await server.collection()
    for wrong in ("abc", "-1", "1" * 40, "²"):
        answer = await server.as_alice.get(
            f"/v1/collections/{collection}/jobs/events", headers={b"Last-Event-ID": wrong.encode()}
        )
        assert answer.status_code == 400, wrong
        assert answer.json()["error"]["param"] == "last-event-id"


async def test_streams_of_what_one_may_not_see_are_refused_before_they_begin(server: Server) -> None:
    collection = await server.collection()
    document = await server.document(collection)
    bob = server.client("bob")
    for path in (f"/v1/collections/{collection}/jobs/events", f"/v1/jobs/{document['job']['id']}/events"):
        answer = await bob.get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in ("collection_not_found", "document_not_found")
