"""What every file format promises, over every format there is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from crawler.contracts import Format, Source
from crawler.conversion import Limits, convert
from crawler.crawler import CrawlerConfig, make_formats
from crawler.errors import UnreadableDocument, UnsupportedFormat
from crawler.formats import choose
from crawler.registry import available, find, settings_type
from tests.support.tesseract import need_tesseract
from tests.unit.crawler.samples import SAMPLES

NAMES = available("crawler.formats")
LIMITS = Limits(timeout_s=60)
READ_IN_PART = {"text", "markdown", "html", "csv", "tsv", "jsonl", "code", "eml"}
"""Of these a part is a file as well."""


def make(name: str) -> Format[Any]:
    plugin = find("crawler.formats", Format, name)  # type: ignore[type-abstract]
    return plugin(settings_type(plugin)())


def readable_sample(name: str) -> Source:
    if name == "image":
        need_tesseract()
    return sample(name)


def sample(name: str) -> Source:
    filename, content, _ = SAMPLES[name]
    return Source(filename=filename, content=content)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "text"])
def test_a_format_accepts_its_own_kind_and_no_other(name: str) -> None:
    assert [other for other in SAMPLES if make(name).accepts(sample(other))] == [name]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_asked_last_and_takes_what_is_left(name: str) -> None:
    formats = [make(other) for other in sorted(NAMES, key=lambda other: other == "text")]
    assert choose(formats, sample(name)).__module__ == f"crawler.formats.{name}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF\x00\x01", b"\x89PNG\r\n\x1a\n\x00", b"PK\x03\x04" + bytes(40)]
)
def test_a_format_does_not_accept_foreign_bytes_under_a_foreign_name(name: str, content: bytes) -> None:
    assert not make(name).accepts(Source(filename="x.bin", content=content))


@pytest.mark.parametrize("name", NAMES)
async def test_a_child_process_converts_what_the_file_says(name: str) -> None:
    converted = await convert(make(name), readable_sample(name), LIMITS)
    assert SAMPLES[name][2] in converted.markdown


@pytest.mark.parametrize("name", NAMES)
async def test_pages_begin_in_order_and_inside_the_markdown(name: str) -> None:
    converted = await convert(make(name), readable_sample(name), LIMITS)
    starts = [page.start for page in converted.pages]
    assert starts == sorted(starts)
    assert all(start <= len(converted.markdown) for start in starts)
    assert [page.number for page in converted.pages] == list(range(1, len(starts) + 1))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in READ_IN_PART])
async def test_a_broken_file_is_refused_in_words_for_its_owner(name: str) -> None:
    source = readable_sample(name)
    broken = source.model_copy(update={"content": source.content[:200]})
    with pytest.raises(UnreadableDocument, match="upload"):
        await convert(make(name), broken, LIMITS)


def test_a_file_that_no_format_accepts_is_refused_with_the_kinds_that_are() -> None:
    formats = [make(name) for name in ("pdf", "text")]
    with pytest.raises(UnsupportedFormat, match="are: pdf, text\\."):
        choose(formats * 2, Source(filename="photo.png", content=b"\x89PNG\r\n\x1a\n\x00"))


BINARY = ("docx", "pptx", "xlsx", "xls", "odt", "odp", "ods", "rtf", "epub", "msg", "zip", "image", "pdf")


@pytest.mark.parametrize("name", BINARY)
def test_a_file_whose_name_lies_is_read_as_what_it_is(name: str) -> None:
    formats = make_formats(CrawlerConfig())
    for filename, _, _ in SAMPLES.values():
        lying = sample(name).model_copy(update={"filename": filename})
        assert choose(formats, lying).__module__ == f"crawler.formats.{name}", filename


@pytest.mark.parametrize("name", [name for name in BINARY if name not in {"image", "pdf"}])
def test_text_under_the_name_of_another_kind_is_refused_in_words_that_say_so(name: str) -> None:
    with pytest.raises(UnsupportedFormat, match=f"not what its name says: {name}"):
        choose(make_formats(CrawlerConfig()), Source(filename=f"a.{name}", content=b"Just words.\n"))


def test_to_choose_a_format_loads_no_converter() -> None:
    code = (
        "import sys; from crawler.crawler import CrawlerConfig, make_formats;"
        "from crawler.formats import choose;"
        "from crawler.contracts import Source;"
        "choose(make_formats(CrawlerConfig()), Source(filename='a.txt', content=b'a'));"
        "sys.exit(any(name in sys.modules for name in ('liteparse', 'xberg', 'trafilatura')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
