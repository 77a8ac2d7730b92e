"""The rights matrix for the people of every identity source, and every source against all others.

The names of the people are the same in all sources, and so is the name of their group.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator

import httpx
import pytest

from tests.support.rights_probe import check, nobodys_key_opens_nothing, request
from tests.support.rights_proxy import Matrix, matrix_proxy
from tests.support.rights_stage import CLOSED_TEXT, INSIDER, LOCALS, PEOPLE, QUESTION, READERS, Stage
from tests.support.rights_table import Case, cases
from tests.support.rights_tenants import tenants

NAMES = ["keycloak", "service-account-keycloak", "browser-keycloak", "acme", "gitlab", "open_webui"]
"""The tenants of `rights_tenants`, by prefix and source."""
OF_A_SOURCE = [
    case
    for case in (*cases(chat=False), *cases(chat=True))
    if case.identity not in ("none", "master")
    and not (case.row.route.endswith("/preview") and case.status == 200)
]
"""Who did not sign in and the master key are the same whatever sources there are. Previews that are made
take a process each: the matrix has them."""


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    with tenants() as (found, sources):
        assert [f"{tenant.prefix}{tenant.source}" for tenant in found] == NAMES
        with matrix_proxy(tmp_path_factory.mktemp("rights"), [LOCALS, *found], sources) as made:
            yield made


@pytest.fixture
def on(matrix: Matrix, request: pytest.FixtureRequest) -> Stage:
    tenant = list(matrix.stages)[1 + NAMES.index(request.param)]
    return matrix.stages[tenant]


def test_the_number_of_cases_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        total = len(NAMES) * len(OF_A_SOURCE)
        sys.stdout.write(f"rights by source: {total} cases of {len(NAMES)} kinds of identity\n")
    assert total > 0


@pytest.mark.parametrize("case", OF_A_SOURCE, ids=str)
@pytest.mark.parametrize("on", NAMES, indirect=True)
def test_each_identity_is_answered_as_the_table_says_whatever_source_it_is_of(on: Stage, case: Case) -> None:
    check(on, case, request(on, case))


@pytest.mark.parametrize("on", NAMES, indirect=True)
def test_the_insiders_of_a_source_read_its_closed_documents(on: Stage) -> None:
    path = f"/v1/collections/{on.collection}/search"
    answers = {
        name: str(on.ok(name, "POST", path, json={"query": QUESTION, "max_num_results": 50}))
        for name in (INSIDER, *READERS)
    }
    assert {name for name, answer in answers.items() if CLOSED_TEXT in answer} == {INSIDER}


def test_a_key_that_nobody_made_opens_nothing(matrix: Matrix) -> None:
    nobodys_key_opens_nothing(matrix.stage)


@pytest.mark.parametrize("name", PEOPLE)
def test_people_of_one_source_are_strangers_to_the_collections_of_all_others(
    matrix: Matrix, name: str
) -> None:
    everywhere = {"name": "search_documents", "arguments": {"query": QUESTION, "max_num_results": 50}}
    for own in matrix.stages.values():
        listed = {view["id"] for view in own.ok(name, "GET", "/v1/collections?limit=1000")["data"]}
        hits = str(own.ok(name, "POST", "/v1/tools", json=everywhere)["structuredContent"])
        for other in matrix.stages.values():
            if other is not own:
                assert other.collection not in listed, (own.tenant, other.tenant)
                assert other.collection not in hits, (own.tenant, other.tenant)
                for ref in (other.collection, other.tenant.collection):
                    nothing_is_called(own.client(name), ref)


def nothing_is_called(client: httpx.Client, ref: str) -> None:
    path = f"/v1/collections/{ref}"
    assert client.get(path).status_code == 404, ref
    assert client.post(f"{path}/search", json={"query": QUESTION}).status_code == 404, ref
