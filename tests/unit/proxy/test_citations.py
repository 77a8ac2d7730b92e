"""What the numbers in an answer point to."""

from __future__ import annotations

import re
import signal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from plugins.core.passages import render
from plugins.proxy.citation_marks import MARK, MAX_HELD
from plugins.proxy.citations import Citations, CitedText
from tests.support.fake_proxy import ANSWER, SEARCH, said
from tests.support.fake_router import Round, text
from tests.support.services import a_passage


def two_passages() -> Citations:
    citations = Citations("https://proxy.example/")
    assert citations.number([a_passage("one"), a_passage("two", page=None)]) == [1, 2]
    return citations


def passages(count: int) -> Citations:
    citations = Citations("https://proxy.example")
    citations.number([a_passage(f"passage {number}") for number in range(1, count + 1)])
    return citations


def answered(citations: Citations, *pieces: str) -> tuple[str, CitedText, list[dict[str, Any]]]:
    """The client's text, and its annotations."""
    text = CitedText(citations)
    shown = "".join(text.feed(piece) for piece in pieces) + text.rest()
    annotations = citations.annotations(text.cited, text.spans)
    return shown, text, [annotation["url_citation"] for annotation in annotations]


def shown(answer: str, given: int = 9) -> str:
    return answered(passages(given), answer)[0]


def test_numbers_go_on_over_searches_and_known_passages_keep_theirs() -> None:
    assert two_passages().number([a_passage("three"), a_passage("two", page=None)]) == [3, 2]


def test_equal_texts_of_two_places_are_two_passages() -> None:
    assert Citations("").number([a_passage("same", page=1), a_passage("same", page=2)]) == [1, 2]


@pytest.mark.parametrize(
    ("answer", "expected", "spans"),
    [
        ("It is so [1].", "It is so [1].", ["[1]"]),
        ("[2][1] and [2]", "[1][2] and [1]", ["[1]", "[2]", "[1]"]),
        ("both [1, 2]", "both [1][2]", ["[1]", "[2]"]),
        ("öäü 🙂 [2]", "öäü 🙂 [1]", ["[1]"]),
        ("half [1, 9]", "half [1]", ["[1]"]),
        ("[x] and [1", "[x] and [1", []),
    ],
)
def test_annotations_are_exactly_over_the_citations_of_passages_that_exist(
    answer: str, expected: str, spans: list[str]
) -> None:
    text, _, found = answered(two_passages(), answer)
    assert text == expected
    assert [text[citation["start_index"] : citation["end_index"]] for citation in found] == spans


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[1][2]", "[1][2]"),
        ("[1,2]", "[1][2]"),
        ("[1; 2]", "[1][2]"),
        ("[ 1 ]", "[1]"),
        ("[1-3]", "[1][2][3]"),
        ("[1–3]", "[1][2][3]"),
        ("[1 - 2, 4]", "[1][2][3]"),
        ("[8-12]", "[1][2]"),
        ("［２］", "[1]"),
        ("［１、２］", "[1][2]"),
        ("【3】", "[1]"),
        ("【1†source】", "[1]"),
        ("[^1]", "[1]"),
        ("[^1, ^2]", "[1][2]"),
        ("[1, 1]", "[1]"),
        ("[[2]]", "[[1]]"),
    ],
)
def test_citations_are_understood_in_the_forms_that_models_write_them(written: str, expected: str) -> None:
    assert shown(f"It is so {written}.") == f"It is so {expected}."


def test_a_wide_range_counts_by_its_ends() -> None:
    assert shown("all [1-999999]", given=60) == "all [1]"
    assert shown("all [1-50]", given=60).count("[") == 50
    assert shown("all [50-1]", given=60) == "all [1][2]"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("It is so [77].", "It is so."),
        ("It is so [77] and so.", "It is so and so."),
        ("It is so [77], and so", "It is so, and so"),
        ("It is so[77].", "It is so."),
        ("It is so [77][1].", "It is so [1]."),
        ("It is so [1] [77].", "It is so [1]."),
        ("It is so [77] [78].", "It is so."),
        ("It is so [77]", "It is so"),
        ("It is so [77]\nNext", "It is so\nNext"),
        ("It is so [77]again", "It is so again"),
        ("[77] It is so", " It is so"),
        ("(as said [77])", "(as said)"),
        ("【4:0†source】 It is", " It is"),
        ("[0]", ""),
        ("[1[77]]", "[1…]"),
        ("[[77]1]", "[…1]"),
        ("[x]([77]data:x)", "[x](…data:x)"),
        ("`a`[77]`b`", "`a` `b`"),
        ("**[77]**", "****"),
    ],
)
def test_an_invented_number_leaves_no_trace(answer: str, expected: str) -> None:
    assert shown(answer) == expected


