"""The rights matrix where Milvus decides: the same table, with users and roles of a real server.

Milvus 2.3 shows every collection to whoever has a user, so all identities but the stranger, who has none,
hold `discover`; newer servers hide what one has no grant for, and are left out here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.live.milvus import Server, milvus
from tests.live.milvus_proxy import HEADER
from tests.support.proxy import ROOT, proxy
from tests.support.quickstart import until
from tests.support.rights_probe import check, request
from tests.support.rights_proxy import CHAT_CONFIG, LITELLM
from tests.support.rights_stage import (
    CLOSED_NAME,
    CLOSED_TEXT,
    INSIDER,
    LOCALS,
    OPEN_NAME,
    OPEN_TEXT,
    OWN_TEXT,
    OWNER,
    QUESTION,
    READERS,
    Stage,
    Tenant,
    clients,
    configuration,
)
from tests.support.rights_table import CHAT, IDENTITIES, Case, cases

__all__ = ["milvus"]

READ = ("Collection", "*", "Search"), ("Collection", "*", "Query")
INSERT = ("Collection", "*", "Insert")
ROLES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "stranger": (),
    "discover": (),
    "query": READ,
    INSIDER: READ,
    "add": (INSERT,),
    "member": (*READ, INSERT),
    "manage": (*READ, INSERT, ("Global", "*", "DropCollection")),
}
OTHERWISE = ("/access", "/v1/collections/new")
"""Routes that answer otherwise for these collections: `test_milvus_rights` has them."""
SHOWN = ("GET", "/v1/collections/{collection}")
MOVED = ("POST", "/v1/collections/{collection}/reindex")
LIMIT_S = 30.0


class Enforced(Stage):
    """Names are Milvus's, and grants are not ours to give."""

    def create(self, name: str, access: Mapping[str, list[str]], description: str = "") -> str:
        plain = re.sub(r"\W", "_", name)
        return str(self.ok(OWNER, "POST", "/v1/collections/new", json={"name": plain})["id"])


class Users(Tenant):
    """Local people with users of their own in Milvus."""

    @property
    def collection(self) -> str:
        return f"{self.prefix}handbook"

    def subject(self, name: str) -> str:
        return LOCALS.subject(name)


CASES = [
    Case(case.row, case.identity)
    for case in [*cases(chat=False), *cases(chat=True)]
    if not any(part in case.row.route for part in OTHERWISE)
]


@contextmanager
def enforced(folder: Path, milvus: Server, plant: str = "") -> Iterator[Stage]:
    """A prepared stage on a proxy of its own; ``plant`` is a hole of `rights_entry`."""
    # everybody may insert until the stage is made
    credentials = {
        name: milvus.person(name, *roles, *([INSERT] if INSERT not in roles else []))
        for name, roles in ROLES.items()
    }
    credentials[OWNER] = f"{milvus.user}:{milvus.password}"
    prompts = folder / "config" / "prompts"
    prompts.mkdir(parents=True)
    prompt = (ROOT / "config" / "prompts" / "answer.md").read_text(encoding="utf-8")
    (prompts / "answer.md").write_text(prompt, encoding="utf-8")
    config: dict[str, Any] = {**configuration(), "chat": CHAT_CONFIG}
    config["identity"]["identity"]["store_credential_header"] = HEADER
    config["collections"] = {"collections": {"rights": "milvus", "privileges_cache_s": 0}}
    store = {"use": "milvus", "uri": milvus.uri, "user": milvus.user, "password": milvus.password}
    config["storage"] = {"storage": {"data_dir": str(folder / "data"), "store": store}}

    def headers(name: str, url: str) -> Mapping[str, str]:
        sent = {HEADER: credentials[name]} if name in credentials else {}
        return {**LOCALS.headers(name, url), **sent}

    tenant = Users("local", headers, milvus.prefix)
    (folder / "hole").write_text(plant, encoding="utf-8")
    environment = {"ROUTES_FILE": str(folder / "routes.json"), "PLANT_FILE": str(folder / "hole")}
    with proxy(folder, LITELLM, config, environment) as running, clients(running.url, tenant) as made:
        made["master"].headers[HEADER] = credentials[OWNER]
        stage = Enforced(running.url, made, tenant)
        prepare(stage, milvus, settled=not plant)
        del credentials["stranger"]
        yield stage


