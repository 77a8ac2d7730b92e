"""The fixtures of `tests.support.collections`."""

from __future__ import annotations

from tests.support.collections import lite, store, world

__all__ = ["lite", "store", "world"]
