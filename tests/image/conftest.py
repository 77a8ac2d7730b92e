"""The image is built once for all tests that look at it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.image import engine


@pytest.fixture(scope="session")
def image() -> str:
    """The product's image, built from the working tree."""
    if reason := engine.lacking():
        pytest.skip(reason)
    return engine.build_product()


@pytest.fixture
def data(image: str) -> Iterator[str]:
    """An empty volume."""
    with engine.volume() as name:
        yield name
