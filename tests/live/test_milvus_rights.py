"""Milvus's own enforcement, on a real server with authorization on and through the stock proxy."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live.milvus import Server, milvus
from tests.live.milvus_proxy import CACHE_S, NONE, House, house
from tests.support.issuer import Issuer, issuer
from tests.support.quickstart import until

__all__ = ["milvus"]

LIMIT_S = 30.0
"""Far longer than the cache: it bounds the wait, it does not measure."""

LEAVE = "# Leave\n\nNotice of termination is thirty days, to the end of a month."


@pytest.fixture(scope="module")
def tokens() -> Iterator[Issuer]:
    """An issuer whose tokens may carry a Milvus credential."""
    with issuer() as running:
        yield running


@pytest.fixture(scope="module")
def enforced(milvus: Server, tokens: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Rights are Milvus's: alice may do everything with what the tests make, bob has no role at all."""
    settings = {"rights": "milvus", "privileges_cache_s": CACHE_S}
    oidc = {
        "use": "oidc",
        "name": "keycloak",
        "issuer": tokens.url,
        "audience": "litellm",
        "store_credential_claim": "milvus.credential",
    }
    with house(tmp_path_factory.mktemp("enforced"), milvus, settings, issuers=[oidc]) as running:
        everything = ("Collection", "*", "*"), ("Global", "*", "*")
        running.credentials["alice"] = milvus.person("alice", *everything)
        running.credentials["bob"] = milvus.person("bob")
        yield running


@pytest.fixture(scope="module")
def handbook(enforced: House) -> str:
    """A collection of alice's with one document."""
    name = f"{enforced.server.prefix}handbook"
    made = enforced.ask("alice", "POST", "/v1/collections/new", json={"name": name})
    assert made.status_code == 201, made.text
    assert made.json()["retrieval"] == ("hybrid" if can_hybrid(enforced) else "dense")
    assert set(made.json()["permissions"]) == {"discover", "query", "add", "manage"}
    added = enforced.ask(
        "alice",
        "POST",
        f"/v1/collections/{name}/add?wait=true",
        json={"documents": [{"markdown": LEAVE, "filename": "leave.md", "id": "leave"}]},
    )
    assert added.status_code == 200, added.text
    return name


def test_upload_search_and_chat_on_the_server(enforced: House, handbook: str) -> None:
    found = enforced.ask(
        "alice", "POST", f"/v1/collections/{handbook}/search", json={"query": "How long is the notice?"}
    )
    assert found.status_code == 200, found.text
    assert "thirty days" in found.json()["data"][0]["content"][0]["text"]
    messages = [{"role": "user", "content": "How long is the notice of termination?"}]
    answered = enforced.ask(
        "alice", "POST", "/v1/chat/completions", json={"model": "extractive", "messages": messages}
    )
    assert answered.status_code == 200, answered.text
    assert "thirty days" in answered.json()["choices"][0]["message"]["content"]


def test_a_user_without_a_role_sees_what_milvus_shows_and_may_not_search_it(
    enforced: House, handbook: str
) -> None:
    status = enforced.refusal("bob", handbook)
    if not can_hybrid(enforced):
        assert status == 403, "a server of this age shows everything to everybody"
    assert (handbook in enforced.names("bob")) is (status == 403)
    assert search(enforced, "bob", handbook) == (status, "query" if status == 403 else None)


def test_hybrid_retrieval_is_refused_on_a_server_without_it_and_nothing_is_left(enforced: House) -> None:
    name = f"{enforced.server.prefix}hybrid"
    refused = enforced.ask("alice", "POST", "/v1/collections/new", json={"name": name, "retrieval": "hybrid"})
    if can_hybrid(enforced):
        pytest.skip("this server has BM25")
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["param"] == "retrieval"
    assert name not in enforced.server.client().list_collections()
    assert enforced.ask("alice", "GET", f"/v1/collections/{name}").status_code == 404


def can_hybrid(place: House) -> bool:
    version = place.server.client().get_server_version().removeprefix("v").split(".")
    return (int(version[0]), int(version[1])) >= (2, 5)


def test_who_may_insert_may_upload_and_not_search(enforced: House, handbook: str) -> None:
    enforced.credentials["carol"] = enforced.server.person("carol", ("Collection", handbook, "Insert"))
    added = enforced.ask(
        "carol", "POST", f"/v1/collections/{handbook}/add", json={"documents": [{"text": "one more"}]}
    )
    assert added.status_code == 202, added.text
    view = enforced.ask("carol", "GET", f"/v1/collections/{handbook}").json()
    assert view["permissions"] == ["discover", "add"]
    assert search(enforced, "carol", handbook) == (403, "query")
    # and neither drop it nor make one
    dropped = enforced.ask("carol", "DELETE", f"/v1/collections/{handbook}")
    assert (dropped.status_code, right_in(dropped)) == (403, "manage")
    made = enforced.ask("carol", "POST", "/v1/collections/new", json={"name": "carols_own"})
    assert (made.status_code, right_in(made)) == (403, "CreateCollection")
    assert "carols_own" not in enforced.server.client().list_collections()


