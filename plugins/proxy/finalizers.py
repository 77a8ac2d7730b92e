"""Keeps Python 3.11 from a crash that LiteLLM's streams run into under load."""

from __future__ import annotations

import sys

from litellm.litellm_core_utils.streaming_handler import CustomStreamWrapper


def set_no_variables() -> None:
    """Let LiteLLM's streams set no context variable when they are collected as garbage.

    Before Python 3.12 garbage is collected within any allocation, also in the middle of setting a context
    variable. A finalizer that sets one in the same context frees what is being read, and the process dies of
    SIGSEGV (https://github.com/python/cpython/issues/148891). LiteLLM's sets two for
    `request_correlation_in_logs`, also where that is off. Without it, ids of an abandoned stream may be in
    later log lines of its own request.
    """
    if sys.version_info < (3, 12) and hasattr(CustomStreamWrapper, "__del__"):
        del CustomStreamWrapper.__del__
