"""People who add, replace and delete documents while everything is being killed, and what they were told."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import httpx

DOCUMENTS = 6
"""Of each author."""
MAX_SECTIONS = 9
REFUSED_S = 0.3
"""Between two requests that nobody answered."""


@dataclass(frozen=True)
class Version:
    """One content of a document: so many passages, each with a word that no other version has."""

    document: str
    number: int
    sections: int

    @property
    def word(self) -> str:
        return f"{self.document.replace('-', '')}version{self.number}end"

    @property
    def html(self) -> str:
        parts = (f"<h1>Part {n}</h1><p>{self.word} is in part {n}.</p>" for n in range(self.sections))
        return f"<html><head><title>{self.document}</title></head><body>{''.join(parts)}</body></html>"

    @property
    def text(self) -> str:
        return "\n\n".join(f"# Part {n}\n\n{self.word} is in part {n}." for n in range(self.sections))


@dataclass
class Author:
    """Works alone on documents of its own: what it was told of one is what must be there in the end."""

    name: str
    collection: str
    seed: int
    may_be: dict[str, set[Version | None]] = field(default_factory=dict)
    """By document: the last thing that was acknowledged, and what was asked since and not answered."""
    acknowledged: int = 0
    unanswered: int = 0

    def act(self, client: httpx.Client, chance: random.Random) -> bool:
        """Ask for one change; False when nobody answered."""
        document = f"{self.name}-{chance.randrange(DOCUMENTS)}"
        states = self.may_be.setdefault(document, {None})
        if None not in states and chance.random() < 0.2:
            wanted, answer = None, self._delete(client, document)
        else:
            number = self.acknowledged + self.unanswered
            wanted = Version(document, number, chance.randint(1, MAX_SECTIONS))
            answer = self._add(client, wanted, chance.choice(["text", "markdown", "html"]))
        if answer is not None and answer.status_code in (409, 404):
            return True  # it is being deleted: nothing was changed
        if answer is None or answer.status_code >= 500:
            states.add(wanted)
            self.unanswered += 1
            return False
        assert answer.is_success, answer.text
        self.may_be[document] = {wanted}
        self.acknowledged += 1
        return True

    def _add(self, client: httpx.Client, version: Version, kind: str) -> httpx.Response | None:
        content = {
            "text": {"text": version.text, "filename": "note.txt"},
            "markdown": {"markdown": version.text},
            "html": {"text": version.html, "filename": "page.html"},
        }[kind]
        return self._send(client, "POST", "add", json={"documents": [{"id": version.document, **content}]})

    def _delete(self, client: httpx.Client, document: str) -> httpx.Response | None:
        return self._send(client, "DELETE", f"documents/{document}")

    def _send(self, client: httpx.Client, method: str, path: str, **body: object) -> httpx.Response | None:
        try:
            return client.request(method, f"/v1/collections/{self.collection}/{path}", **body)  # type: ignore[arg-type]
        except httpx.TransportError:
            return None


@contextmanager
def at_work(authors: list[Author], url: str, key: str) -> Iterator[None]:
    """All of them work at once until the context ends. What one of them finds wrong is raised there."""
    stop, wrong = threading.Event(), list[BaseException]()

    def work(author: Author) -> None:
        chance = random.Random(author.seed)  # noqa: S311 - not a secret
        headers = {"Authorization": f"Bearer {key}"}
        try:
            with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
                while not stop.is_set():
                    answered = author.act(client, chance)
                    stop.wait(chance.uniform(0.05, 0.4) if answered else REFUSED_S)
        except BaseException as error:  # noqa: BLE001 - raised in the test's thread
            wrong.append(error)

    with ExitStack() as stack:
        for author in authors:
            thread = threading.Thread(target=work, args=(author,), daemon=True)
            thread.start()
            stack.callback(thread.join, 90)
        stack.callback(stop.set)
        yield
    if wrong:
        raise wrong[0]