def right_in(answer: httpx.Response) -> str | None:
    """The right or the privilege that a refusal names."""
    named = re.search(r"`(\w+)`", answer.json()["error"]["message"])
    return named[1] if named else None


def search(place: House, person: str, name: str, **request: Any) -> tuple[int, str | None]:
    """The status, and the right that is missing."""
    answer = place.ask(person, "POST", f"/v1/collections/{name}/search", json={"query": "notice"}, **request)
    return answer.status_code, None if answer.is_success else right_in(answer)


def test_grants_and_revocations_take_effect_within_the_cache_time(enforced: House, handbook: str) -> None:
    grants = ("Collection", handbook, "Search"), ("Collection", handbook, "Query")
    enforced.credentials["dave"] = enforced.server.person("dave", grants[0])
    assert search(enforced, "dave", handbook) == (403, "query")  # Search alone does not do
    enforced.server.grant("dave", grants[1])
    until(lambda: search(enforced, "dave", handbook)[0] == 200, "the grant takes effect", LIMIT_S)
    enforced.server.revoke("dave", grants[0])
    until(lambda: search(enforced, "dave", handbook) == (403, "query"), "the revocation", LIMIT_S)


def test_a_user_who_is_gone_is_refused_within_a_second_or_so(enforced: House, handbook: str) -> None:
    enforced.credentials["erin"] = enforced.server.person("erin", ("Collection", handbook, "*"))
    assert search(enforced, "erin", handbook) == (200, None)
    enforced.server.client().drop_user(f"{enforced.server.prefix}erin")
    until(lambda: search(enforced, "erin", handbook)[0] == 403, "the user is gone", LIMIT_S)


def test_without_a_credential_there_is_nothing(enforced: House, handbook: str) -> None:
    assert handbook not in enforced.names("alice", credential=NONE)
    assert search(enforced, "alice", handbook, credential=NONE) == (404, None)
    made = enforced.ask("alice", "POST", "/v1/collections/new", json={"name": "a"}, credential=NONE)
    assert made.status_code == 403, made.text
    assert "credential" in made.json()["error"]["message"]


@pytest.mark.parametrize("wrong", ["alice:not-her-password", "root:guess", "an-api-key-of-nobody", ":", "x"])
def test_a_wrong_credential_is_403_and_tells_no_name(enforced: House, handbook: str, wrong: str) -> None:
    answers = [
        enforced.ask("alice", "GET", f"/v1/collections/{name}", credential=wrong)
        for name in (handbook, "no_such_collection")
    ]
    answers.append(enforced.ask("alice", "GET", "/v1/collections", credential=wrong))
    assert {answer.status_code for answer in answers} == {403}
    assert len({answer.text for answer in answers}) == 1
    error = answers[0].json()["error"]
    assert error["code"] == "store_credential_refused"
    assert "user and password" in error["message"]


def test_the_name_of_somebody_else_does_not_do_without_their_password(enforced: House, handbook: str) -> None:
    """The privileges are read by user name: the credential itself must have been accepted before."""
    assert search(enforced, "alice", handbook) == (200, None)
    user = enforced.credentials["alice"].partition(":")[0]
    assert search(enforced, "bob", handbook, credential=f"{user}:wrong")[0] == 403
    assert search(enforced, "alice", handbook) == (200, None)


def test_the_master_key_has_the_rights_of_the_credential_that_comes_with_it(
    enforced: House, handbook: str
) -> None:
    assert search(enforced, "master", handbook) == (404, None)
    assert search(enforced, "master", handbook, credential=enforced.credentials["alice"]) == (200, None)


def test_a_token_brings_the_credential_in_its_claim(enforced: House, tokens: Issuer, handbook: str) -> None:
    def searched(**claims: Any) -> int:
        return search(enforced, "", handbook, token=tokens.token("alice", **claims))[0]

    assert searched() == 404
    assert searched(milvus={"credential": enforced.credentials["alice"]}) == 200
    refused = enforced.refusal("bob", handbook)
    assert searched(milvus={"credential": enforced.credentials["bob"]}) == refused
    assert searched(milvus={"credential": "alice:wrong"}) == 403


def test_a_chat_with_a_wrong_credential_tells_what_to_do(enforced: House, handbook: str) -> None:
    messages = [{"role": "user", "content": "How long is the notice of termination?"}]
    body: dict[str, Any] = {"model": "extractive", "messages": messages}
    for tools, status in (([{"type": "file_search", "vector_store_ids": [handbook]}], 403), (None, 200)):
        answer = enforced.ask(
            "alice", "POST", "/v1/chat/completions", json=body | {"tools": tools}, credential="alice:wrong"
        )
        assert answer.status_code == status, answer.text
        assert "user and password" in answer.text
        assert "thirty days" not in answer.text


