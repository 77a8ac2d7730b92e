"""What the documentation says that each format keeps is what it keeps."""

from __future__ import annotations

import pytest

from crawler.formats import _ocr
from crawler.registry import available
from tests.fixtures.formats.known import KNOWN
from tests.support import kept

NEEDS_OCR = {"image", "pdf, scanned"}
DOCUMENTED = {line.split("`")[1]: line for line in kept.written().splitlines() if line.startswith("| `")}


def test_every_format_is_measured_and_documented() -> None:
    assert {name.partition(",")[0] for name in KNOWN} == set(available("crawler.formats"))
    assert list(DOCUMENTED) == list(KNOWN)


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in NEEDS_OCR])
def test_a_format_keeps_what_the_documentation_says(name: str) -> None:
    assert f"| `{name}` | {' | '.join(kept.measure(name))} |" == DOCUMENTED[name]


@pytest.mark.skipif(_ocr.tessdata() is None, reason="Tesseract's data is not installed")
@pytest.mark.parametrize("name", sorted(NEEDS_OCR))
def test_text_recognition_reads_every_sentence_in_order(name: str) -> None:
    """Its other figures depend on the version of Tesseract's data: the page has those of Debian 12."""
    order = kept.HEADER.index("Order") - 1
    total = len(KNOWN[name].order)
    assert kept.measure(name)[order] == f"{total}/{total}"


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in {*NEEDS_OCR, "pdf", "rtf"}])
def test_what_is_known_of_a_digital_document_is_kept_whole(name: str) -> None:
    assert [each for each in kept.measure(name) if len(set(each.split("/"))) > 1] == []
