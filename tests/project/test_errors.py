"""Every error has one row in the table that says how it looks to a client."""

from __future__ import annotations

import pytest

import crawler.errors
import plugins.core.errors
from crawler.errors import CrawlError
from plugins.core.errors import BundleError
from plugins.core.wire import TABLE, to_wire


def subclasses(root: type[Exception]) -> list[type[Exception]]:
    found = [root]
    for child in root.__subclasses__():
        found.extend(subclasses(child))
    return found


PUBLIC = [*subclasses(BundleError), *subclasses(CrawlError)]


def test_the_table_has_every_error_and_nothing_else() -> None:
    assert set(TABLE) == set(PUBLIC)
    assert all(c.__module__ in (crawler.errors.__name__, plugins.core.errors.__name__) for c in PUBLIC)


@pytest.mark.parametrize("error", PUBLIC, ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_every_error_has_a_public_message_and_a_body_of_openais_shape(error: type[Exception]) -> None:
    wire = to_wire(error())
    assert set(wire.body["error"]) == {"message", "type", "param", "code"}
    assert len(wire.body["error"]["message"]) > 10
    assert 400 <= wire.status < 600
    assert wire.status != 422


@pytest.mark.parametrize("error", subclasses(CrawlError), ids=lambda c: c.__name__)
def test_a_documents_last_error_has_the_code_that_http_shows(error: type[CrawlError]) -> None:
    assert TABLE[error].code == error.code


def test_an_unforeseen_error_shows_nothing_of_itself() -> None:
    wire = to_wire(RuntimeError("postgres://user:secret@db.internal"))
    assert wire.status == 500
    assert "secret" not in str(wire.body)


def test_what_may_be_tried_again_says_when() -> None:
    for error, row in TABLE.items():
        assert ("Retry-After" in to_wire(error()).headers) == (row.status in (429, 503))
    assert to_wire(plugins.core.errors.Upstream(retry_after_s=5)).headers["Retry-After"] == "5"
