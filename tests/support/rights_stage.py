"""What the rights matrix plays on: identities, collections and documents, made over HTTP alone."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.support.proxy import MASTER_KEY
from tests.support.rights_table import IDENTITIES, Identity

INSIDER = "insider"
"""May query, and is in every audience: shows that what others do not find is there to be found."""
OWNER = "owner"
"""Creates the collections, uploads what is nobody's `own`, and may read the audit log."""
QUESTION = "What is the code word?"

OPEN_TEXT, OPEN_NAME = "OPENTEXT7", "openname7"
OWN_TEXT = "OWNTEXT7"
CLOSED_TEXT, CLOSED_NAME = "CLOSEDTEXT7", "closedname7"
HIDDEN, HIDDEN_TEXT = "hiddenthing7", "HIDDENTEXT7"
"""In the names, and in the text, of a collection to which none of the identities has a right."""
HIDDEN_NAME = f"matrixless-{HIDDEN}"
NAME = "matrix-handbook"
READY_S = 60.0


def key(user: str, source: str = "local") -> str:
    return f"sk-{source}-{user}-of-the-rights-matrix"


def user(name: str, *groups: str, source: str = "local") -> dict[str, Any]:
    return {"key": key(name, source), "user": name, "groups": list(groups)}


HOLDERS = ["discover", "query", "add", "member", "manage"]
READERS = {"query", "member", "manage", "master"}
LOCAL = [user(name) for name in ("stranger", *HOLDERS, OWNER)] + [user(INSIDER, "insiders", "staff")]
PARTNER = [user(name, "insiders", "staff", source="partner") for name in ("query", "add", INSIDER, OWNER)]
"""The same names in another source."""

PEOPLE = ("stranger", *HOLDERS, OWNER, INSIDER)


def groups(name: str) -> list[str]:
    return ["insiders", "staff"] if name == INSIDER else []


@dataclass(frozen=True)
class Tenant:
    """`PEOPLE` as one identity source knows them, with a collection of their own."""

    source: str
    headers: Callable[[str, str], Mapping[str, str]]
    """What a client of this name sends to the server at this address to be signed in; the insider is in the
    groups of `groups`."""
    prefix: str = ""
    """Before every name, where several tenants share a source."""

    def subject(self, name: str) -> str:
        """What grants call one of them."""
        return "user:litellm/proxy_admin" if name == "master" else f"user:{self.source}/{self.prefix}{name}"

    @property
    def insiders(self) -> str:
        return f"group:{self.source}/insiders"

    @property
    def collection(self) -> str:
        """The name of their collection."""
        return NAME if self == LOCALS else f"{NAME}-{self.prefix}{self.source}"

    @property
    def access(self) -> dict[str, list[str]]:
        named = {
            "discover": ["discover"],
            "query": ["query", "member", INSIDER],
            "add": ["add", "member"],
            "manage": ["manage", OWNER],
        }
        return {right: [self.subject(name) for name in names] for right, names in named.items()}


LOCALS = Tenant("local", lambda name, url: {"authorization": f"Bearer {key(name)}"})
KEYS: list[dict[str, Any]] = [
    {"use": "api_keys", "name": "local", "keys": LOCAL},
    {"use": "api_keys", "name": "partner", "keys": PARTNER},
]


def configuration(
    tenants: Sequence[Tenant] = (LOCALS,), sources: Sequence[Mapping[str, Any]] = ()
) -> dict[str, dict[str, Any]]:
    """The files of the configuration; ``sources`` are those beside the keys and LiteLLM's own."""
    admin = "role:litellm/proxy_admin"
    tools = [tenant.subject(name) for tenant in tenants for name in HOLDERS]
    return {
        "identity": {"identity": {"sources": [*KEYS, *sources, {"use": "litellm"}]}},
        "collections": {
            "collections": {
                "policy": [{"names": "matrix-*", "manage": [admin]}],
                "create": [
                    {"names": "matrix-*", "subjects": [admin]},
                    {"subjects": [tenant.subject(OWNER) for tenant in tenants]},
                ],
            }
        },
        "audit": {"audit": {"readers": [tenant.subject(OWNER) for tenant in tenants]}},
        "tools": {
            "tools": [
                {"use": "search_documents", "allow": ["*"]},
                {"use": "read_document", "allow": ["*"]},
                {"use": "list_collections", "allow": [*tools, admin]},
            ]
        },
    }


