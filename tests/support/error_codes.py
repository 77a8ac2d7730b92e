"""The table of `docs/errors.md`: every code that a client can get, from the table that answers with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from plugins.core.wire import TABLE, to_wire


class Advice(NamedTuple):
    """What the code of an error cannot say."""

    cause: str
    do: str


OPERATOR = "Tell the operator the request id (header `x-litellm-call-id`)."

ADVICE: Mapping[str, Advice] = {
    "internal_error": Advice(
        "A defect here, or a model's profile that the configuration does not have.",
        f"{OPERATOR} Operator: the log has the cause under that id.",
    ),
    "invalid_request": Advice(
        "A field is missing, unknown or of the wrong type.", "Correct the field that `param` names."
    ),
    "too_large": Advice(
        "The body, a file or a number of files is over a limit; the message has the limit.",
        "Send less at once. Operator: `limits.max_upload_bytes`, `limits.max_files`.",
    ),
    "tool_not_found": Advice(
        "No such tool, or its `allow` does not name the caller.", "Take a name from `GET /v1/tools`."
    ),
    "collection_not_found": Advice(
        "No such collection, or the caller has none of the four rights to it: both in the same words.",
        "Take a name from `GET /v1/collections`, or ask who manages it for a right.",
    ),
    "document_not_found": Advice(
        "No such document or job, or the caller may not see it; also one that is deleted or has expired.",
        "List the collection's documents.",
    ),
    "model_not_found": Advice("Ollama does not have this model.", "Pull it, or choose another."),
    "conflict": Advice(
        "A name or id is taken, the document is somebody else's, the job has ended, the collection is being "
        "built anew, or somebody changed the same thing at the same time.",
        "Read the message: choose another name or id, or try again.",
    ),
    "invalid_api_key": Advice(
        "No credential, or one that has expired, is of another issuer or audience, or was revoked; the "
        "message and `WWW-Authenticate` say which.",
        'Sign in again. Operator: `make doctor DOCTOR="--token-file FILE"` names the claim that is wrong.',
    ),
    "permission_denied": Advice(
        "Signed in, without the right that the message names; or not in the document's audience.",
        "Ask who manages the collection. `GET /v1/collections/{collection}/access/effective` says why.",
    ),
    "rate_limit_exceeded": Advice(
        "As many requests, previews, documents or bytes as this caller may have; or too many failed "
        "sign-ins.",
        "Wait for `Retry-After` seconds. Operator: `identity.allowances`, `limits.quotas`.",
    ),
    "deadline_exceeded": Advice(
        "The model, a tool, a preview or Ollama took longer than its limit.",
        "Ask for less, or again. Operator: `chat.deadline_s`, `chat.tool_timeout_s`.",
    ),
    "upstream_error": Advice(
        "A service behind this one gives no answer, broke off or answered what it should not: the "
        "collections' database, the file store, Ollama, the "
        "child of a preview.",
        "Try again, after `Retry-After` seconds where it says so. If it stays: "
        f"{OPERATOR[0].lower()}{OPERATOR[1:]} Operator: `make doctor`.",
    ),
    "model_unavailable": Advice(
        "The model did not answer, or the collection's embedding model is not configured any more.",
        "Try again, or another model. Operator: `make doctor` asks each model.",
    ),
    "identity_unavailable": Advice(
        "The issuer, or its keys, cannot be reached; tokens whose keys are known go on.",
        "Try again in some seconds. Operator: `make doctor`; the issuer's address and certificate.",
    ),
    "crawl_failed": Advice("The document could not be processed.", f"Try the job again once. {OPERATOR}"),
    "unsupported_format": Advice(
        "No format of the pipeline takes the file; it is told by its content, not by its name alone.",
        "Save it as one of the [formats](formats.md). Operator: `pipelines.<name>.formats`.",
    ),
    "unreadable_document": Advice(
        "Broken, encrypted, empty of text, or over a limit of memory or time while it was converted.",
        "Open it in its own program, save it anew without a password, upload that. A scan needs "
        "[OCR](ocr.md).",
    ),
    "document_too_large": Advice(
        "More bytes, pages or passages than the pipeline takes.",
        "Split it. Operator: `pipelines.<name>.limits`.",
    ),
    "invalid_filter": Advice(
        "The filter names a field that is not declared, or compares it with another type.",
        "Use a declared field. Operator: `collections.fields`.",
    ),
    "fetch_failed": Advice(
        "The address answers with an error, too slowly, or with what is no document.",
        "Open it in a browser; or upload the file itself.",
    ),
    "fetch_refused": Advice(
        "The address, or one that it leads to, is not public, or its robots.txt forbids it.",
        "Upload the file itself.",
    ),
    "embedding_failed": Advice(
        "The embedding model refused or could not be reached, while a document was processed.",
        "Nothing: it is tried again. Operator: `worker.proxy_url`, `worker.api_key`, `make doctor`.",
    ),
    "model_failed": Advice(
        "A chat model that the pipeline asks (metadata, pictures) did not answer.",
        "Nothing: it is tried again. Operator: as above, and the model in `model_list`.",
    ),
    "store_error": Advice("The vector store could not do this.", f"Try again. {OPERATOR}"),
    "store_unavailable": Advice(
        "Milvus cannot be reached, or the embedded store is starting.",
        "Try again in some seconds. Operator: `GET /health/collections`, `make doctor`.",
    ),
    "store_refused": Advice(
        "Milvus answered, and said no: a quota, a disk that is full, a collection that it does not have, as "
        "after a [restore](backup.md#building-the-passages-anew).",
        f"{OPERATOR} Operator: Milvus's own log; build the collection anew.",
    ),
    "store_mismatch": Advice(
        "A collection that others made in Milvus is not as `collections.adopt` says.",
        "Operator: compare its fields, metric and dimension; `make doctor` names the difference.",
    ),
    "store_denied": Advice(
        "The rights in Milvus do not allow it to this caller (`rights: milvus`).",
        "Ask whoever manages its roles ([Milvus](milvus.md)).",
    ),
    "store_credential_refused": Advice(
        "Milvus does not accept the credential that the caller sent for it.",
        "Check user and password; sign in again where it comes with the token.",
    ),
    "store_capability": Advice(
        "Hybrid retrieval on a server that cannot: Milvus before 2.5.", "Ask for `dense` or `auto`."
    ),
}


def table() -> str:
    """A row for each code, by its status."""
    rows = ["| code | status | type | cause | what to do |", "|---|---|---|---|---|"]
    for error, wire in sorted(TABLE.items(), key=lambda row: (row[1].status, row[1].code)):
        advice = ADVICE[wire.code]
        again = ", `Retry-After`" if "Retry-After" in to_wire(error()).headers else ""
        rows.append(
            f"| `{wire.code}` | {wire.status}{again} | `{wire.type}` | {advice.cause} | {advice.do} |"
        )
    return "\n".join(rows)