UNTOUCHED = [
    "`a[7]`",
    "``a ` [7]``",
    "`[7]\\`",
    "```\na[7]\n```",
    "```python\na[7] = `b`[7]\n\n[7]\n```",
    "~~~\n``` [7]\n~~~",
    "- item\n  ```js\n  a[7]\n  ```",
    "1. item\n   ~~~\n   a[7]\n   ~~~~",
    "> ```\n> a[7]\n> ```",
    "````\n```\na[7]\n```\n````",
    "```a[7]```",
    "[7](https://example.com/a)",
    "![7](/images/7.png)",
    "[7](#note)",
    "[7](javascript:x)",
    "[7]: https://example.com",
    "[^7]: <https://example.com>",
    "\\[7\\]",
    "\\sqrt[7]{x}",
    "[x][7a] [7 of 9] [seven]",
    "[]",
]


@pytest.mark.parametrize("text", UNTOUCHED)
def test_code_links_and_escaped_brackets_are_no_citations(text: str) -> None:
    assert shown(f"{text}\n[3] and [77].", given=9) == f"{text}\n[1] and."
    assert shown(text) == text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("`a`[7]", "`a`[1]"),
        ("it`s [7]\nand [7]", "it`s [7]\nand [1]"),
        ("\\`[7]\\`", "\\`[1]\\`"),
        ("\\\\[7]", "\\\\[1]"),
        ("~~not~~ [7]", "~~not~~ [1]"),
        ("so ```[7]\n[7]", "so ```[7]\n[1]"),
        ("```x [7]``` [7]", "```x [7]``` [1]"),
        ("[7](page 3)", "[1](page 3)"),
        ("[7]: Handbook", "[1]: Handbook"),
        ("as in [7]: https://example.com", "as in [1]: https://example.com"),
        ("```\n[7]\n ```  \n[7]", "```\n[7]\n ```  \n[1]"),
        ("```\n[7]\n``` x\n[7]", "```\n[7]\n``` x\n[7]"),
        ("[see [7] here](https://example.com)", "[see [1] here](https://example.com)"),
    ],
)
def test_what_stands_beside_code_and_links_is_cited(answer: str, expected: str) -> None:
    assert shown(answer) == expected


@pytest.mark.parametrize(
    "hostile",
    [
        "\n".join([f"{('-' + ' ' * 40) * 4}x```a", "```"] * 400),
        "[1\u2020" * 100_000,
        "[" * 300_000,
        "`" * 300_000,
        "[1, " * 75_000,
    ],
)
def test_a_hostile_text_is_read_in_one_go(hostile: str) -> None:
    """One that is read again and again takes minutes: the alarm ends that."""
    signal.alarm(60)
    try:
        citations = passages(2)
        citations.begin_above([{"role": "user", "content": hostile}])
        assert answered(citations, hostile)[0]
    finally:
        signal.alarm(0)


def test_what_is_held_back_is_short_and_nothing_is_at_the_end() -> None:
    text = CitedText(passages(2))
    assert text.feed("so [1, ") == "so"
    assert text.feed("2") == ""
    assert text.feed("]") == "", "a link may begin here"
    assert text.feed(".") == " [1][2]."
    assert text.feed("[" + "1, " * 30).startswith("[1, ")
    assert text.feed("`" * 200) != ""
    assert text.feed("\n[2]") == "\n"
    assert text.rest() == "[2]"


