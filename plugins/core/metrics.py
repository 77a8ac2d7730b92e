"""All Prometheus metrics of ours, in `prometheus_client`'s own registry, where LiteLLM's are too.

Labels have few values that are known beforehand: never a user, a document or a text.
"""

from __future__ import annotations

from prometheus_client import Histogram

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

STAGE_SECONDS = Histogram(
    "collections_stage_seconds", "How long a stage of a request took", ["stage"], buckets=SECONDS
)
