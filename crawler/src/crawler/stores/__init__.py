"""Vector databases, one module each: a :class:`crawler.contracts.Store`; pymilvus is used only here."""

from crawler.stores._embedded import LiteSupervisor

__all__ = ["LiteSupervisor"]
