"""`/v1/users` and `/v1/roles`: whom grants can name, for those who give them."""

from __future__ import annotations

from typing import Any

from plugins.collections.sightings import Sightings
from plugins.core.identity import Principal
from tests.support.api_server import Server


async def seen(server: Server, *names: str) -> None:
    sightings = Sightings(server.database)
    for name in names:
        await sightings(
            Principal(
                source="local",
                subject=name,
                username=name,
                email=f"{name}@example.test",
                groups=frozenset({"staff"}),
                roles=frozenset({f"{name}-role"}),
            )
        )
    await sightings.written()


async def test_each_person_has_the_subject_that_a_grant_takes(server: Server) -> None:
    await seen(server, "bob", "carol")
    listed = (await server.as_alice.get("/v1/users")).json()
    assert [(entry["subject"], entry["email"]) for entry in listed["data"]] == [
        ("user:local/bob", "bob@example.test"),
        ("user:local/carol", "carol@example.test"),
    ]
    assert await server.collection(query=[entry["subject"] for entry in listed["data"]])


async def test_people_and_roles_come_page_by_page_and_can_be_searched(server: Server) -> None:
    await seen(server, "ann", "bob", "carol")
    for path, wanted in (
        ("/v1/users", ["user:local/ann", "user:local/bob", "user:local/carol"]),
        (
            "/v1/roles",
            ["group:local/staff", "role:local/ann-role", "role:local/bob-role", "role:local/carol-role"],
        ),
    ):
        found: list[str] = []
        more = True
        while more:
            params: dict[str, Any] = {"limit": 2, **({"after": found[-1]} if found else {})}
            page = (await server.as_alice.get(path, params=params)).json()
            found += [entry["subject"] for entry in page["data"]]
            more = page["has_more"]
        assert found == wanted
        some = (await server.as_alice.get(path, params={"q": "CARO"})).json()["data"]
        assert [entry["subject"] for entry in some] == wanted[-1:]


async def test_only_who_gives_grants_may_list_people(server: Server) -> None:
    bob = server.client("bob")
    for path in ("/v1/users", "/v1/roles"):
        refused = await bob.get(path)
        assert refused.status_code == 403
        assert "`manage`" in refused.json()["error"]["message"]
        assert (await server.as_alice.get(path)).status_code == 200
    await server.collection(manage=["user:bob"])
    assert (await bob.get("/v1/users")).status_code == 200


async def test_a_percent_sign_searches_for_itself(server: Server) -> None:
    await seen(server, "bob")
    assert (await server.as_alice.get("/v1/users", params={"q": "%"})).json()["data"] == []
    refused = await server.as_alice.get("/v1/users", params={"q": "a\x00b"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "q")
