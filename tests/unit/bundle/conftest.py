"""What the tests of the doctor share."""

from __future__ import annotations

from tests.support.doctor import serve

__all__ = ["serve"]
