"""What a client of the container does, run beside it: `add` uploads and does not wait, `read` prints JSON,
`remove` deletes all documents."""

from __future__ import annotations

import json
import os
import sys
import time

import httpx

URL = "http://127.0.0.1:4000"
QUESTION = {
    "model": "extractive",
    "messages": [{"role": "user", "content": "What was the total revenue in 2025?"}],
}
LATE = {"documents": [{"markdown": "# Late\n\nThe harbour opens at six.", "filename": "late.md"}]}
WITHIN_S = 60.0


def main(what: str) -> None:
    alice = {"Authorization": f"Bearer {os.environ['DEMO_ALICE_KEY']}"}
    with httpx.Client(base_url=URL, headers=alice, trust_env=False, timeout=60) as client:
        if what == "add":
            client.post("/v1/collections/finance/add", json=LATE).raise_for_status()
            return
        if what == "remove":
            for document in client.get("/v1/collections/finance/documents").json()["data"]:
                client.delete(f"/v1/collections/finance/documents/{document['id']}").raise_for_status()
            return
        documents = finished(client)
        answer = client.post("/v1/chat/completions", json=QUESTION).json()["choices"][0]["message"]["content"]
        hits = client.post("/v1/collections/finance/search", json={"query": "When does the harbour open?"})
    json.dump({"documents": documents, "answer": answer, "hits": hits.json()["data"]}, sys.stdout)


def finished(client: httpx.Client) -> dict[str, str]:
    """Each document's status, as soon as none is in progress."""
    end = time.monotonic() + WITHIN_S
    while True:
        data = client.get("/v1/collections/finance/documents").json()["data"]
        found = {document["filename"]: document["status"] for document in data}
        if "in_progress" not in found.values() or time.monotonic() > end:
            return found
        time.sleep(0.1)


if __name__ == "__main__":
    main(sys.argv[1])
