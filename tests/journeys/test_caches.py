"""Answers from documents in LiteLLM's response cache, through the real proxy: hits, and never a wrong one."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.support.cached_answers import ASKED_ONCE, FOR_ALICE, House, Shelf, a_shelf, content, litellm_with
from tests.support.library import library
from tests.support.quickstart import until
from tests.support.scripted_upstream import scripted_upstream

COSTS = "costs.log"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with scripted_upstream() as upstream:
        config = litellm_with(upstream, {"type": "local"})
        config["litellm_settings"]["callbacks"].append("tests.support.cost_log.costs")
        folder = tmp_path_factory.mktemp("caches")
        with library(folder, config, environment={"COST_LOG": str(folder / COSTS)}) as running:
            yield House(running, upstream)


@pytest.fixture
def open_shelf(house: House) -> Iterator[Shelf]:
    with a_shelf(house.library) as made:
        yield made


@pytest.fixture
def shelf(open_shelf: Shelf) -> Shelf:
    open_shelf.documents["alice"] = open_shelf.add(FOR_ALICE, acl=["user:local/alice"])
    return open_shelf


def sources(answer: httpx.Response) -> list[str]:
    """The documents that a plain answer cites."""
    message = answer.json()["choices"][0]["message"]
    return [found["id"] for found in message["provider_specific_fields"]["search_results"]]


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_question_of_the_same_person_is_answered_from_the_cache(
    house: House, shelf: Shelf, stream: bool
) -> None:
    mark, question = house.question()
    first, again = (house.ask("alice", question, stream=stream, **shelf.rag) for _ in range(2))
    assert house.rounds(mark) == ASKED_ONCE
    assert content(first) == content(again) == "It says so [1]."
    if not stream:
        first_message, again_message = (a.json()["choices"][0]["message"] for a in (first, again))
        assert again_message == first_message, "with the same sources, at the same places"


@pytest.mark.parametrize("stream", [False, True])
def test_what_comes_from_the_cache_costs_nothing_and_is_logged_as_such(
    house: House, shelf: Shelf, stream: bool
) -> None:
    mark, question = house.question()
    for _ in range(2):
        house.ask("alice", question, stream=stream, **shelf.rag)
    log = house.library.proxy.log_file.parent / COSTS

    def calls() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if mark in line["messages"]]

    until(lambda: len(calls()) == 4, "all rounds are logged")
    assert sorted((bool(call["hit"]), call["cost"] > 0) for call in calls()) == [
        (False, True),
        (False, True),
        (True, False),
        (True, False),
    ]
    assert {call["user"] for call in calls()} == {"local/alice"}


def test_people_who_may_read_the_same_share_an_answer(house: House, open_shelf: Shelf) -> None:
    mark, question = house.question()
    answers = [house.ask(person, question, **open_shelf.rag) for person in ("alice", "bob")]
    assert house.rounds(mark) == ASKED_ONCE
    assert sources(answers[0]) == sources(answers[1]) == [open_shelf.documents["all"]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("people", [("alice", "bob"), ("bob", "alice")])
def test_nobody_gets_an_answer_from_documents_that_they_may_not_read(
    house: House, shelf: Shelf, people: tuple[str, str], stream: bool
) -> None:
    mark, question = house.question()
    for person in people:
        house.ask(person, question, stream=stream, **shelf.rag)
    assert house.rounds(mark) == ASKED_ONCE * 2
    given = [json.dumps(asked.messages) for asked in house.upstream.of(mark) if asked.round == 1]
    assert [FOR_ALICE in messages for messages in given] == [person == "alice" for person in people]


def change(**patch: Any) -> Callable[[Shelf], object]:
    def event(shelf: Shelf) -> object:
        return shelf.request("PATCH", f"/documents/{shelf.documents['all']}", json=patch)

    return event


def replace(shelf: Shelf) -> object:
    return shelf.add("The notice period is forty days.", id=shelf.documents["all"])


def expire(shelf: Shelf) -> object:
    document = f"/documents/{shelf.documents['all']}"
    shelf.request("PATCH", document, json={"expires_at": time.time() + 1})

    def gone() -> bool:
        with shelf.library.http("alice") as http:
            return http.get(f"/v1/collections/{shelf.id}{document}").status_code == 404

    return until(gone, "the document has expired")


EVENTS: dict[str, Callable[[Shelf], object]] = {
    "an upload": lambda shelf: shelf.add("The notice period of apprentices is ten days."),
    "a replacement": replace,
    "a deletion": lambda shelf: shelf.request("DELETE", f"/documents/{shelf.documents['all']}"),
    "an expiry": expire,
    "an audience": change(acl=["user:local/alice"]),
    "attributes": change(metadata={"year": 2025}),
    "a grant": lambda shelf: shelf.request(
        "PUT", "/access", json={"query": [], "manage": ["user:local/alice"]}
    ),
    "a description": lambda shelf: shelf.request("PATCH", "", json={"description": "About notice periods."}),
}


@pytest.mark.parametrize("name", EVENTS)
def test_after_a_change_of_what_may_be_read_the_model_is_asked_anew(
    house: House, shelf: Shelf, name: str
) -> None:
    """Without naming the collection: so bob may ask, too, when he may no longer query it."""
    mark, question = house.question()
    everything: dict[str, Any] = {"rag": {}}
    for _ in range(2):
        house.ask("bob", question, **everything)
    assert house.rounds(mark) == ASKED_ONCE
    EVENTS[name](shelf)
    house.ask("bob", question, **everything)
    assert house.rounds(mark).count(0) == 2, "its first round, too, which nothing was found for yet"


def key(answer: httpx.Response) -> str:
    """Of the cache's entry, as LiteLLM tells it with every answer that came from there."""
    return answer.headers["x-litellm-cache-key"]


