"""Whom grants can name, as a real Keycloak knows them; and what a person may do before they ever sign in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from plugins.core.errors import IdentityUnavailable
from plugins.core.ports import Directory
from tests.live.conftest import RunProxy
from tests.live.keycloak_callers import in_process, source
from tests.live.keycloak_realm import Realm
from tests.support.proxy import Proxy

PEOPLE = ["admin", "alice", "audrey", "bob", "carol"]


@asynccontextmanager
async def directory(realm: Realm, **settings: Any) -> AsyncIterator[Directory]:
    made = in_process(realm, directory=True, **settings)
    assert made.directory is not None
    try:
        yield made.directory
    finally:
        await made.close()


def client_id(realm: Realm, name: str) -> str:
    found: str | None = realm.admin.get_client_id(name)
    assert found
    return found


async def test_the_realms_people_are_listed_page_by_page_without_service_accounts(realm: Realm) -> None:
    async with directory(realm) as known:
        found: list[str] = []
        while page := await known.people("", after=found[-1] if found else None, limit=2):
            found += [person.username for person in page]
        assert found == PEOPLE
        [alice] = await known.people("LICE@exam", after=None, limit=10)
        assert (alice.username, alice.email) == ("alice", "alice@example.test")
        assert await known.people("no such person", after=None, limit=10) == []


async def test_a_person_has_the_groups_and_roles_that_their_next_token_carries(realm: Realm) -> None:
    admin = realm.admin
    parent = admin.create_group({"name": "sales"})
    child = admin.create_group({"name": "europe"}, parent=parent)
    assert child
    admin.create_realm_role({"name": "lead"})
    admin.create_realm_role({"name": "inherited"})
    admin.add_composite_realm_roles_to_role("lead", [admin.get_realm_role("inherited")])
    admin.group_user_add(realm.user_id("bob"), child)
    admin.assign_realm_roles(realm.user_id("bob"), [admin.get_realm_role("lead")])
    async with directory(realm) as known:
        bob = await known.person("bob")
        assert bob is not None
        assert {"sales/europe", "hr"} == bob.groups
        assert {"lead", "inherited", "reader"} <= bob.roles
        assert {"sales", "sales/europe", "finance", "hr"} <= set(await known.groups())
        assert {"lead", "inherited", "auditor"} <= set(await known.roles())
        assert await known.person("bo") is None


async def test_a_disabled_person_is_not_listed(realm: Realm) -> None:
    realm.change_user("carol", enabled=False)
    async with directory(realm) as known:
        assert await known.person("carol") is None
        assert "carol" not in [person.username for person in await known.people("", after=None, limit=100)]
    realm.change_user("carol", enabled=True)


async def test_a_client_without_the_rights_is_told_apart_from_an_empty_realm(realm: Realm) -> None:
    admin = realm.admin
    management, client = (client_id(realm, name) for name in ("realm-management", "litellm"))
    account = admin.get_client_service_account_user(client)["id"]
    roles = admin.get_client_roles_of_user(account, management)
    admin.delete_client_roles_of_user(account, management, roles)
    try:
        async with directory(realm) as known:
            with pytest.raises(IdentityUnavailable, match="does not let this server list people"):
                await known.people("", after=None, limit=10)
    finally:
        admin.assign_client_role(account, management, roles)


@pytest.fixture(scope="module")
def proxy(realm: Realm, run_proxy: RunProxy) -> Proxy:
    return run_proxy(
        {
            "identity": {"sources": [source(realm, directory=True), {"use": "litellm"}]},
            "collections": {
                "create": [{"subjects": ["user:keycloak/alice"]}],
                "policy": [{"names": "hr-*", "query": ["group:keycloak/hr"]}],
            },
            "audit": {"readers": ["role:keycloak/auditor"]},
        }
    )


def test_whom_alice_finds_she_can_grant_a_right_and_the_auditor_sees_it(proxy: Proxy, realm: Realm) -> None:
    def ask(who: str, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {realm.tokens(who)['access_token']}"}
        return httpx.request(
            method, f"{proxy.url}{path}", headers=headers, timeout=30, trust_env=False, **options
        )

    listed = ask("alice", "GET", "/v1/users?q=caro")
    assert listed.status_code == 200, listed.text
    [carol] = [entry["subject"] for entry in listed.json()["data"]]
    assert carol == "user:keycloak/carol"
    assert ask("carol", "GET", "/v1/users").status_code == 403
    roles = {entry["subject"] for entry in ask("alice", "GET", "/v1/roles").json()["data"]}
    assert {"role:keycloak/reader", "group:keycloak/hr"} <= roles

    new = {"name": "hr-handbook", "embedding_model": "open", "access": {"add": [carol]}}
    made = ask("alice", "POST", "/v1/collections/new", json=new)
    assert made.status_code == 201, made.text
    for who, allowed, rule in (
        ("bob", ["query"], "collections.policy[0].query: group:keycloak/hr"),
        ("carol", ["add"], "grant of add: user:keycloak/carol"),
    ):
        path = f"/v1/collections/hr-handbook/access/effective?user=keycloak/{who}"
        told = ask("audrey", "GET", path).json()
        assert told["known_from"] == "directory"
        assert [right for right, view in told["rights"].items() if view["allowed"]] == allowed
        assert told["rights"][allowed[0]]["rule"] == rule
    entries = ask("audrey", "GET", "/v1/audit?user=keycloak/alice").json()["data"]
    assert [entry["action"] for entry in entries] == ["collection.create"]
    assert ask("alice", "GET", "/v1/audit").status_code == 403
