"""Every route x every identity x own and others' documents, as docs/rights.md says, on a real proxy.

The same for tools and chat: nobody gets by chat what search refuses.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.support.proxy import MASTER_KEY
from tests.support.rights_open import open_routes
from tests.support.rights_probe import NOBODYS_COLLECTION, chat_options, check, request
from tests.support.rights_proxy import Matrix, greedy_calls
from tests.support.rights_stage import (
    CLOSED_TEXT,
    HIDDEN_NAME,
    HIDDEN_TEXT,
    INSIDER,
    LOCAL,
    LOCALS,
    NAME,
    OPEN_TEXT,
    OWN_TEXT,
    OWNER,
    PARTNER,
    QUESTION,
    READERS,
    Stage,
)
from tests.support.rights_table import CHAT, IDENTITIES, Case, Identity, Row, cases, rows

WAYS = ("file_search", "rag object", "header")
SIGNED_IN = [identity for identity in IDENTITIES if identity != "none"]


def test_every_route_has_a_row_and_every_row_a_route(
    matrix: Matrix, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        of_routes, of_chat = len(cases(chat=False)), len(cases(chat=True))
        sys.stdout.write(f"rights matrix: {of_routes} cases of routes, twice {of_chat} of chat\n")
    real = {(route["method"], route["path"]) for route in matrix.routes}
    named = {(row.method, row.route) for row in rows() if row.route != CHAT}
    assert named | {(route.method, route.route) for route in open_routes()} == real


def test_every_row_has_its_own_request(matrix: Matrix) -> None:
    named = [(row.method, row.route, row.case, row.document) for row in rows()]
    assert len(set(named)) == len(named)


def test_every_route_depends_on_a_sign_in_but_health_and_those_to_sign_in(matrix: Matrix) -> None:
    unasked = {route["path"] for route in matrix.routes if not route["authenticated"]}
    assert unasked == {"/health/collections", *(route.route for route in open_routes())}


@pytest.mark.parametrize("case", cases(chat=False), ids=str)
def test_a_route_answers_each_identity_as_the_table_says(on: Stage, case: Case) -> None:
    asked = request(on, case)
    check(on, case, asked)
    if "{collection}" in case.row.route and case.row.method == "GET":
        check(on, case, replace(asked, names={**asked.names, "collection": NAME}))


HIDING = [row for row in rows() if "{collection}" in row.route]


@pytest.mark.parametrize("row", HIDING, ids=str)
@pytest.mark.parametrize("identity", SIGNED_IN)
def test_a_hidden_collection_is_refused_word_for_word_as_one_that_does_not_exist(
    on: Stage, row: Row, identity: Identity
) -> None:
    case = Case(row, "stranger")  # with no right to it, everybody is a stranger
    asked = request(on, case)
    names = {**asked.names, "document": on.hidden_document["id"]}
    answers = [
        replace(asked, names={**names, "collection": ref}).send(on.client(identity))
        for ref in (on.hidden, HIDDEN_NAME, NOBODYS_COLLECTION)
    ]
    assert [answer.status_code for answer in answers] == [404] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert answers[0].json()["error"]["code"] == "collection_not_found"


# What the lists hold


@pytest.mark.parametrize("identity", SIGNED_IN)
def test_the_list_of_collections_shows_each_with_the_callers_rights(on: Stage, identity: Identity) -> None:
    listed = on.ok(identity, "GET", "/v1/collections?limit=1000")["data"]
    rights = {
        "discover": ["discover"],
        "manage": ["discover", "query", "add", "manage"],
        "master": ["discover", "query", "add", "manage"],
    }
    found = {view["name"]: view["permissions"] for view in listed}
    assert found.get(NAME) == rights.get(identity)
    assert all(view["access"] is None for view in listed), "grants are shown on the collection itself only"
    assert (found == {}) == (identity not in rights)


@pytest.mark.parametrize("identity", ["query", "add", "member", "manage", "master"])
def test_the_list_of_documents_is_what_the_caller_may_see(on: Stage, identity: Identity) -> None:
    path = f"/v1/collections/{on.collection}/documents?limit=1000"
    shown = {view["id"] for view in on.ok(identity, "GET", path)["data"]}
    of_the_stage = {view["id"]: kind for kind, view in on.documents.items()}
    of_the_stage |= {view["id"]: kind for (_, kind), view in on.own.items()}
    own = {view["id"] for (who, _), view in on.own.items() if who == identity}
    readable = {ref for ref, kind in of_the_stage.items() if kind in ("open", "own")}
    expected = {
        "query": readable,
        "add": own,
        "member": readable | own,
        "manage": set(of_the_stage),
        "master": set(of_the_stage),
    }[identity]
    assert shown & set(of_the_stage) == expected


def test_only_who_manages_sees_the_grants(on: Stage) -> None:
    for identity in ("discover", "manage", "master"):
        view = on.ok(identity, "GET", f"/v1/collections/{on.collection}")
        assert (view["access"] is not None) == (identity != "discover")


# Search, tools and chat


def found(on: Stage, who: str) -> str:
    body = {"query": QUESTION, "max_num_results": 50}
    return json.dumps(on.ok(who, "POST", f"/v1/collections/{on.collection}/search", json=body))


def test_those_who_may_query_find_the_open_documents_and_only_insiders_the_closed_ones(on: Stage) -> None:
    for identity in READERS:
        assert OPEN_TEXT in found(on, identity)
        assert CLOSED_TEXT not in found(on, identity)
    assert CLOSED_TEXT in found(on, INSIDER)


@pytest.mark.parametrize("identity", ["query", "manage", "master"])
def test_a_filter_that_names_a_closed_document_finds_nothing(on: Stage, identity: Identity) -> None:
    closed = on.documents["closed"]
    named = {"type": "eq", "key": "document_id", "value": closed["id"]}
    negated = {"type": "or", "filters": [named, {"type": "ne", "key": "document_id", "value": "x"}]}
    path = f"/v1/collections/{on.collection}/search"
    assert on.ok(INSIDER, "POST", path, json={"query": QUESTION, "filters": named})["data"]
    assert on.ok(identity, "POST", path, json={"query": QUESTION, "filters": named})["data"] == []
    rest = on.ok(identity, "POST", path, json={"query": QUESTION, "filters": negated, "max_num_results": 50})
    assert CLOSED_TEXT not in json.dumps(rest)


def test_an_insider_reads_the_closed_document_everywhere(on: Stage) -> None:
    """Without this, the refusals of the matrix would prove nothing."""
    closed = on.documents["closed"]["id"]
    content = on.client(INSIDER).get(f"/v1/collections/{on.collection}/documents/{closed}/content")
    assert CLOSED_TEXT in content.text
    for arguments in ({"query": QUESTION}, {"query": QUESTION, "collections": [NAME]}):
        body = {"name": "search_documents", "arguments": arguments}
        assert CLOSED_TEXT in json.dumps(on.ok(INSIDER, "POST", "/v1/tools", json=body))
    body = {"name": "read_document", "arguments": {"document_id": closed}}
    assert CLOSED_TEXT in json.dumps(on.ok(INSIDER, "POST", "/v1/tools", json=body))
    for stream in (False, True):
        for way in ("the model asks", *WAYS):
            options = chat_options(way, NAME, stream=stream)
            options["json"]["messages"][0]["content"] = f"What is the code word of {CLOSED_TEXT}?"
            assert CLOSED_TEXT in on.client(INSIDER).post(CHAT, **options).text.replace('" "', "")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
@pytest.mark.parametrize("case", cases(chat=True), ids=str)
def test_chat_answers_each_identity_as_the_table_says(on: Stage, case: Case, stream: bool) -> None:
    asked = request(on, case)
    options = chat_options(case.row.case, "{collection}", stream=stream)
    answer = check(on, case, replace(asked, options=options))
    if answer.status_code == 200:
        assert (OPEN_TEXT in answer.text or OWN_TEXT in answer.text) == (case.identity in READERS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("identity", SIGNED_IN)
def test_chat_refuses_a_hidden_collection_as_one_that_does_not_exist(
    on: Stage, identity: Identity, way: str
) -> None:
    for stream in (False, True):
        answers = [
            on.client(identity).post(CHAT, **chat_options(way, ref, stream=stream))
            for ref in (on.hidden, HIDDEN_NAME, NOBODYS_COLLECTION)
        ]
        assert [answer.status_code for answer in answers] == [404] * 3
        assert answers[0].json() == answers[1].json() == answers[2].json()


@pytest.mark.parametrize("model", ["greedy", "profiled"])
@pytest.mark.parametrize("form", ["plain", "streamed", "events"])
@pytest.mark.parametrize("identity", [*SIGNED_IN, INSIDER])
def test_a_model_that_tries_everything_gets_no_further_than_its_user(
    on: Stage, identity: str, form: str, model: str
) -> None:
    messages = [{"role": "user", "content": json.dumps(greedy_calls(on))}]
    body = {"model": model, "stream": form != "plain", "messages": messages}
    headers = {"x-openwebui-chat-id": "1"} if form == "events" else {}
    answer = on.client(identity).post(CHAT, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert ('"event"' in answer.text) == (form == "events")
    if identity == INSIDER:
        assert CLOSED_TEXT in answer.text
        return
    assert {word for word in on.unreadable(identity) if word in answer.text} == set()
    assert (OPEN_TEXT in answer.text) == (identity in READERS)


def test_litellms_other_routes_to_a_model_are_no_way_around(on: Stage) -> None:
    said = json.dumps(greedy_calls(on))
    messages = [{"role": "user", "content": said}]
    chat: dict[str, Any] = {"model": "greedy", "messages": messages}
    bodies: dict[str, dict[str, Any]] = {
        "/chat/completions": chat,
        "/openai/deployments/greedy/chat/completions": chat,
        "/engines/greedy/chat/completions": chat,
        "/v1/messages": {**chat, "max_tokens": 1000},
        "/v1/responses": {"model": "greedy", "input": said},
        "/v1/completions": {"model": "greedy", "prompt": said},
    }
    for path, body in bodies.items():
        for identity in ("stranger", "query"):
            answer = on.client(identity).post(path, json=body)
            assert {word for word in on.unreadable(identity) if word in answer.text} == set()
        if "chat" in path:
            assert OPEN_TEXT in answer.text, f"{path} is searched for as well"
            refused = on.client("query").post(path, json={**body, "rag": {"collections": [on.hidden]}})
            assert refused.status_code == 404


def test_many_tool_calls_at_once_are_each_checked(on: Stage) -> None:
    calls = [
        {"id": f"call_{number}", "type": "function", "function": call}
        for number, call in enumerate(greedy_calls(on))
    ]
    for identity in SIGNED_IN:
        answer = on.client(identity).post("/v1/tools", json={"tool_calls": calls})
        assert answer.status_code == 200
        assert {word for word in on.unreadable(identity) if word in answer.text} == set()


def test_health_shows_its_details_to_admins_only(on: Stage) -> None:
    for identity in IDENTITIES:
        view = on.client(identity).get("/health/collections").json()
        assert ("details" in view) == (identity == "master")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
def test_the_cache_gives_nobody_what_they_may_not_read(on: Stage, stream: bool) -> None:
    """The proxy has LiteLLM's cache of responses on."""
    options = chat_options("file_search", NAME, stream=stream)
    both = [view["id"] for view in on.documents.values()]
    arguments = {"query": "cache", "filters": {"type": "in", "key": "document_id", "value": both}}
    greedy = json.dumps([{"name": "search_documents", "arguments": arguments}])
    options["json"] |= {"model": "greedy", "messages": [{"role": "user", "content": greedy}]}
    answers = [on.client(who).post(CHAT, **options).text for who in (INSIDER, "query", INSIDER, "manage")]
    ids = [re.findall(r'"id": ?"(chatcmpl-[^"]+)"', answer)[0] for answer in answers]
    assert ids[0] == ids[2], "who may read the same gets the answer that is there"
    assert ids[1] == ids[3]
    assert ids[0] != ids[1]
    assert [CLOSED_TEXT in answer for answer in answers] == [True, False, True, False]
    assert all(OPEN_TEXT in answer for answer in answers)


