"""The streams that the documentation shows are those of the proxy."""

from __future__ import annotations

from tests.support.transcripts import PAGE, page


def test_what_a_client_sees_is_as_the_page_says() -> None:
    assert page() == PAGE.read_text(encoding="utf-8"), "write it anew: see the page's first lines"