@pytest.fixture(scope="module")
def server(milvus: Server) -> Server:
    version = milvus.client().get_server_version().removeprefix("v").split(".")
    if (int(version[0]), int(version[1])) >= (2, 5):
        pytest.skip("this server hides what one has no grant for")
    return milvus


@pytest.fixture(scope="module")
def on(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with enforced(tmp_path_factory.mktemp("matrix"), server) as stage:
        yield stage
    server.clean()


def prepare(stage: Stage, server: Server, *, settled: bool) -> None:
    """Documents of everybody; then those who should not may insert no more."""
    stage.hidden, stage.hidden_document = "no-collection", {"id": "no-document"}
    stage.collection = stage.create(stage.tenant.collection, {})
    for identity in IDENTITIES:
        if identity != "none":
            for kind, text in (("own", OWN_TEXT), ("own closed", CLOSED_TEXT)):
                name = f"{identity}-{kind.replace(' ', '-')}"
                stage.own[identity, kind] = stage.upload(identity, kind, text, name)
    stage.documents["open"] = stage.upload(OWNER, "open", OPEN_TEXT, OPEN_NAME)
    stage.documents["closed"] = stage.upload(OWNER, "closed", CLOSED_TEXT, CLOSED_NAME)
    stage.wait(stage.collection)
    for name, roles in ROLES.items():
        if INSERT not in roles:
            server.revoke(name, INSERT)
            if settled:
                until(partial(may_not_add, stage, name), "the revocation counts", LIMIT_S)


def may_not_add(stage: Stage, name: str) -> bool:
    return "add" not in stage.ok(name, "GET", f"/v1/collections/{stage.collection}")["permissions"]


def expected(case: Case) -> Case:
    """What the table says; but whoever has a user in Milvus sees the collection, and nobody may move it."""
    status, route = case.status, (case.row.method, case.row.route)
    if route == SHOWN and case.identity not in ("none", "stranger"):
        status = 200
    elif route == MOVED and status == 202:
        status = 409
    statuses = {**case.row.expected, case.identity: status}
    return Case(replace(case.row, expected=statuses), case.identity)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_identity_is_answered_as_the_table_says_where_milvus_decides(on: Stage, case: Case) -> None:
    check(on, expected(case), request(on, expected(case)))


def test_the_number_of_cases_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        sys.stdout.write(f"rights by Milvus: {len(CASES)} cases\n")
    assert {case.row.route for case in CASES} > {CHAT}


def test_only_insiders_who_may_search_in_milvus_read_the_closed_documents(on: Stage) -> None:
    path = f"/v1/collections/{on.collection}/search"
    answers = {
        name: str(on.ok(name, "POST", path, json={"query": QUESTION, "max_num_results": 50}))
        for name in (INSIDER, *READERS)
    }
    assert {name for name, answer in answers.items() if CLOSED_TEXT in answer} == {INSIDER}
    assert all(OPEN_TEXT in answer for answer in answers.values())


# The last of this file: it makes the same people anew.


def test_the_matrix_notices_when_milvuss_roles_are_not_looked_at(server: Server, tmp_path: Path) -> None:
    server.clean()
    reads = [case for case in CASES if case.row.route.endswith(("/search", "/documents", "/add"))]
    with enforced(tmp_path, server, "every_role_may_everything") as stage:
        complaints = []
        for case in reads:
            try:
                check(stage, expected(case), request(stage, expected(case)))
            except AssertionError as error:
                complaints.append(str(error))
    assert complaints
