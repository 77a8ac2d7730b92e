"""All Prometheus metrics of ours, in `prometheus_client`'s own registry, where LiteLLM's are too.

Labels have few values that are known beforehand: never a user, a document or a text. Gauges say how they are
merged where several processes share a folder (`PROMETHEUS_MULTIPROC_DIR`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from prometheus_client import Counter, Gauge, Histogram

from plugins.core.errors import BundleError, InvalidRequest, ToolFailed, ToolRetry, Unauthenticated
from plugins.core.wire import code_of

E = TypeVar("E", bound=BundleError)

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
INGEST_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)
OTHER = "other"
"""In place of a label's value that somebody outside chose."""

STAGE_SECONDS = Histogram(
    "collections_stage_seconds", "How long a stage of a request took", ["stage"], buckets=SECONDS
)
SEARCHES = Counter("collections_searches", "Searches, by how they ended", ["result"])
ANSWER_ROUNDS = Histogram(
    "collections_answer_rounds",
    "How often the model was asked for an answer in which tools could take part",
    buckets=(1, 2, 3, 4, 5, 6, 8, 10, 16),
)
ANSWERS_LIMITED = Counter("collections_answers_limited", "Answers whose budget was spent, by what", ["limit"])
PASSAGES_GIVEN = Counter("collections_passages_given", "Passages that models were given for an answer")
PASSAGES_CITED = Counter("collections_passages_cited", "Passages that answers cite")
TOOL_RUNS = Counter("collections_tool_runs", "Runs of tools, by how they ended", ["tool", "result"])
REFUSALS = Counter("collections_refusals", "What somebody had no right to", ["right", "code"])
SIGN_INS = Counter("collections_sign_ins", "Requests by who checked the credential", ["source", "result"])
PASSWORDS = Counter("collections_passwords", "Passwords that were tried at this server", ["source", "result"])
SIGN_INS_LIMITED = Counter("collections_sign_ins_limited", "Passwords that were not tried: too many failed")
UPLOADS = Counter("collections_uploads", "Documents and new versions of some that were taken in", ["kind"])
UPLOADED_BYTES = Counter("collections_uploaded_bytes", "Their size; what is behind an address is not in it")
CACHED_ROUNDS = Counter(
    "collections_cached_rounds", "Rounds of answers that LiteLLM's cache was asked for", ["result"]
)
QUERY_EMBEDDINGS = Counter(
    "collections_query_embeddings", "Questions to be embedded, by whether this process had them", ["result"]
)

DOCUMENTS = Counter("collections_documents", "Documents that the worker is through with", ["result"])
DOCUMENTS_DELAYED = Counter("collections_documents_delayed", "Tries that will be repeated", ["code"])
INGEST_STAGE_SECONDS = Histogram(
    "collections_ingest_stage_seconds",
    "How long a stage of a document took in the worker",
    ["stage", "format"],
    buckets=INGEST_SECONDS,
)
QUEUE_DOCUMENTS = Gauge(
    "collections_queue_documents",
    "Documents that are not done, by where they stand",
    ["stage", "state"],
    multiprocess_mode="livemostrecent",
)
QUEUE_AGE_SECONDS = Gauge(
    "collections_queue_age_seconds",
    "How long the document whose turn is next has been due; 0 = none is",
    multiprocess_mode="livemostrecent",
)
WORKERS = Gauge("collections_workers", "Workers that gave a sign of life", multiprocess_mode="livemostrecent")
UP = Gauge("collections_up", "Whether a part answers", ["part"], multiprocess_mode="livemin")
CHILD_RESTARTS = Gauge(
    "collections_child_restarts",
    "How often a child of this process ended and was started anew",
    ["child"],
    multiprocess_mode="livesum",
)
MEMORY_BYTES = Gauge(
    "collections_proxy_memory_bytes",
    "Memory that the processes of this proxy hold, without its children",
    multiprocess_mode="livesum",
)
OPEN_FILES = Gauge(
    "collections_proxy_open_fds",
    "File descriptors that the processes of this proxy have open, without its children",
    multiprocess_mode="livesum",
)
RELOADS = Counter("collections_reloads", "Configurations that this process took up, or refused", ["result"])
CONFIGURATION_MISTAKES = Gauge(
    "collections_configuration_mistakes",
    "Mistakes of the configuration that was refused last; 0 = the one in force is the newest",
    multiprocess_mode="livemax",
)


class Outcome:
    """How something ended, where it did not raise."""

    result = "ok"


@contextmanager
def counted(counter: Counter, *labels: str) -> Iterator[Outcome]:
    """Count what is done within once: by the outcome's `result`, or by the code of the error.

    Args:
        counter: Its last label is `result`.
        labels: The values of those before.
    """
    outcome = Outcome()
    try:
        yield outcome
    except BaseException as error:
        outcome.result = result_of(error)
        raise
    finally:
        counter.labels(*labels, outcome.result).inc()


def result_of(error: BaseException) -> str:
    """One word for the error, of those in `plugins.core.wire` and a few more."""
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, Unauthenticated):
        return error.why
    if isinstance(error, ToolRetry):
        return code_of(InvalidRequest())
    return "tool_failed" if isinstance(error, ToolFailed) else code_of(error)


def refused(right: str, error: E) -> E:
    """The error, counted: somebody lacks the right, or it is as if there were nothing to have it to."""
    REFUSALS.labels(right, code_of(error)).inc()
    return error


def answered(rounds: int, given: int, cited: int, limit: str | None) -> None:
    """An answer in which our tools could take part is complete."""
    ANSWER_ROUNDS.observe(rounds)
    PASSAGES_GIVEN.inc(given)
    PASSAGES_CITED.inc(cited)
    if limit is not None:
        ANSWERS_LIMITED.labels(limit).inc()
