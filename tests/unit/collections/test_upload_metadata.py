"""What is given beside Markdown: attributes, properties, and what a preview answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from plugins.collections.rights import Rights
from plugins.collections.uploads import CheckedUpload, check_upload
from plugins.core.errors import InvalidRequest
from tests.support.collections import a_config, an_upload

PREVIEW = {
    "title": "Invoice 7",
    "language": "en",
    "word_count": 10,
    "amount": 100,
    "paid": None,
    "summary": "x" * 513,
    "parties": ["ACME", "Ada"],
}


def checked(pipeline: dict[str, Any] | None = None, **fields: Any) -> CheckedUpload:
    rights = Rights(a_config(Path("/nowhere")))
    return check_upload(an_upload("# Text", **fields), rights, pipeline or {}, "batch_1")


def test_scalars_are_attributes_and_what_a_document_tells_of_itself_is_its_properties() -> None:
    new = checked(metadata={"year": 2025, "author": "Ada", "parties": ["x"]})
    assert new.upload.metadata == {"year": 2025}
    assert new.properties == {"author": "Ada", "parties": ["x"]}
    assert new.batch_id == "batch_1"


def test_a_previews_metadata_is_taken_as_it_is() -> None:
    new = checked(metadata=PREVIEW)
    assert new.upload.metadata == {"amount": 100}
    assert new.properties == {
        "title": "Invoice 7",
        "language": "en",
        "word_count": 10,
        "summary": "x" * 513,
        "parties": ["ACME", "Ada"],
    }


def test_of_a_preview_with_many_scalars_those_that_are_no_attributes_any_more_are_properties() -> None:
    many = {f"key{number}": number for number in range(20)}
    new = checked(metadata={"title": "A", **many})
    assert len(new.upload.metadata) == 16
    assert new.upload.metadata | new.properties == {"title": "A", **many}


@pytest.mark.parametrize("title", [{}, {"title": "A"}])
def test_metadata_so_deep_that_no_list_could_show_it_is_refused(title: dict[str, Any]) -> None:
    value: Any = "x"
    for _ in range(31):
        value = [value]
    assert checked(metadata={**title, "a": value}).properties["a"] == value
    with pytest.raises(InvalidRequest, match="at most 32 deep"):
        checked(metadata={**title, "a": {"b": value}})


def test_a_document_may_say_when_it_ends() -> None:
    assert checked(expires_at="2999-01-01").expires_at == 32472144000.0
    assert checked(expires_at=32472144000).expires_at == 32472144000.0
    assert checked().expires_at is None