def test_without_passages_and_without_citations_in_the_conversation_the_text_is_untouched() -> None:
    citations = Citations("")
    citations.begin_above([{"role": "user", "content": "What is `a[7]`, and what was in [2024]?"}])
    text = "In maths [1, 2) is open, [3] is a list, 【4】 too ."
    assert answered(citations, text)[0] == text


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "It is 30 days [4] or [2]."}],
        [{"role": "user", "content": [{"type": "text", "text": "You said [3-4]."}, {"type": "image_url"}]}],
        [{"role": "tool", "content": "[4] Forged (page 1)"}, {"role": "assistant", "content": None}],
    ],
)
def test_a_number_from_the_conversation_never_points_to_a_new_passage(messages: list[dict[str, Any]]) -> None:
    citations = Citations("")
    citations.begin_above(messages)
    assert answered(citations, "As I said [4].")[0] == "As I said."
    assert citations.number([a_passage("new")]) == [5]
    assert answered(citations, "As I said [4], but [5].")[0] == "As I said, but [1]."


def test_a_number_in_a_passage_never_points_to_it_or_to_a_later_one() -> None:
    citations = Citations("")
    assert citations.number([a_passage("as shown in [12], in 2024 [2024]"), a_passage("b")]) == [13, 14]
    assert answered(citations, "shown in [12] [13]")[0] == "shown in [1]"


def test_the_address_opens_the_document_at_its_page() -> None:
    first, second = (citation["url"] for citation in answered(two_passages(), "[1][2]")[2])
    assert first == "https://proxy.example/v1/collections/vs_h/documents/d1/content#page=3"
    assert second == "https://proxy.example/v1/collections/vs_h/documents/d1/content"


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("https://intranet.example/a", "https://intranet.example/a"),
        ("yard.pdf", None),
        ("javascript:alert(1)", None),
        ("file:///etc/passwd", None),
    ],
)
def test_what_has_no_document_here_links_to_its_source_or_nowhere(source: str, url: str | None) -> None:
    citations = Citations("https://proxy.example")
    citations.number([a_passage("x").model_copy(update={"source": source})])
    _, text, found = answered(citations, "[1]")
    assert [citation["url"] for citation in found] == ([url] if url else [])
    [result] = citations.search_results(text.cited)
    assert result["url"] == url


def test_an_id_cannot_change_the_address() -> None:
    citations = Citations("https://proxy.example")
    citations.number([a_passage("x", "../../admin?")])
    assert "/v1/collections/..%2F..%2Fadmin%3F/documents/" in answered(citations, "[1]")[2][0]["url"]


def test_only_cited_passages_are_results() -> None:
    citations = two_passages()
    _, text, _ = answered(citations, "see [2] and [2]")
    assert [(r["number"], r["text"]) for r in citations.search_results(text.cited)] == [(1, "two")]


def test_control_characters_reach_neither_the_client_nor_the_model() -> None:
    hostile = "a\x00b\x1b[31mc\r\n\td\x7fe\x9b"
    passage = a_passage(hostile).model_copy(
        update={"title": hostile, "headings": (hostile,), "filename": hostile, "document_id": "d\n```\n1"}
    )
    citations = Citations("")
    citations.number([passage])
    _, text, _ = answered(citations, "[1] [32]")
    [result] = citations.search_results(text.cited)
    assert result["text"] == result["title"] == result["headings"][0] == "ab[31mc\n\tde"
    told = render([passage])
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", told)
    assert "document_id=d ``` 1\n" in told


PROSE = st.text(alphabet="[]1279, -–^［】†:;.a\n(", max_size=12) | st.sampled_from(
    ["[1]", "[2]", " [77]", "[1, 77]", "[77-78]", "[2][1]", "【1†source】", "It is so", " ", "\n", "🙂", "ä"]
)
CODE = st.sampled_from([f"\n{text}\n" for text in UNTOUCHED])
MESS = st.text(alphabet="[]17`~\\\n ->(", max_size=60)
CUTS = st.lists(st.integers(0, 1000), max_size=40)


def cut(whole: str, at: list[int]) -> list[str]:
    edges = sorted({0, len(whole), *(position % (len(whole) + 1) for position in at)})
    return [whole[a:b] for a, b in pairwise(edges)]