# Ways around


def test_who_did_not_sign_in_is_told_so_and_not_what_is_wrong_with_the_body(on: Stage) -> None:
    for row in rows():
        if row.method in ("POST", "PATCH") and row.route != CHAT:
            asked = request(on, Case(row, "none"))
            wrong = replace(asked, options={"json": {"no such field": 1}})
            assert wrong.send(on.client("none")).status_code == 401


def test_identity_comes_from_the_token_and_not_from_what_a_request_says(on: Stage) -> None:
    claims = {"user": INSIDER, "groups": ["insiders"], "principal": {"source": "local", "username": INSIDER}}
    tool = {"name": "search_documents", "arguments": {"query": QUESTION}, "metadata": claims}
    assert CLOSED_TEXT not in json.dumps(on.ok("query", "POST", "/v1/tools", json=tool))
    options = chat_options("rag object", NAME)
    options["json"] |= {"user": f"local/{INSIDER}", "metadata": claims}
    headers = {"x-litellm-end-user-id": INSIDER, "x-openwebui-user-name": INSIDER}
    answer = on.client("query").post(CHAT, json=options["json"], headers=headers)
    assert answer.status_code == 200, answer.text
    assert CLOSED_TEXT not in answer.text


def test_the_same_bytes_as_a_closed_document_are_a_new_document_to_those_who_may_not_read_it(
    on: Stage,
) -> None:
    document = {
        "markdown": f"The code word is {CLOSED_TEXT}-same.",
        "filename": "same.md",
        "acl": [LOCALS.insiders],
    }
    path = f"/v1/collections/{on.collection}/add"
    ids = [
        on.ok(who, "POST", path, json={"documents": [document]})["data"][0]["id"]
        for who in (OWNER, OWNER, "add", "member", "manage")
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 4


def test_the_cursor_of_a_list_tells_nothing_of_what_is_hidden(on: Stage) -> None:
    answers = [
        on.client("query").get(f"/v1/collections/{on.collection}/documents", params={"after": after})
        for after in (on.documents["closed"]["id"], "file-00000000000000000000000000000000")
    ]
    assert answers[0].status_code == 404
    assert answers[0].json() == answers[1].json()
    listed = [
        on.client("stranger").get("/v1/collections", params={"after": after})
        for after in (on.collection, NOBODYS_COLLECTION)
    ]
    assert listed[0].status_code == 400
    assert listed[0].json() == listed[1].json()


def test_equal_names_of_two_sources_are_two_people(on: Stage) -> None:
    """partner/query is not local/query, nor is the group insiders of the one that of the other."""
    for who in ("query", "add", INSIDER, OWNER):
        client = on.client(f"partner/{who}")
        assert client.get("/v1/collections").json()["data"] == []
        answer = client.post(f"/v1/collections/{NAME}/search", json={"query": QUESTION})
        assert answer.status_code == 404
    shared = on.create("matrix-shared", {"query": ["*"], "add": ["*"]})
    mine = on.upload(INSIDER, "own closed", CLOSED_TEXT, "shared", shared)
    on.wait(shared)
    path = f"/v1/collections/{shared}/documents/{mine['id']}"
    assert on.client(INSIDER).get(path).status_code == 200
    for method in ("GET", "PATCH", "DELETE"):
        body = {"metadata": {"year": 1}} if method == "PATCH" else None
        assert on.client(f"partner/{INSIDER}").request(method, path, json=body).status_code == 404
    search = {"query": QUESTION}
    assert on.ok(INSIDER, "POST", f"/v1/collections/{shared}/search", json=search)["data"]
    assert on.ok(f"partner/{INSIDER}", "POST", f"/v1/collections/{shared}/search", json=search)["data"] == []


def test_a_right_that_is_taken_away_is_gone_at_once(on: Stage) -> None:
    lent = on.create("matrix-lent", {"query": ["user:local/stranger"]})
    document = on.upload(OWNER, "open", "lent", "lent", lent)
    on.wait(lent)

    def texts() -> Any:
        body = {"query": QUESTION}
        answer: httpx.Response = on.client("stranger").post(f"/v1/collections/{lent}/search", json=body)
        return answer.json()["data"] if answer.is_success else answer.status_code

    assert texts()
    path = f"/v1/collections/{lent}/documents/{document['id']}"
    on.ok(OWNER, "PATCH", path, json={"acl": [LOCALS.insiders]})
    assert texts() == [], "the passages are not yet written anew"
    access = {"query": [LOCALS.insiders], "manage": [LOCALS.subject(OWNER)]}
    on.ok(OWNER, "PATCH", f"/v1/collections/{lent}", json={"access": access})
    assert texts() == 404


# The last of this file, so that all the requests above have been logged.


def test_no_text_of_a_document_no_question_and_no_key_is_in_the_log(matrix: Matrix) -> None:
    log = matrix.log_file.read_text(encoding="utf-8", errors="replace")
    keys = [entry["key"] for entry in (*LOCAL, *PARTNER)] + [MASTER_KEY]
    assert {
        word for word in (OPEN_TEXT, OWN_TEXT, CLOSED_TEXT, HIDDEN_TEXT, "code word", *keys) if word in log
    } == set()
