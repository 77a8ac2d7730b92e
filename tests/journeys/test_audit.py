"""Who could read this, and how do you know? Grants, their explanation and the audit log, on a real proxy."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.support.proxy import MASTER_KEY
from tests.support.quickstart import until
from tests.support.rights_stage import CLOSED_TEXT, LOCAL, OPEN_TEXT, OWNER, Stage
from tests.support.rights_table import Identity

LIMIT_S = 20.0
HELD: dict[Identity, list[str]] = {
    "stranger": [],
    "discover": ["discover"],
    "query": ["query"],
    "add": ["add"],
    "member": ["query", "add"],
    "manage": ["discover", "query", "add", "manage"],
}


def entries(on: Stage, count: int, **params: str) -> list[dict[str, Any]]:
    """The log's entries, of which there must be so many in a while: a refusal is answered before it is
    written."""
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        found: list[dict[str, Any]] = on.ok(OWNER, "GET", "/v1/audit", params=params)["data"]
        if len(found) >= count:
            return found
        time.sleep(0.05)
    raise AssertionError(f"not {count} entries: {found}")


def allowed(told: dict[str, Any]) -> list[str]:
    return [right for right, view in told["rights"].items() if view["allowed"]]


def test_a_refused_person_is_in_the_log_with_their_request_and_address(on: Stage) -> None:
    headers = {"x-litellm-call-id": "asked-by-the-stranger"}
    path = f"/v1/collections/{on.collection}/documents"
    assert on.client("stranger").get(path, headers=headers).status_code == 404
    user = on.tenant.subject("stranger")
    action = "GET /v1/collections/{collection}/documents"

    def found() -> dict[str, Any] | None:
        refused = entries(on, 1, user=user, collection=on.collection, result="refused", action=action)
        return next((entry for entry in refused if entry["request_id"] == "asked-by-the-stranger"), None)

    assert until(found, "the refusal is in the log", LIMIT_S)["peer"] == "127.0.0.1"


def test_changed_grants_are_in_the_log_as_they_were_and_as_they_are(on: Stage) -> None:
    created = on.create("matrix-granted", {"query": ["user:local/query"]})
    path = f"/v1/collections/{created}/access"
    before = on.ok(OWNER, "GET", path)
    after = {**before, "query": ["user:local/add"]}
    on.ok(OWNER, "PUT", path, json=after)
    [entry] = entries(on, 1, collection=created, action="access.change")
    assert entry["user"] == f"local/{OWNER}"
    assert entry["detail"] == {"before": before, "after": after}


@pytest.mark.parametrize("identity", HELD)
def test_the_explanation_of_rights_says_what_the_routes_do(on: Stage, identity: Identity) -> None:
    path = f"/v1/collections/{on.collection}/access/effective"
    told = on.ok(OWNER, "GET", path, params={"user": on.tenant.subject(identity)})
    assert allowed(told) == HELD[identity]
    assert told["known_from"] == "sign_in"
    if HELD[identity]:
        own = on.ok(identity, "GET", path)
        assert (allowed(own), own["known_from"]) == (HELD[identity], "request")


def test_the_rule_of_an_admin_is_the_line_of_the_policy(on: Stage) -> None:
    told = on.ok("master", "GET", f"/v1/collections/{on.collection}/access/effective")
    assert told["rights"]["query"]["rule"] == "collections.policy[0].manage: role:litellm/proxy_admin"


def test_people_who_signed_in_can_be_given_grants_by_what_is_listed(on: Stage) -> None:
    listed = on.ok("manage", "GET", "/v1/users", params={"q": "STRANG"})["data"]
    assert [view["subject"] for view in listed] == [on.tenant.subject("stranger")]
    groups = on.ok("manage", "GET", "/v1/roles", params={"q": "insid"})["data"]
    assert all(view["object"] == "group" for view in groups)


def test_the_export_is_the_whole_log_and_holds_no_text_and_no_key(on: Stage) -> None:
    answer = on.client(OWNER).get("/v1/audit/export")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    ids = [line["id"] for line in lines]
    assert ids == sorted(set(ids))
    assert {"collection.create", "document.add", "access.change"} <= {line["action"] for line in lines}
    keys = [entry["key"] for entry in LOCAL] + [MASTER_KEY]
    assert not [word for word in (OPEN_TEXT, CLOSED_TEXT, *keys) if word in answer.text]
