"""The domain: rights, catalogue, search, uploads, jobs."""
