"""OpenAI's SDK and LiteLLM's as clients, without a line of their code changed.

The model is a stand-in that speaks OpenAI's API; proxy, documents and search are real.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import litellm
import openai
import pytest
from litellm.exceptions import AuthenticationError
from pydantic import BaseModel

from tests.support.library import CODE, COLLECTION, QUESTION, Library, key, library, litellm_config
from tests.support.upstream import ANSWER, STRUCTURED, Upstream, upstream

TIMEOUT_S = 60.0
ASKED: Any = {"model": "chat", "messages": [{"role": "user", "content": QUESTION}]}


class Notice(BaseModel):
    days: int
    filename: str


@pytest.fixture(scope="module")
def model() -> Iterator[Upstream]:
    with upstream() as server:
        yield server


@pytest.fixture(scope="module")
def house(model: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    params = {"model": "openai/stand-in", "api_base": model.url, "api_key": "x", "num_retries": 0}
    chat = {"model_name": "chat", "litellm_params": params, "model_info": {"mode": "chat", "rag": True}}
    folder = tmp_path_factory.mktemp("sdk")
    with library(folder, litellm_config([chat])) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_is_planned(model: Upstream) -> None:
    model.reset()


def client(house: Library, person: str = "alice", **options: Any) -> openai.OpenAI:
    http = httpx.Client(trust_env=False, timeout=TIMEOUT_S)
    given = {"api_key": key(person), "max_retries": 0, **options}
    return openai.OpenAI(base_url=house.base_url, http_client=http, **given)


def async_client(house: Library) -> openai.AsyncOpenAI:
    http = httpx.AsyncClient(trust_env=False, timeout=TIMEOUT_S)
    return openai.AsyncOpenAI(base_url=house.base_url, api_key=key("alice"), max_retries=0, http_client=http)


def check_cited(message: Any) -> None:
    """The whole answer, with a citation of the document that stands where it says."""
    assert message.content == "".join(ANSWER)
    [annotation] = message.annotations
    cited = annotation["url_citation"] if isinstance(annotation, dict) else annotation.url_citation
    cited = cited if isinstance(cited, dict) else cited.model_dump()
    assert message.content[cited["start_index"] : cited["end_index"]] == "[1]"
    [passage] = message.provider_specific_fields["search_results"]
    assert CODE in passage["text"]


def check_chunks(chunks: list[Any]) -> None:
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == "".join(ANSWER)
    assert sum(1 for delta in deltas if delta.content) > 1, "piece by piece"
    assert not [delta for delta in deltas if delta.tool_calls]
    [annotations] = [found for delta in deltas if (found := getattr(delta, "annotations", None))]
    assert [annotation["type"] for annotation in annotations] == ["url_citation"]


# OpenAI's SDK


def test_create_answers_with_citations(house: Library) -> None:
    with client(house) as openai_client:
        answer = openai_client.chat.completions.create(**ASKED)
    check_cited(answer.choices[0].message)
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.total_tokens == 30, "of two rounds"


def test_create_streams(house: Library) -> None:
    with client(house) as openai_client:
        check_chunks(list(openai_client.chat.completions.create(**ASKED, stream=True)))


async def test_the_async_client_does_both(house: Library) -> None:
    async with async_client(house) as openai_client:
        answer = await openai_client.chat.completions.create(**ASKED)
        check_cited(answer.choices[0].message)
        stream: Any = await openai_client.chat.completions.create(**ASKED, stream=True)
        check_chunks([chunk async for chunk in stream])


def test_the_helper_of_streams_ends_with_the_whole_message(house: Library) -> None:
    with client(house) as openai_client, openai_client.chat.completions.stream(**ASKED) as stream:
        events = list(stream)
        message: Any = stream.get_final_completion().choices[0].message
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert "".join(deltas) == "".join(ANSWER) == message.content
    assert "content.done" in {event.type for event in events}
    assert not message.tool_calls
    assert message.annotations[0].url_citation.title


async def test_the_async_helper_does_so_too(house: Library) -> None:
    async with (
        async_client(house) as openai_client,
        openai_client.chat.completions.stream(**ASKED) as stream,
    ):
        message = (await stream.get_final_completion()).choices[0].message
    assert message.content == "".join(ANSWER)


def test_parse_gives_the_model_that_was_asked_for(house: Library, model: Upstream) -> None:
    with client(house) as openai_client:
        answer = openai_client.chat.completions.parse(**ASKED, response_format=Notice)
    assert answer.choices[0].message.parsed == Notice(**STRUCTURED)
    assert (model.asked[0].round, model.asked[-1].round) == (0, 1), "documents were searched first"


def test_parse_streams(house: Library) -> None:
    with (
        client(house) as openai_client,
        openai_client.chat.completions.stream(**ASKED, response_format=Notice) as stream,
    ):
        assert stream.get_final_completion().choices[0].message.parsed == Notice(**STRUCTURED)


# Its error classes


def test_an_unknown_key_is_an_authentication_error(house: Library) -> None:
    with client(house, api_key="sk-nobody") as openai_client:
        with pytest.raises(openai.AuthenticationError) as refused:
            openai_client.chat.completions.create(**ASKED)
        assert refused.value.status_code == 401
        with pytest.raises(openai.AuthenticationError):
            openai_client.chat.completions.create(**ASKED, stream=True)


def test_a_collection_that_one_may_not_query_is_a_permission_denied_error(house: Library) -> None:
    with client(house, "bob") as openai_client, pytest.raises(openai.PermissionDeniedError) as refused:
        openai_client.chat.completions.create(**ASKED, extra_body={"rag": {"collections": [COLLECTION]}})
    assert "`query`" in refused.value.message


def test_a_collection_that_is_not_there_is_a_not_found_error(house: Library) -> None:
    tool: Any = {"type": "file_search", "vector_store_ids": ["vs_nobody"]}
    with client(house) as openai_client, pytest.raises(openai.NotFoundError) as refused:
        openai_client.chat.completions.create(**ASKED, tools=[tool])
    assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_field_of_another_form_is_a_bad_request_error(house: Library, stream: bool) -> None:
    with client(house) as openai_client, pytest.raises(openai.BadRequestError) as refused:
        openai_client.chat.completions.create(**ASKED, stream=stream, extra_body={"rag": {"collections": 1}})
    assert refused.value.param == "rag.collections"


def test_too_many_requests_are_a_rate_limit_error(house: Library) -> None:
    def hurry(openai_client: openai.OpenAI) -> None:
        for _ in range(5):  # more than those of two minutes, should one end just now
            openai_client.chat.completions.create(**ASKED)

    with client(house, "hasty") as openai_client, pytest.raises(openai.RateLimitError) as refused:
        hurry(openai_client)
    assert refused.value.status_code == 429


def test_a_model_that_is_not_there_is_a_bad_request_or_not_found(house: Library) -> None:
    with (
        client(house) as openai_client,
        pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused,
    ):
        openai_client.chat.completions.create(**{**ASKED, "model": "nobody"})
    assert "nobody" in refused.value.message


def test_the_sdk_tries_again_by_itself(house: Library, model: Upstream) -> None:
    model.failures["stand-in", 0] = ["error", "error"]
    with client(house, max_retries=2) as openai_client:
        check_cited(openai_client.chat.completions.create(**ASKED).choices[0].message)
    assert model.models() == [("stand-in", 0)] * 3 + [("stand-in", 1)]


def test_an_answer_that_breaks_off_raises_in_the_middle_of_the_stream(
    house: Library, model: Upstream
) -> None:
    model.failures["stand-in", 1] = ["cut"]
    said: list[str | None] = []

    def read(openai_client: openai.OpenAI) -> None:
        for chunk in openai_client.chat.completions.create(**ASKED, stream=True):
            said.extend(choice.delta.content for choice in chunk.choices)

    with client(house) as openai_client, pytest.raises(openai.APIError) as broken:
        read(openai_client)
    assert said == [ANSWER[0]]
    assert "Try again" in broken.value.message


# LiteLLM as client


def by_litellm(house: Library, **options: Any) -> Any:
    ours = {"model": "openai/chat", "api_base": house.base_url, "api_key": key("alice"), "num_retries": 0}
    return litellm.completion(**{**ASKED, **ours, "timeout": TIMEOUT_S, **options})


def test_litellm_itself_is_a_client(house: Library) -> None:
    check_cited(by_litellm(house).choices[0].message)


def test_litellm_itself_streams(house: Library) -> None:
    chunks = list(by_litellm(house, stream=True))
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "".join(ANSWER)


def test_litellm_raises_its_own_classes(house: Library) -> None:
    with pytest.raises(AuthenticationError):
        by_litellm(house, api_key="sk-nobody")


# What stays LiteLLM's


def test_litellms_token_counter_answers_who_signed_in(house: Library) -> None:
    with house.http("alice") as http:
        answer = http.post("/utils/token_counter", json={"model": "chat", "messages": ASKED["messages"]})
    assert answer.json()["total_tokens"] > 5, answer.text
