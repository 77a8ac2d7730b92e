"""Vector databases, one module each: a :class:`crawler.contracts.Store`; pymilvus is used only here."""
