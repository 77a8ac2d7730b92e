"""Kinds of files, one module each: a :class:`crawler.contracts.Format`."""
