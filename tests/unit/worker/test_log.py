"""What the worker's log says of a document."""

from __future__ import annotations

import pytest

from plugins.core.logs import Line
from tests.support.collections import World


async def test_a_document_that_is_ready_is_logged_with_its_uploader_and_without_its_text(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "plugins")
    caplog.handler.setFormatter(Line())
    await world.collection()
    document = await world.add("handbook", "the words")
    await world.work()
    [line] = [line for line in caplog.text.splitlines() if document.id in line]
    assert line.endswith(f"is ready user_id={world.alice.user_id}")
    assert "the words" not in caplog.text