def test_a_tool_gets_the_credential_of_its_metadata(enforced: House, handbook: str) -> None:
    def run(person: str, metadata: dict[str, Any]) -> httpx.Response:
        arguments = {"query": "notice", "collections": [handbook]}
        body = {"name": "search_documents", "arguments": arguments, "metadata": metadata}
        return enforced.ask(person, "POST", "/v1/tools", json=body, credential=NONE)

    assert run("bob", {}).status_code == 404
    found = run("bob", {"milvus_token": enforced.credentials["alice"]})
    assert found.status_code == 200, found.text
    assert "thirty days" in found.text
    refused = run("bob", {"milvus_token": enforced.credentials["bob"]}).status_code
    assert refused == enforced.refusal("bob", handbook)
    assert run("bob", {"milvus_token": 7}).status_code == 400


def test_a_documents_audience_counts_beside_milvuss_roles(enforced: House, handbook: str) -> None:
    document = {"text": "The vault opens with 4711.", "acl": ["user:local/dave"], "id": "vault"}
    path = f"/v1/collections/{handbook}"
    added = enforced.ask("alice", "POST", f"{path}/add?wait=true", json={"documents": [document]})
    assert added.status_code == 200, added.text
    as_alice = enforced.credentials["alice"]
    for person, admitted in (("alice", False), ("carol", False), ("dave", True)):
        found = enforced.ask(person, "POST", f"{path}/search", json={"query": "vault"}, credential=as_alice)
        assert found.status_code == 200, found.text
        assert ("4711" in found.text) is admitted, person


def test_chat_answers_from_what_the_credential_opens(enforced: House, handbook: str) -> None:
    messages = [{"role": "user", "content": "How long is the notice of termination?"}]
    bob = enforced.refusal("bob", handbook)
    for named, statuses in ((None, {"alice": 200, "bob": 200}), (handbook, {"alice": 200, "bob": bob})):
        body: dict[str, Any] = {"model": "extractive", "messages": messages}
        if named:
            body["tools"] = [{"type": "file_search", "vector_store_ids": [named]}]
        for person, status in statuses.items():
            answer = enforced.ask(person, "POST", "/v1/chat/completions", json=body)
            assert answer.status_code == status, (person, named, answer.text)
            assert ("thirty days" in answer.text) is (person == "alice")


def test_what_milvus_has_is_neither_overwritten_nor_dropped_with_a_failed_creation(enforced: House) -> None:
    """A collection of Milvus's that is not ours keeps its rows, whoever asks for its name."""
    name = f"{enforced.server.prefix}payroll"
    client = enforced.server.client()
    client.create_collection(name, dimension=4)
    bob = 409 if enforced.refusal("bob", name) == 403 else 403
    for person, status in (("alice", 409), ("bob", bob), ("master", 403)):
        made = enforced.ask(person, "POST", "/v1/collections/new", json={"name": name})
        assert made.status_code == status, (person, made.text)
    assert client.has_collection(name)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": "with-a-dash"}, "name"),
        ({"name": "1st"}, "name"),
        ({"name": "ünïcode"}, "name"),
        ({"name": "granted", "access": {"query": ["*"]}}, "access"),
    ],
)
def test_what_milvus_cannot_have_is_refused_with_the_reason(
    enforced: House, body: dict[str, Any], param: str
) -> None:
    refused = enforced.ask("alice", "POST", "/v1/collections/new", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)


def test_dropping_is_done_in_milvus_as_the_caller(enforced: House) -> None:
    name = f"{enforced.server.prefix}short_lived"
    assert enforced.ask("alice", "POST", "/v1/collections/new", json={"name": name}).status_code == 201
    assert enforced.server.client().has_collection(name)
    refused = enforced.ask("bob", "DELETE", f"/v1/collections/{name}").status_code
    assert refused == enforced.refusal("bob", name)
    assert enforced.server.client().has_collection(name)
    assert enforced.ask("alice", "DELETE", f"/v1/collections/{name}").status_code == 200
    assert not enforced.server.client().has_collection(name)
    assert enforced.ask("alice", "GET", f"/v1/collections/{name}").status_code == 404


def test_the_log_holds_no_credential_and_no_answer_the_servers_address(
    enforced: House, handbook: str
) -> None:
    for credential in enforced.credentials.values():
        assert credential not in enforced.proxy.log
        assert credential.partition(":")[2] not in enforced.proxy.log
    assert len(enforced.answers) > 50
    address = enforced.server.uri.partition("://")[2]
    for text in enforced.answers:
        assert address not in text


def test_an_unreachable_server_is_503(tmp_path: Path, milvus: Server) -> None:
    settings = {"rights": "milvus"}
    with house(tmp_path, milvus, settings, uri="http://127.0.0.1:9") as place:
        for method, path in (("GET", "/v1/collections/x"), ("POST", "/v1/collections/new")):
            answer = place.ask("alice", method, path, json={"name": "x"}, credential="alice:password")
            assert answer.status_code == 503, answer.text
            assert answer.headers["Retry-After"]
            assert "127.0.0.1" not in answer.text
        # who sends no credential has no rights there, whether it answers or not
        assert place.ask("alice", "GET", "/v1/collections/x").status_code == 404
        assert place.names("alice") == set()
