"""The fixture `server`: see `tests.support.api_server`."""

from __future__ import annotations

from tests.support.api_server import server

__all__ = ["server"]
