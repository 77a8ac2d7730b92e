"""The ingest worker: a process of its own that takes jobs, runs the crawler and writes rows."""
