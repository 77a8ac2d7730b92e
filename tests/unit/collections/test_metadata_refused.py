"""What is refused of the metadata that an upload brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.collections.rights import Rights
from plugins.collections.uploads import CheckedUpload, check_upload
from plugins.core.errors import InvalidRequest
from tests.support.collections import a_config, an_upload


def checked(metadata: dict[str, Any], **fields: Any) -> CheckedUpload:
    rights = Rights(a_config(Path("/nowhere")))
    return check_upload(an_upload("# Text", metadata=metadata, **fields), rights, {})


@pytest.mark.parametrize(
    "metadata",
    [
        {"a\x00": 1},
        {"parties": [{"a\x00": 1}]},
        {"parties": ["a\x00"]},
        {"title": " "},
        {"title": ["x"]},
        {"page": 3},
        {"title": "A", "page": 3},
    ],
)
def test_what_cannot_be_kept_beside_markdown(metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked(metadata)
    assert refused.value.param == "metadata"


def test_more_than_64_kib_beside_markdown() -> None:
    text = "x" * (2**16 - len('{"notes": [""]}'))
    assert checked({"notes": [text]}).properties == {"notes": [text]}
    with pytest.raises(InvalidRequest):
        checked({"notes": [text + "x"]})


@pytest.mark.parametrize("key", ["title", "language", "created_at", "filename"])
def test_without_markdown_a_name_that_we_set(key: str) -> None:
    with pytest.raises(InvalidRequest, match="is set by this server"):
        checked({key: "x"}, markdown=None, url="https://example.com")


def test_a_key_of_a_preview_that_is_no_attributes_is_not_refused_but_a_property() -> None:
    new = checked({"title": "A", "two\nlines": 1})
    assert (new.upload.metadata, new.properties) == ({}, {"title": "A", "two\nlines": 1})
