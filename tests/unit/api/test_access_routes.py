"""`/v1/collections/{collection}/access`: grants are shown, replaced, explained."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api_server import Server

ALICE = "user:local/alice"


def body(**access: list[str]) -> dict[str, list[str]]:
    return {"discover": [], "query": [], "add": [], "manage": [], **access}


async def test_grants_that_are_read_can_be_sent_back_changed(server: Server) -> None:
    path = f"/v1/collections/{await server.collection(query=['user:bob'])}/access"
    shown = (await server.as_alice.get(path)).json()
    assert shown == body(query=["user:local/bob"], manage=[ALICE])
    answer = await server.as_alice.put(path, json={**shown, "query": ["*"], "add": ["group:staff"]})
    assert answer.status_code == 200
    assert answer.json() == body(query=["*"], add=["group:local/staff"], manage=[ALICE])
    assert (await server.as_alice.get(path)).json() == answer.json()


async def test_what_a_put_leaves_out_is_granted_to_nobody(server: Server) -> None:
    await server.collection(query=["user:bob"])
    bob = server.client("bob")
    path = "/v1/collections/handbook"
    assert (await bob.get(f"{path}/documents")).status_code == 200
    assert (await server.as_alice.put(f"{path}/access", json={"manage": [ALICE]})).status_code == 200
    assert (await bob.get(f"{path}/documents")).status_code == 404


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
@pytest.mark.parametrize("manage", [[], ["user:bob"]])
async def test_nobody_takes_their_own_last_manage_away(
    server: Server, method: str, manage: list[str]
) -> None:
    path = f"/v1/collections/{await server.collection()}"
    access = {"query": ["*"], "manage": manage}
    answer = await (
        server.as_alice.put(f"{path}/access", json=access)
        if method == "PUT"
        else server.as_alice.patch(path, json={"access": access})
    )
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "conflict")
    assert error["param"] == ("manage" if method == "PUT" else "access.manage")
    assert ALICE in error["message"]
    assert (await server.as_alice.get(f"{path}/access")).json() == body(manage=[ALICE])


@pytest.mark.parametrize(
    ("access", "param"),
    [
        ({"query": ["bob"]}, "query"),
        ({"add": ["user:elsewhere/bob/"], "manage": ["group:"]}, "manage"),
        ({"discover": [f"user:u{number}" for number in range(101)]}, "discover"),
        ({"write": ["*"]}, "write"),
        ({"query": "*"}, "query"),
    ],
)
async def test_what_is_no_subject_is_refused_by_its_field(
    server: Server, access: dict[str, Any], param: str
) -> None:
    path = f"/v1/collections/{await server.collection()}/access"
    answer = await server.as_alice.put(path, json={"manage": [ALICE], **access})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_ones_own_rights_are_explained_to_everyone_who_has_one(server: Server) -> None:
    collection = await server.collection(discover=["*"], query=["user:bob"])
    answer = await server.client("bob").get(f"/v1/collections/{collection}/access/effective")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["object"], told["collection_id"]) == ("collection.effective_access", collection)
    assert (told["user"], told["known_from"]) == ("user:local/bob", "request")
    assert {right: view["allowed"] for right, view in told["rights"].items()} == {
        "discover": True,
        "query": True,
        "add": False,
        "manage": False,
    }
    assert told["rights"]["query"]["rule"] == "grant of query: user:local/bob"


async def test_others_rights_are_explained_to_managers_and_auditors_only(server: Server) -> None:
    collection = await server.collection(discover=["*"], query=["user:bob"])
    path = f"/v1/collections/{collection}/access/effective?user=local/alice"
    statuses = {who: (await server.client(who).get(path)).status_code for who in ("alice", "auditor", "bob")}
    assert statuses == {"alice": 200, "auditor": 200, "bob": 403}
    hidden = f"/v1/collections/{await server.collection('hidden')}/access/effective?user=alice"
    assert (await server.client("auditor").get(hidden)).status_code == 200
    assert (await server.client("bob").get(hidden)).status_code == 404


@pytest.mark.parametrize("user", ["*", "group:local/staff", "role:x", "a\nb", ""])
async def test_rights_are_explained_of_one_person_only(server: Server, user: str) -> None:
    collection = await server.collection()
    answer = await server.as_alice.get(
        f"/v1/collections/{collection}/access/effective", params={"user": user}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "user")
