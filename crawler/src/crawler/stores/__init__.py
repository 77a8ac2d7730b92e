"""Vector databases, one module each: a :class:`crawler.contracts.Store`; pymilvus is used only here."""

from crawler.stores._embedded import LiteSupervisor
from crawler.stores._filters import checked as check_filter

__all__ = ["LiteSupervisor", "check_filter"]
