"""The rights matrix can fail: with any one check taken away, the requests of the table notice.

The same requests as in `test_rights_matrix`, without chat, to the same code in this process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from crawler.store import Audience
from crawler.stores import LiteSupervisor
from plugins.api import admin
from plugins.collections import records, search, views
from plugins.collections.rights import Rights
from plugins.core.identity import RIGHTS, Decision, Principal, Right
from plugins.core.toolbox import Toolbox
from tests.journeys import test_rights_matrix as matrix
from tests.support.collections import lite
from tests.support.rights_probe import check, request
from tests.support.rights_server import serve
from tests.support.rights_stage import INSIDER, Stage, stage
from tests.support.rights_table import Case, cases

__all__ = ["lite"]

Patch = Callable[[pytest.MonkeyPatch], None]


def only_reads(case: Case) -> bool:
    return case.row.method == "GET" or case.row.route.endswith(("/search", "/tools"))


CASES = sorted(
    (case for case in cases(chat=False) if case.row.route != "/api/auth/me"),  # what it says is LiteLLM's
    key=lambda case: not only_reads(case),
)
BESIDE = [
    matrix.test_equal_names_of_two_sources_are_two_people,
    matrix.test_the_same_bytes_as_a_closed_document_are_a_new_document_to_those_who_may_not_read_it,
    matrix.test_a_right_that_is_taken_away_is_gone_at_once,
]


def asks(case: Case) -> Callable[[Stage], object]:
    return lambda on: check(on, case, request(on, case))


QUESTIONS: dict[str, Callable[[Stage], object]] = {
    **{str(case): asks(case) for case in CASES},
    **{test.__name__: test for test in BESIDE},
}
READING = {str(case) for case in CASES if only_reads(case)}
"""Those that leave the stage as it is, whatever the answer."""
YES = Decision(allowed=True, rule="taken away")
NO = Decision(allowed=False, rule="taken away")


def called_by(*functions: str) -> bool:
    """Whether the mutated method is called in one of these functions, or in a comprehension in it."""
    frame = sys._getframe(2)
    if frame.f_code.co_name.startswith("<") and frame.f_back is not None:
        frame = frame.f_back
    return frame.f_code.co_name in functions


def decide_in(function: str, answer: Decision = YES) -> Patch:
    """Every right is held, as one function sees it."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = Rights.decide

        def decide(self: Rights, principal: Principal, right: Right, collection: Any) -> Decision:
            return answer if called_by(function) else real(self, principal, right, collection)

        monkeypatch.setattr(Rights, "decide", decide)

    return patch


def admits_in(*functions: str) -> Patch:
    """Everybody is in every audience, as these functions see it."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = Rights.admits

        def admits(self: Rights, principal: Principal, acl: Any) -> bool:
            return called_by(*functions) or real(self, principal, acl)

        monkeypatch.setattr(Rights, "admits", admits)

    return patch


def all_rights_in(function: str) -> Patch:
    """Whoever asks holds all rights to the collection, as one function sees it."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = Rights.permissions

        def permissions(self: Rights, principal: Principal, collection: Any) -> list[Right]:
            return list(RIGHTS) if called_by(function) else real(self, principal, collection)

        monkeypatch.setattr(Rights, "permissions", permissions)

    return patch


def everybody_has(right: Right) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = Rights.decide

        def decide(self: Rights, principal: Principal, asked: Right, collection: Any) -> Decision:
            return YES if asked == right else real(self, principal, asked, collection)

        monkeypatch.setattr(Rights, "decide", decide)

    return patch


def implies(held: Right, other: Right) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = Rights.decide

        def decide(self: Rights, principal: Principal, right: Right, collection: Any) -> Decision:
            decision = real(self, principal, right, collection)
            widened = right == other and not decision.allowed
            return real(self, principal, held, collection) if widened else decision

        monkeypatch.setattr(Rights, "decide", decide)

    return patch


def manage_implies_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Rights.decide

    def decide(self: Rights, principal: Principal, right: Right, collection: Any) -> Decision:
        decision = real(self, principal, right, collection)
        is_implied = right != "manage" and "manage" in decision.rule
        return NO if is_implied else decision

    monkeypatch.setattr(Rights, "decide", decide)


def everybody_may_create(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rights, "decide_create", lambda *arguments: YES)


def everybody_may_run_every_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toolbox, "_check", lambda *arguments: None)


def everybody_may_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rights, "decide_audit", lambda *arguments: YES)


def everybody_manages_ollama(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rights, "decide_ollama", lambda *arguments: YES)


def everybody_gives_grants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rights, "may_create", lambda *arguments: True)


