"""People ask in a real Open WebUI, signed in by a real Keycloak, and see what our proxy answers."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

import pytest

from tests.live.ollama import ollama
from tests.live.open_webui import House, artefacts, house
from tests.live.open_webui_page import Chat, person
from tests.live.open_webui_upstream import (
    CLOCK,
    FOLLOW_UP,
    NAME,
    NOTHING,
    QUESTION,
    TAG,
    TITLE,
    WITH_CLOCK,
    text_of,
    tool_names,
)
from tests.live.tiny_ollama.model import CITED

__all__ = ["artefacts", "house", "ollama"]

REVENUE = "Annual report 2025 > Financial results > Revenue (page 2)"
OUTLOOK = "Annual report 2025 > Outlook (page 3)"
LEAVE_S = 10.0


class SignIn(Protocol):
    def __call__(self, name: str) -> AbstractAsyncContextManager[Chat]: ...


@pytest.fixture
def signed_in(house: House, tmp_path: Path) -> SignIn:
    """A person in front of Open WebUI; the model behind it has forgotten what came before."""
    house.upstream.reset()
    return lambda name: person(name, house.web.url, tmp_path, house.artefacts)


async def test_an_answer_streams_and_its_source_opens_at_the_page(house: House, signed_in: SignIn) -> None:
    async with signed_in("alice") as alice:
        await alice.choose(NAME)
        await alice.ask(QUESTION)
        await alice.shows("87.6 million euros in 2025 [1]")
        half = await alice.text()
        assert "Found " in half
        assert "passages in 2 documents" in half
        assert "93 and 97" not in half, "the model has not said it yet"
        await alice.screenshot("streaming")
        house.upstream.go_on.set()
        await alice.shows("93 and 97 million euros")
        await alice.shows("2 Sources")
        await alice.shows(FOLLOW_UP)

        passage = await alice.open_source(REVENUE)
        assert "(page 2)" in " ".join(passage.split())
        assert "Measuring heads grew fastest" in passage
        assert "Total revenue" in passage
        await alice.screenshot("source")
        assert await alice.origins() == {house.web.url}, "nobody outside learns what was read"

        link = await alice.source_link()
        assert link.startswith(f"{house.proxy.url}/v1/collections/")
        assert link.endswith("/content#page=2")
        await alice.page.open(link)
        await alice.page.until("document.contentType == 'application/pdf'")
        assert await alice.page.evaluate("location.href") == link


async def test_a_chat_is_stored_with_its_sources_under_a_title_for_which_nothing_was_searched(
    house: House, signed_in: SignIn
) -> None:
    house.upstream.go_on.set()
    async with signed_in("alice") as alice:
        await alice.choose(NAME)
        await alice.ask(QUESTION)
        await alice.shows(FOLLOW_UP)
        stored = await alice.stored()
    assert (stored["title"], stored["meta"]["tags"]) == (TITLE, [TAG])
    [answer] = [one for one in stored["chat"]["history"]["messages"].values() if one["role"] == "assistant"]
    assert "in 2025 [1]. " in answer["content"]
    history = [status["description"] for status in answer["statusHistory"]]
    assert QUESTION in history[0]
    assert history[-1].startswith("Found ")
    assert [source["source"]["name"] for source in answer["sources"]] == [REVENUE, OUTLOOK]
    assert [source["metadata"][0]["page"] for source in answer["sources"]] == [1, 2]
    assert not [one for source in answer["sources"] for one in source["metadata"] if "://" in one["source"]]

    assert len(house.upstream.background) >= 3, "title, tags and follow-up questions"
    for body in house.upstream.background:
        assert not tool_names(body)
        assert [message["role"] for message in body["messages"]] == ["user"]
    first, second = house.upstream.questions
    assert {"search_documents", CLOCK} <= tool_names(first), "its own tools are offered beside ours"
    assert "87.6" in text_of(second["messages"][-1])


async def test_a_title_is_made_without_a_search_also_where_the_connection_names_collections(
    house: House, signed_in: SignIn
) -> None:
    house.upstream.go_on.set()
    async with signed_in("alice") as alice:
        await alice.choose(f"finance.{NAME}")
        await alice.ask(QUESTION)
        await alice.shows("2 Sources")
        await alice.shows(FOLLOW_UP)
    assert house.upstream.background
    assert not [body for body in house.upstream.background if tool_names(body)]


async def test_a_round_that_calls_our_tool_and_open_webuis_ends_in_a_cited_answer(
    house: House, signed_in: SignIn
) -> None:
    house.upstream.go_on.set()
    async with signed_in("alice") as alice:
        await alice.choose(NAME)
        await alice.ask(WITH_CLOCK)
        await alice.shows("2 Sources")
        await alice.screenshot("mixed-tools")
        assert "87.6 million euros" in await alice.text()
    results = [one for one in house.upstream.questions[-1]["messages"] if one["role"] == "tool"]
    calls = [
        call["function"]["name"]
        for one in house.upstream.questions[-1]["messages"]
        for call in one.get("tool_calls") or ()
    ]
    assert sorted(calls) == sorted([CLOCK, "search_documents"])
    assert len(results) == 2


async def test_stop_ends_the_call_of_the_model(house: House, signed_in: SignIn) -> None:
    async with signed_in("alice") as alice:
        await alice.choose(NAME)
        await alice.ask(QUESTION)
        await alice.shows("87.6 million euros")
        assert not house.upstream.left.is_set()
        await alice.stop()
        assert await asyncio.to_thread(house.upstream.left.wait, LEAVE_S)
        await alice.screenshot("stopped")
        assert "93 and 97" not in await alice.text()


async def test_an_ended_sign_in_is_told_in_words_and_to_sign_in_again_helps(
    house: House, signed_in: SignIn
) -> None:
    house.upstream.go_on.set()
    async with signed_in("carol") as carol:
        await carol.choose(NAME)
        house.realm.admin.user_logout(house.realm.user_id("carol"))
        await carol.ask(QUESTION)
        await carol.shows("Sign in")
        await carol.screenshot("sign-in-ended")
        assert not house.upstream.questions

        await carol.sign_out()
        await carol.sign_in("carol")
        await carol.choose(NAME)
        await carol.ask(QUESTION)
        await carol.shows(NOTHING)


async def test_a_collection_that_one_may_not_query_is_told_in_words(house: House, signed_in: SignIn) -> None:
    async with signed_in("bob") as bob:
        await bob.choose(f"finance.{NAME}")
        await bob.ask(QUESTION)
        await bob.shows("right `query`")
        await bob.screenshot("forbidden")
    assert not house.upstream.questions


async def test_chat_answers_from_what_the_person_may_query_only(house: House, signed_in: SignIn) -> None:
    async with signed_in("bob") as bob:
        await bob.choose("extractive")
        await bob.ask("How many days of paid annual leave are there?")
        await bob.shows("28 days")
        await bob.shows("Source")
        await bob.choose("extractive")
        await bob.ask(QUESTION)
        await bob.shows(NOTHING)
        assert "87.6" not in await bob.text()


async def test_a_model_of_a_real_ollama_answers_from_documents(house: House, signed_in: SignIn) -> None:
    if isinstance(house.ollama, str):
        pytest.skip(house.ollama)
    async with signed_in("bob") as bob:
        await bob.choose("ollama")
        await bob.ask("What is the notice period? Search the documents.")
        await bob.page.until("!!document.querySelector('#speak-button, [id^=speak-button]')")
        await bob.screenshot("ollama")
        if house.ollama.tiny:
            assert "".join(CITED)[:20] in await bob.text()
            await bob.shows("1 Source")
