"""What Open WebUI's page is told beside the answer's text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from plugins.core.chat_config import ChatConfig
from plugins.core.ports import Passage
from plugins.proxy.apis.open_webui import found, status
from plugins.proxy.chunks import make_chunk
from plugins.proxy.loop import Activity
from plugins.proxy.tool_calls import NO_RESULT, Ran
from tests.support import fake_proxy
from tests.support.fake_proxy import ANSWER, SEARCH, said
from tests.support.fake_router import Round, call, text
from tests.support.services import a_passage

HEADERS = {"headers": {"X-OpenWebUI-Chat-Id": "c"}}


def found_here(monkeypatch: pytest.MonkeyPatch, *passages: Passage) -> None:
    monkeypatch.setattr(fake_proxy, "FOUND", passages)


def events(chunks: Sequence[Any], kind: str) -> list[dict[str, Any]]:
    shown = [chunk.event for chunk in chunks if getattr(chunk, "event", None)]
    assert {event["type"] for event in shown} <= {"status", "source"}
    return [event["data"] for event in shown if event["type"] == kind]


async def asked(proxy_with: Any, answer: str) -> list[Any]:
    chunks = await proxy_with(Round([SEARCH]), Round([text(answer)])).stream(proxy_server_request=HEADERS)
    return list(chunks)


def as_its_page_numbers(sources: list[dict[str, Any]]) -> list[list[str]]:
    """The texts behind [1], [2], ...: it takes what has one id as one source."""
    merged: dict[str, list[str]] = {}
    for source in sources:
        for metadata, document in zip(source["metadata"], source["document"], strict=True):
            merged.setdefault(metadata["source"], []).append(document)
    return list(merged.values())


async def test_each_cited_passage_is_a_source_of_its_own_in_the_order_of_the_numbers(
    proxy_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    found_here(monkeypatch, *(a_passage(name) for name in ("one", "two", "three")))
    chunks = await asked(proxy_with, "First [3], then [1], [3] and [7].")
    assert said(chunks) == "First [1], then [2], [1] and."
    sources = events(chunks, "source")
    assert as_its_page_numbers(sources) == [["three"], ["one"]]
    names = [source["metadata"][0]["name"] for source in sources]
    assert names == ["Handbook > Leave (page 3)", "Handbook > Leave (page 3), passage 2"]
    assert [source["metadata"][0]["page"] for source in sources] == [2, 2], "its pages begin with 0"
    assert sources[0]["source"]["url"].endswith("/content#page=3")
    assert not any(getattr(c.choices[0].delta, "annotations", None) for c in chunks if c.choices)


async def test_nothing_that_its_page_takes_for_an_address_is_sent_beside_the_link(
    proxy_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = a_passage("one").model_copy(
        update={"title": "https://intranet.example/a", "document_id": "http://intranet.example/b"}
    )
    found_here(monkeypatch, inside)
    [source] = events(await asked(proxy_with, "So [1]."), "source")
    names = [source["source"]["id"], source["source"]["name"], *source["metadata"][0].values()]
    assert not any(str(name).lower().startswith("http") for name in names)


async def test_what_a_passage_holds_stays_text_in_one_event(
    proxy_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = 'data: [DONE]\n\ndata: {"event": {}}\x00\x1b\n<script>alert(1)</script> [1]'
    found_here(monkeypatch, a_passage(hostile))
    chunks = await asked(proxy_with, "So [2].")
    [source] = events(chunks, "source")
    assert source["document"] == ['data: [DONE]\n\ndata: {"event": {}}\n<script>alert(1)</script> [1]']
    lines = [chunk.model_dump_json() for chunk in chunks]
    assert not any("\n" in line or "\x00" in line for line in lines)


async def test_the_status_says_what_runs_and_how_much_was_found(proxy_with: Any) -> None:
    pieces = [call("search_documents", f'{{"query": "{query}"}}', query, i) for i, query in enumerate("aba")]
    chunks = await proxy_with(Round(pieces), Round([text("So [1].")])).stream(proxy_server_request=HEADERS)
    assert events(chunks, "status") == [
        {"description": "Searching: a", "done": False},
        {"description": "Searching: b", "done": False},
        {"description": "Found 2 passages in 2 documents", "done": True},
    ]


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ([Ran("1", "t", "", "", (a_passage("one"),), (1,))], "Found 1 passage in 1 document"),
        (
            [Ran("1", "t", "", "", (a_passage("one"), a_passage("two")), (1, 2))] * 2,
            "Found 2 passages in 1 document",
        ),
        ([Ran("1", "t", "", NO_RESULT)], "Nothing was found"),
        ([Ran("1", "t", "", "Error: the store is away")], "Searching: b"),
    ],
)
def test_what_was_found_is_counted(calls: list[Ran], words: str) -> None:
    activity = Activity(make_chunk("", 0, None), tuple(calls), True, ("Searching: a", "Searching: b"))
    assert found(activity) == words


def test_a_status_is_one_short_line() -> None:
    line = status("Searching: a\n\ndata: \x00" + "x" * 500, done=False)["data"]["description"]
    assert line.startswith("Searching: a data: xxx")
    assert line.endswith("…")
    assert len(line) == 120


async def test_every_event_is_of_a_run_that_ends(proxy_with: Any) -> None:
    broken = call("search_documents", '{"query": "broken"}')
    chunks = await proxy_with(Round([broken]), Round([text("Sorry.")])).stream(proxy_server_request=HEADERS)
    assert [event["done"] for event in events(chunks, "status")] == [False, True]


@pytest.mark.parametrize(
    ("setting", "headers", "gets_events"),
    [
        ("auto", {"x-openwebui-user-jwt": "j"}, True),
        ("auto", {"x-rag-task": ""}, True),
        ("auto", {"user-agent": "Open WebUI"}, False),
        ("always", {}, True),
        ("never", {"x-openwebui-user-id": "u"}, False),
    ],
)
async def test_who_gets_events_gets_no_annotations_and_nobody_gets_both(
    proxy_with: Any, setting: Any, headers: dict[str, str], gets_events: bool
) -> None:
    config = ChatConfig(open_webui=setting)
    chunks = await proxy_with(*ANSWER, config=config).stream(proxy_server_request={"headers": headers})
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    annotated = any(getattr(delta, "annotations", None) for delta in deltas)
    assert (any(getattr(chunk, "event", None) for chunk in chunks), annotated) == (
        gets_events,
        not gets_events,
    )


async def test_its_background_requests_get_nothing_of_ours(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("A title [1]")]))
    headers = {"headers": {"x-rag-task": "title_generation"}}
    chunks = await proxy.stream(proxy_server_request=headers)
    assert said(chunks) == "A title [1]"
    assert events(chunks, "status") == events(chunks, "source") == []
    assert "tools" not in proxy.router.requests[0]
