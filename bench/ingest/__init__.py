"""What ingestion takes: `python -m bench.ingest`."""
