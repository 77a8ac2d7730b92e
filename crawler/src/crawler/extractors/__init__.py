"""Ways to find a document's metadata, one module each: a :class:`crawler.contracts.Extractor`."""