def all_audiences_in(module: Any) -> Patch:
    """The keys of all audiences, whoever asks."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        real = records.audiences

        async def audiences(connection: Any, principal: Principal, ids: Any) -> dict[str, Audience]:
            insider = Principal(
                source="local", subject=INSIDER, username=INSIDER, groups=frozenset({"insiders"})
            )
            return await real(connection, insider, ids)

        monkeypatch.setattr(module, "audiences", audiences)

    return patch


def both(*patches: Patch) -> Patch:
    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        for one in patches:
            one(monkeypatch)

    return patch


def names_lose_their_source(monkeypatch: pytest.MonkeyPatch) -> None:
    def subjects(self: Principal) -> frozenset[str]:
        names = {"*", f"user:local/{self.username}"} | {f"group:local/{group}" for group in self.groups}
        return frozenset(names | {f"role:{self.source}/{role}" for role in self.roles})

    monkeypatch.setattr(Principal, "subjects", property(subjects))


def everybody_is_admin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ADMIN", "internal_user")


MUTATIONS: dict[str, Patch] = {
    **{f"everybody has {right}": everybody_has(right) for right in RIGHTS},
    "query implies discover": implies("query", "discover"),
    "add implies query": implies("add", "query"),
    "manage implies nothing": manage_implies_nothing,
    "everybody may create": everybody_may_create,
    "everybody may run every tool": everybody_may_run_every_tool,
    "hidden is 403": all_rights_in("collection"),
    "a named collection needs no right": decide_in("collection"),
    "lists and searches of everything need no right": decide_in("collections"),
    "one's own content needs no query": decide_in("content"),
    "others' documents may be changed": decide_in("_mine"),
    "others' documents may be replaced": decide_in("place"),
    "others' jobs may be cancelled and tried again": all_rights_in("_mine"),
    "a job ignores its document's audience": all_rights_in("_find"),
    "uploaders change audiences": decide_in("change"),
    "the last manage can be taken away": decide_in("replace_grants"),
    "everybody's rights are explained to everybody": decide_in("effective"),
    "everybody reads the audit log": everybody_may_audit,
    "everybody manages Ollama's models": everybody_manages_ollama,
    "everybody lists people": everybody_gives_grants,
    "everybody is LiteLLM's admin": everybody_is_admin,
    "a document's page ignores its audience": admits_in("sees"),
    "a download ignores the audience": admits_in("content"),
    "the list of documents ignores audiences": all_audiences_in(views),
    "search ignores audiences in the store and in the rows": both(
        all_audiences_in(search), admits_in("_dress", "read")
    ),
    "known content ignores its audience": admits_in("_same"),
    "a row's audience is not looked at again": admits_in("_dress"),
    "subjects lose their source": names_lose_their_source,
}

DOCUMENT = "/v1/collections/{collection}/documents/{document}"
FIRST = {
    "everybody may create": "POST /v1/collections/new",
    "everybody may run every tool": "POST /v1/tools",
    "others' documents may be changed": f"PATCH {DOCUMENT} attributes open",
    "others' documents may be replaced": "POST /v1/collections/{collection}/add replace open",
    "others' jobs may be cancelled and tried again": "POST /v1/jobs/{job}/cancel",
    "a job ignores its document's audience": "GET /v1/jobs/{job}",
    "uploaders change audiences": f"PATCH {DOCUMENT} audience own",
    "the last manage can be taken away": "PUT /v1/collections/{collection}/access without oneself",
    "everybody's rights are explained to everybody": "GET /v1/collections/{collection}/access/effective of",
    "everybody reads the audit log": "GET /v1/audit",
    "everybody manages Ollama's models": "GET /v1/ollama",
    "everybody lists people": "GET /v1/users",
    "known content ignores its audience": "test_the_same_bytes",
    "a row's audience is not looked at again": "test_a_right_that_is_taken_away",
    "subjects lose their source": "test_equal_names",
}
"""What notices them, so that not everything has to be asked before."""


class Hall:
    """Gives out a stage, and a new one when the last is spoilt: to make one takes seconds."""

    def __init__(self, folders: pytest.TempPathFactory, lite: Path, open_stage: ExitStack) -> None:
        self._folders = folders
        self._lite = lite
        self._open_stage = open_stage
        self._stage: Stage | None = None

    def stage(self) -> Stage:
        if self._stage is None:
            url = self._open_stage.enter_context(serve(self._folders.mktemp("rights"), self._lite))
            self._stage = self._open_stage.enter_context(stage(url))
        return self._stage

    def complaint(self, first: str = "") -> str | None:
        """The first request that is not answered as it should be; those that begin with ``first`` are
        sent before all others."""
        on = self.stage()
        for name, ask in sorted(QUESTIONS.items(), key=lambda named: not named[0].startswith(first)):
            try:
                ask(on)
            except AssertionError as error:
                if name not in READING:
                    self._spoilt()
                return str(error) or "an assertion"
        return None

    def _spoilt(self) -> None:
        self._stage = None
        self._open_stage.close()


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory, lite: LiteSupervisor) -> Iterator[Hall]:
    with ExitStack() as open_stages:
        yield Hall(tmp_path_factory, lite.path, open_stages)


def test_the_matrix_holds_in_this_process(hall: Hall) -> None:
    assert hall.complaint() is None


@pytest.mark.parametrize("name", MUTATIONS)
def test_the_matrix_notices_when(hall: Hall, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hall.stage()  # made while all checks are there
    MUTATIONS[name](monkeypatch)
    found = hall.complaint(FIRST.get(name, ""))
    assert found is not None
    assert "internal_error" not in found, "the mutation itself is broken"


@pytest.mark.parametrize(
    "patch", [all_audiences_in(search), admits_in("_dress", "read")], ids=["by rows", "by the store"]
)
def test_search_stays_closed_by_one_of_its_two_checks_alone(
    hall: Hall, patch: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = hall.stage()
    patch(monkeypatch)
    for case in CASES:
        if case.row.route.endswith(("/search", "/tools")):
            answer = request(on, case).send(on.client(case.identity))
            assert not [word for word in on.forbidden(case.identity) if word in answer.text], case
