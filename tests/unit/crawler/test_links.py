"""Addresses that would run something, in every spelling that browsers and Markdown know."""

from __future__ import annotations

import html
import re

import pytest

from crawler.contracts import Document, Source
from crawler.conversion import Limits, convert
from crawler.crawler import CrawlerConfig, Preparer
from crawler.formats.html import Html
from crawler.formats.markdown import Markdown
from crawler.links import without_active_links
from crawler.settings import Settings

ACTIVE = [
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a]( javascript:alert(1))",
    "[a](\njavascript:alert(1))",
    "[a](<javascript:alert(1)>)",
    "[a](< javascript:alert(1)>)",
    "[a](java\tscript:alert(1))",
    "[a](javascript\\:alert(1))",
    "[a](javascript&colon;alert(1))",
    "[a](javascript&#58;alert(1))",
    "[a](javascript&#x3A;alert(1))",
    "[a](&#106;avascript:alert(1))",
    "[a](&#0000106;avascript:alert(1))",
    "[a](&#x6a;&#X41;vascript:alert(1))",
    "[a](java&Tab;script&NewLine;:alert(1))",
    "[a](&#1;&#10;javascript:alert(1))".replace("&#1;", "\x01"),
    "[a](vbscript:msgbox(1))",
    "[a](data:text/html,<script>alert(1)</script>)",
    "[a](data:text/html;base64,PHNjcmlwdD4=)",
    "[a](data:,alert)",
    "![a](javascript:alert(1))",
    "![a](data:image/svg+xml;base64,PHN2Zz4=)",
    "[a][b]\n\n[b]: javascript:alert(1)",
    "[a][b]\n\n[b]:\n  <javascript:alert(1)>",
    "<javascript:alert(1)>",
    '<a href="javascript:alert(1)">a</a>',
    "<a href='javascript:alert(1)'>a</a>",
    "<a href=javascript:alert(1)>a</a>",
    '<a HREF = " javascript:alert(1)">a</a>',
    '<a href="jav&#x09;ascript:alert(1)">a</a>',
    '<a href="&#106&#97&#118&#97&#115&#99&#114&#105&#112&#116&#58alert(1)">a</a>',
    '<svg><a xlink:href="javascript:alert(1)"><text>a</text></a></svg>',
    '<form action="javascript:alert(1)"><button formaction="javascript:alert(2)">a</button></form>',
    '<iframe src="javascript:alert(1)"></iframe>',
    '<object data="data:text/html,x"></object>',
]
HARMLESS = [
    "[a](https://example.com/javascript:alert)",
    "[a](/data:x)",
    "javascript: a language; data: what it works on",
    "See [1]: data: the numbers",
    'config = "data: 3"',
    "a < data: b",
    "```js\nlocation = `javascript`\n```",
    "[a](mailto:data@example.com)",
    "[a](#javascript)",
]


def active(text: str) -> bool:
    """Whether an address in it runs something, read the slow way: references resolved, blanks left out."""
    plain = re.sub(r"[\x00-\x20\x7f\\]", "", html.unescape(text)).lower()
    return bool(re.search(r"(?:\]\(<?|\]:<?|<|=[\"']?)(?:javascript:|vbscript:|data:[\w.+-]*[/;,])", plain))


@pytest.mark.parametrize("text", ACTIVE)
def test_a_link_that_runs_something_is_made_harmless_in_place(text: str) -> None:
    assert active(text)
    harmless = without_active_links(text)
    assert not active(harmless)
    assert len(harmless) == len(text)
    assert without_active_links(harmless) == harmless


@pytest.mark.parametrize("text", HARMLESS)
def test_all_other_text_stays_as_it_is(text: str) -> None:
    assert without_active_links(text) == text


def test_a_hostile_text_costs_no_time() -> None:
    """With a backtracking expression these would not end."""
    for text in ("](" + " " * 10**6, "](" + "&#9;" * 10**5 + "'" + " " * 10**6, "<&#" + "0" * 10**6):
        assert without_active_links(text) == text


async def test_no_format_lets_one_through() -> None:
    page = "<html><body>" + "".join(
        f'<p><a href="{address}">press</a></p>'
        for address in ("javascript:alert(1)", "&#106;ava&#9;script&colon;alert(1)", "DATA:text/html,x")
    )
    sources = [
        (Html(Settings()), Source(filename="a.html", content=f"{page}</body></html>".encode())),
        (
            Markdown(Settings()),
            Source(filename="a.md", content="\n\n".join(ACTIVE).replace("\x01", "").encode()),
        ),
    ]
    for format_, source in sources:
        converted = await convert(format_, source, Limits(timeout_s=60))
        assert not active(converted.markdown), source.filename


async def test_markdown_that_was_given_is_no_way_around_it() -> None:
    document = Document(
        collection="c",
        document_id="d",
        revision="r",
        source="a.md",
        markdown="\n\n".join(ACTIVE),
        metadata={},
    )
    prepared = await Preparer(CrawlerConfig()).prepare(document)
    assert prepared.markdown is not None
    assert not active(prepared.markdown)
    assert not any(active(chunk.content) for chunk in prepared.chunks)
