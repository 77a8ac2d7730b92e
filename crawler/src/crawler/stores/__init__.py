"""Vector databases, one module each: a :class:`crawler.contracts.Store`. Only this package imports pymilvus."""