@settings(max_examples=400, deadline=None)
@given(
    st.lists(PROSE | CODE, max_size=12).map("".join) | st.text(alphabet="[]17`~\\\n ->(", max_size=60), CUTS
)
def test_a_cut_changes_nothing_and_every_annotation_is_over_its_number(answer: str, at: list[int]) -> None:
    text, whole, found = answered(passages(3), answer)
    pieces = cut(answer, at)
    again, cited, _ = answered(passages(3), *pieces)
    assert (again, cited.spans, cited.cited) == (text, whole.spans, whole.cited)
    assert [text[c["start_index"] : c["end_index"]] for c in found] == [f"[{s.number}]" for s in whole.spans]
    assert list(dict.fromkeys(s.number for s in whole.spans)) == list(range(1, len(whole.cited) + 1))


@settings(max_examples=400, deadline=None)
@given(st.lists(PROSE, max_size=12).map("".join))
def test_no_number_remains_that_no_passage_has(answer: str) -> None:
    text, whole, _ = answered(passages(3), answer)
    marks = [m.span() for m in MARK.finditer(text) if len(m[0]) <= MAX_HELD]
    assert marks == [(span.start, span.end) for span in whole.spans]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(PROSE.filter(lambda t: "(" not in t), CODE), max_size=6), CUTS)
def test_code_and_links_come_through_as_they_are(parts: list[tuple[str, str]], at: list[int]) -> None:
    answer = "".join(f"{prose}\n{code}" for prose, code in parts)
    text, _, _ = answered(passages(3), *cut(answer, at))
    rest = text
    for _, code in parts:
        assert code in rest
        rest = rest[rest.index(code) + len(code) :]


async def test_annotations_are_exact_over_the_texts_of_all_rounds(proxy_with: Any) -> None:
    rounds = (
        Round([text("Ich schaue nach 🙂."), SEARCH]),
        Round([text("Ä: 30 days [1"), text("]"), SEARCH]),
        Round([text("28 days [2, 9] [8]; both 【1†x】"), text("[2-1].")]),
    )
    answer = (await proxy_with(*rounds).plain()).choices[0].message
    assert answer.content == "Ich schaue nach 🙂.\n\nÄ: 30 days [1]\n\n28 days [2]; both [1][2][1]."
    cited = [annotation["url_citation"] for annotation in answer.annotations]
    found = [answer.content[c["start_index"] : c["end_index"]] for c in cited]
    assert found == ["[1]", "[2]", "[1]", "[2]", "[1]"]
    assert [c["url"].split("/")[5] for c in cited] == ["vs_h", "vs_f", "vs_h", "vs_f", "vs_h"]


async def test_openais_sdk_reads_the_fields_plain_and_streamed(proxy_with: Any) -> None:
    plain = ChatCompletion.model_validate((await proxy_with(*ANSWER).plain()).model_dump())
    annotations = plain.choices[0].message.annotations
    assert annotations is not None
    assert annotations[0].url_citation.url.endswith("/content#page=3")
    [result] = plain.choices[0].message.provider_specific_fields["search_results"]  # type: ignore[attr-defined]
    assert result.keys() >= {"number", "id", "collection", "filename", "page_first", "page_last", "headings"}
    assert result.keys() >= {"score", "text", "title", "url"}
    chunks = [ChatCompletionChunk.model_validate(c.model_dump()) for c in await proxy_with(*ANSWER).stream()]
    extras = [chunk.choices[0].delta.model_extra or {} for chunk in chunks if chunk.choices]
    [streamed] = [extra["annotations"] for extra in extras if extra.get("annotations")]
    assert streamed == [annotation.model_dump() for annotation in annotations]


async def test_a_number_copied_from_an_earlier_answer_is_no_citation_of_this_one(proxy_with: Any) -> None:
    history = [
        {"role": "user", "content": "And the leave?"},
        {"role": "assistant", "content": "It is 28 days [1], as written [2]."},
        {"role": "user", "content": "Are you sure?"},
    ]
    proxy = proxy_with(Round([SEARCH]), Round([text("Yes [1]: 28 days [4].")]))
    chunks = await proxy.stream(messages=history)
    assert said(chunks) == "Yes: 28 days [1]."
    assert proxy.router.requests[1]["messages"][-1]["content"].startswith("[3] Handbook")
    unasked = proxy_with(Round([text("Yes, as I said [1].")]))
    assert said(await unasked.stream(messages=history)) == "Yes, as I said."
    plain = proxy_with(Round([text("Yes, as I said [1].")]))
    assert (await plain.plain(messages=history)).choices[0].message.content == "Yes, as I said."
