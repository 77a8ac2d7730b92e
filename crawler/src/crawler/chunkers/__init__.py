"""Ways to cut markdown into passages, one module each: a :class:`crawler.contracts.Chunker`."""
