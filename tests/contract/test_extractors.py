"""What every extractor promises, over every extractor there is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawler.contracts import Converted, Extractor, Services
from crawler.registry import available, find, settings_type

NAMES = available("crawler.extractors")
every_extractor = pytest.mark.parametrize("name", NAMES)

values = st.none() | st.text(max_size=40) | st.integers() | st.floats(allow_nan=False) | st.booleans()
properties = st.dictionaries(
    st.sampled_from(["title", "author", "created_at", "modified_at", "subject", "language"]), values
)


SETTINGS: dict[str, dict[str, Any]] = {
    "llm": {
        "model": "reader",
        "metadata_schema": {"type": "object", "properties": {"kind": {"type": "string"}}},
    }
}
"""Of those that cannot do without."""


def make(name: str) -> Extractor[Any]:
    plugin = find("crawler.extractors", Extractor, name)  # type: ignore[type-abstract]
    return plugin(settings_type(plugin).model_validate(SETTINGS.get(name, {})))


async def answer(
    model: str, messages: Sequence[Mapping[str, Any]], response_format: Mapping[str, Any] | None = None
) -> str:
    return '{"kind": "letter"}'


def extracted(name: str, filename: str, converted: Converted) -> dict[str, Any]:
    return asyncio.run(make(name).extract(filename, converted, Services(complete=answer))).metadata


def test_there_is_an_extractor() -> None:
    assert NAMES


@every_extractor
@settings(max_examples=60, deadline=None)
@given(filename=st.text(min_size=1, max_size=60), markdown=st.text(max_size=400), found=properties)
def test_whatever_a_file_says_of_itself_there_is_a_title_in_one_line_and_all_of_it_is_json(
    name: str, filename: str, markdown: str, found: dict[str, Any]
) -> None:
    metadata = extracted(name, filename, Converted(markdown=markdown, metadata=found))
    title = metadata["title"]
    assert title.strip() == title != ""
    assert "\n" not in title
    assert json.loads(json.dumps(metadata)) == metadata


@every_extractor
def test_the_same_document_gives_the_same_metadata(name: str) -> None:
    converted = Converted(markdown="# Annual leave\n\nEvery employee has 28 days.")
    assert extracted(name, "a.md", converted) == extracted(name, "a.md", converted)


@every_extractor
def test_the_title_is_found_in_the_document(name: str) -> None:
    metadata = extracted(name, "x1.md", Converted(markdown="# Annual leave\n\nEvery employee has 28 days."))
    assert metadata["title"] == "Annual leave"
