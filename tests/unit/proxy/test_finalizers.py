"""LiteLLM's streams as garbage."""

from __future__ import annotations

import gc
import sys
from typing import Any

import pytest
from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper

from plugins.proxy.finalizers import set_no_variables


class Ids:
    """What a stream's finalizer asks to set the context variables, in LiteLLM."""

    def __init__(self) -> None:
        self.times_set = 0

    def _restore_correlation_context_if_unclaimed(self) -> None:
        self.times_set += 1


def collected(ids: Ids) -> None:
    stream: Any = CustomStreamWrapper.__new__(CustomStreamWrapper)
    stream.logging_obj, stream.itself = ids, stream
    del stream
    gc.collect()


@pytest.mark.skipif(
    sys.version_info >= (3, 12), reason="garbage is not collected within allocations any more"
)
def test_a_stream_that_is_collected_sets_no_context_variable() -> None:
    ids, wrapper = Ids(), vars(CustomStreamWrapper)
    setattr(CustomStreamWrapper, "__del__", wrapper.get("__del__", finalize))  # noqa: B010 - mypy knows of none
    collected(ids)
    assert ids.times_set == 1, "LiteLLM does it no more: plugins/proxy/finalizers.py can go"
    set_no_variables()
    collected(ids)
    assert ids.times_set == 1


def finalize(stream: Any) -> None:
    """LiteLLM's, where another test has taken it away already."""
    stream._restore_consumer_correlation_context(guarded=True)