@pytest.mark.parametrize(
    "body",
    [
        lambda key: {"cache_key": key},
        lambda key: {"cache": {"namespace": key.rpartition(":")[0]}},
        lambda key: {"metadata": {"redis_namespace": key.rpartition(":")[0]}},
        lambda key: {"litellm_params": {"preset_cache_key": key}},
    ],
    ids=["key", "namespace", "metadata", "preset"],
)
@pytest.mark.parametrize("with_documents", [True, False])
def test_nobody_gets_anothers_answer_by_the_name_of_its_entry(
    house: House, shelf: Shelf, body: Callable[[str], dict[str, Any]], with_documents: bool
) -> None:
    _, question = house.question()
    answers = [house.ask("alice", question, **shelf.rag) for _ in range(2)]
    assert content(answers[1]) == "It says so [1]."
    foreign, other = house.question()
    rag = shelf.rag if with_documents else {}
    got = house.ask("bob", other, **rag, **body(key(answers[1])))
    assert house.rounds(foreign)[:1] == [0], "the model was asked"
    if with_documents:
        assert shelf.documents["alice"] not in got.text
    house.ask("alice", question, **shelf.rag)
    again = house.ask("alice", question, **shelf.rag)
    assert content(again) == content(answers[1]), "and what alice gets is as it was"


def test_a_client_may_ask_for_an_answer_that_is_not_from_the_cache(house: House, shelf: Shelf) -> None:
    mark, question = house.question()
    for cache in ({}, {"no-cache": True}, {"no-cache": True, "namespace": "own"}):
        house.ask("alice", question, cache=cache, **shelf.rag)
    assert house.rounds(mark) == ASKED_ONCE * 3


def test_a_client_may_ask_that_its_answer_is_not_kept(house: House, shelf: Shelf) -> None:
    mark, question = house.question()
    for _ in range(2):
        house.ask("alice", question, cache={"no-store": True}, **shelf.rag)
    assert house.rounds(mark) == ASKED_ONCE * 2


def test_requests_that_litellms_key_does_not_tell_apart_are_told_apart(house: House, shelf: Shelf) -> None:
    mark, question = house.question()
    for top_k in (10, 20, 10):
        house.ask("alice", question, extra_body={"top_k": top_k}, **shelf.rag)
    assert house.rounds(mark) == ASKED_ONCE * 2


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_the_other_apis_answer_from_the_cache_as_well(
    house: House, shelf: Shelf, path: str, stream: bool
) -> None:
    mark, question = house.question()
    words: dict[str, Any] = {"input": question}
    if path == "/v1/messages":
        words = {"messages": [{"role": "user", "content": question}], "max_tokens": 100}
    for person in ("alice", "alice", "bob"):
        answer = house.post(person, path, {"model": "bridged", "stream": stream, **words, **shelf.rag})
        assert "says so" in "".join(re.findall(r'"(?:text|delta)": ?"(.*?)"', answer.text)), answer.text
    rounds = house.rounds(mark)
    assert rounds.count(1) == 2, rounds
