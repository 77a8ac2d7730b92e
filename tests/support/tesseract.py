"""Tests that recognise text need Tesseract's language data."""

from __future__ import annotations

import pytest

from crawler.formats._ocr import OcrSettings, missing


def need_tesseract(*languages: str) -> None:
    """Skip the test where the machine lacks the data."""
    lacking = missing(OcrSettings(ocr_languages=languages or ("eng",)))
    if lacking:
        pytest.skip(lacking)