@dataclass
class Stage:
    """A server with everything that the rows of the matrix speak of."""

    url: str
    clients: dict[str, httpx.Client]
    tenant: Tenant = LOCALS
    collection: str = ""
    """Its id."""
    hidden: str = ""
    hidden_document: dict[str, Any] = field(default_factory=dict)
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """open and closed, of the owner."""
    own: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    """By identity and `own` or `own closed`."""
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def client(self, name: str) -> httpx.Client:
        if name not in self.clients:
            raise AssertionError(f"nobody is called {name}")
        return self.clients[name]

    def ok(self, name: str, method: str, path: str, **options: Any) -> Any:
        """The answer to a request that must succeed."""
        answer = self.client(name).request(method, path, **options)
        assert answer.is_success, f"{method} {path} as {name}: {answer.status_code} {answer.text}"
        return answer.json()

    def create(self, name: str, access: Mapping[str, list[str]], description: str = "") -> str:
        body = {"name": name, "description": description, "access": dict(access)}
        return str(self.ok(OWNER, "POST", "/v1/collections/new", json=body)["id"])

    def upload(
        self, name: str, kind: str, text: str, file: str, collection: str | None = None
    ) -> dict[str, Any]:
        """A document of this identity; closed ones are for the insiders."""
        closed = kind.endswith("closed")
        document = {
            "markdown": f"# {file}\n\nThe code word is {text}{next(self.numbers)}.",
            "filename": f"{file}.md",
            "metadata": {"department": file},
            "acl": [self.tenant.insiders] if closed else None,
        }
        path = f"/v1/collections/{collection or self.collection}/add"
        view: dict[str, Any] = self.ok(name, "POST", path, json={"documents": [document]})["data"][0]
        return view

    def document(self, identity: Identity, kind: str) -> dict[str, Any]:
        """The document that a row speaks of, as this identity sees the world."""
        if kind in ("open", "closed"):
            return self.documents[kind]
        other = "closed" if kind.endswith("closed") else "open"
        return self.own.get((identity, kind)) or self.documents[other]

    def fresh(self, identity: Identity, kind: str) -> dict[str, Any]:
        """A document of this kind that may be spoilt."""
        who = identity if kind.startswith("own") else OWNER
        text = CLOSED_TEXT if kind.endswith("closed") else OWN_TEXT
        name = {"closed": CLOSED_NAME, "open": OPEN_NAME}.get(kind, f"{identity}-file")
        return self.upload(who, kind, text, f"{name}-{next(self.numbers)}")

    def fresh_collection(self) -> str:
        return self.create(f"{self.tenant.collection}-{next(self.numbers)}", self.tenant.access)

    def unreadable(self, identity: str) -> set[str]:
        """Texts that nobody may get to hear on behalf of this identity."""
        words = {CLOSED_TEXT, HIDDEN_TEXT, f"{HIDDEN}.md"}
        return words if identity in READERS else words | {OPEN_TEXT}

    def forbidden(self, identity: str) -> set[str]:
        """What no answer to this identity may hold."""
        words = {CLOSED_TEXT, HIDDEN_TEXT, HIDDEN, self.hidden, self.hidden_document["id"]}
        if identity in ("none", "stranger"):
            words |= {self.tenant.collection, self.collection}
        if identity not in ("manage", "master"):
            words |= {CLOSED_NAME, self.documents["closed"]["id"]}
        if identity in ("none", "stranger", "discover", "add"):
            words |= {OPEN_TEXT, OPEN_NAME, self.documents["open"]["id"]}
        return words

    def wait(self, collection: str) -> None:
        """Until every document of the collection is searchable."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            found = self.ok(OWNER, "GET", f"/v1/collections/{collection}/documents?limit=1000")["data"]
            if all(document["status"] == "completed" for document in found):
                return
            time.sleep(0.05)
        raise AssertionError(f"documents are not ready: {found}")


def prepare(stage: Stage) -> None:
    """Make everything. Those without `add` upload what is their own before they lose it."""
    tenant = stage.tenant
    everyone = [tenant.subject(identity) for identity in IDENTITIES if identity != "none"]
    stage.collection = stage.create(
        tenant.collection, {**tenant.access, "add": everyone}, "What everyone should know"
    )
    for identity in IDENTITIES:
        if identity == "none":
            continue
        for kind, text in (("own", OWN_TEXT), ("own closed", CLOSED_TEXT)):
            name = f"{identity}-{kind.replace(' ', '-')}"
            stage.own[identity, kind] = stage.upload(identity, kind, text, name)
    stage.documents["open"] = stage.upload(OWNER, "open", OPEN_TEXT, OPEN_NAME)
    stage.documents["closed"] = stage.upload(OWNER, "closed", CLOSED_TEXT, CLOSED_NAME)
    hidden = HIDDEN_NAME if tenant == LOCALS else f"{HIDDEN_NAME}-{tenant.prefix}{tenant.source}"
    stage.hidden = stage.create(hidden, {"query": [tenant.subject(INSIDER)]}, HIDDEN)
    stage.hidden_document = stage.upload(OWNER, "open", HIDDEN_TEXT, HIDDEN, stage.hidden)
    stage.ok(OWNER, "PATCH", f"/v1/collections/{stage.collection}", json={"access": tenant.access})
    stage.wait(stage.collection)
    stage.wait(stage.hidden)


class SignedIn(httpx.Auth):
    """What a request needs to be signed in, when it is sent."""

    def __init__(self, tenant: Tenant, name: str, url: str) -> None:
        self._tenant, self._name, self._url = tenant, name, url

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers.update(dict(self._tenant.headers(self._name, self._url)))
        yield request


@contextmanager
def clients(url: str, tenant: Tenant = LOCALS) -> Iterator[dict[str, httpx.Client]]:
    """One for each identity, by name."""
    fixed = {"none": {}, "master": {"authorization": f"Bearer {MASTER_KEY}"}}
    if tenant == LOCALS:
        fixed |= {
            f"partner/{entry['user']}": {"authorization": f"Bearer {entry['key']}"} for entry in PARTNER
        }
    options: dict[str, Any] = {"base_url": url, "timeout": 60, "trust_env": False}
    made = {name: httpx.Client(headers=headers, **options) for name, headers in fixed.items()}
    made |= {name: httpx.Client(auth=SignedIn(tenant, name, url), **options) for name in PEOPLE}
    try:
        yield made
    finally:
        for client in made.values():
            client.close()


@contextmanager
def stage(url: str, tenant: Tenant = LOCALS) -> Iterator[Stage]:
    """A prepared stage on the server at ``url``."""
    with clients(url, tenant) as found:
        made = Stage(url, found, tenant)
        prepare(made)
        yield made
