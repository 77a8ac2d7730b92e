"""The one right-check: every route, tool and search asks here, and gets the rule that decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple, Protocol

from plugins.collections.standings import NOBODY, Standing, Standings
from plugins.core.config import Config
from plugins.core.errors import ConfigError, InvalidRequest
from plugins.core.identity import RIGHTS, Decision, Principal, Right, canonical_subject

Grants = Mapping[Right, frozenset[str]]
"""The subjects that hold each right."""

MAX_SUBJECTS = 100
"""In one list of grants or one document's audience."""


class Guarded(Protocol):
    """What a right is held to."""

    @property
    def name(self) -> str | None: ...
    @property
    def kind(self) -> str: ...
    @property
    def grants(self) -> Grants: ...
    @property
    def held(self) -> frozenset[Right]:
        """What the vector store itself gives the caller; empty where it was not asked."""


class _Rule(NamedTuple):
    place: str
    names: str
    grants: Grants


class Rights:
    """Who may do what. Default: nothing.

    For a collection of the kind `bundle` the YAML's policy and the collection's own grants say so; for one of
    the kind `milvus`, Milvus's own roles alone.
    """

    def __init__(self, config: Config, standings: Standings | None = None) -> None:
        """Read the policy, the tools' allow lists and the names of the identity sources.

        Args:
            config: The configuration.
            standings: What the vector store's own rights are; without it nobody has any.

        Raises:
            ConfigError: With a line for every subject that is none.
        """
        self._standings = standings
        kinds = {config.collections.rights, *(entry.rights for entry in config.collections.adopt)}
        self.milvus = "milvus" in kinds
        """Whether there may be collections whose rights are Milvus's."""
        sources = config.identity.sources
        self._sources = frozenset(source.name or source.use.rpartition(".")[2] for source in sources)
        mistakes: list[str] = []

        def subjects(texts: Iterable[str], place: str) -> frozenset[str]:
            found = set()
            for index, text in enumerate(texts):
                try:
                    found.add(canonical_subject(text, self._sources))
                except InvalidRequest as error:
                    mistakes.append(f"{place}[{index}]: {error.message}")
            return frozenset(found)

        self._policy = [
            _Rule(
                place := f"collections.policy[{number}]",
                policy.names,
                {right: subjects(getattr(policy, right), f"{place}.{right}") for right in RIGHTS},
            )
            for number, policy in enumerate(config.collections.policy)
        ]
        self._create = [
            (entry.names, subjects(entry.subjects, f"collections.create[{number}].subjects"))
            for number, entry in enumerate(config.collections.create)
        ]
        self._tools = {
            entry.use.rpartition(".")[2]: subjects(entry.allow, f"tools[{number}].allow")
            for number, entry in enumerate(config.tools)
        }
        self._auditors = subjects(config.audit.readers, "audit.readers")
        self._ollama_managers = subjects(config.ollama.managers, "ollama.managers")
        if mistakes:
            raise ConfigError(mistakes)

    @property
    def sources(self) -> frozenset[str]:
        """The names of the identity sources."""
        return self._sources

    def decide(self, principal: Principal, right: Right, collection: Guarded) -> Decision:
        """Whether the principal holds the right.

        In a collection of the kind `bundle`, `manage` implies every other. In one of the kind `milvus` none
        implies another: nobody gets more through us than Milvus gives them.
        """
        if collection.kind == "milvus":
            allowed = right in collection.held
            say = "grant" if allowed else "do not grant"
            return Decision(
                allowed=allowed, rule=f"Milvus's roles {say} {right} to the caller's own credential"
            )
        if collection.kind != "bundle" or collection.name is None:
            return Decision(allowed=False, rule="the collection does not take its rights from here")
        wanted: tuple[Right, ...] = (right,) if right == "manage" else (right, "manage")
        for held in wanted:
            for rule in self._policy:
                if fnmatchcase(collection.name, rule.names):
                    decision = _match(principal, rule.grants[held], f"{rule.place}.{held}")
                    if decision.allowed:
                        return decision
            decision = _match(principal, collection.grants.get(held, frozenset()), f"grant of {held}")
            if decision.allowed:
                return decision
        return Decision(allowed=False, rule=f"nothing grants {right}")

    async def standing(self, principal: Principal, since: float = 0.0) -> Standing:
        """What the vector store itself lets the principal do, asked at `since` or later. Does not raise."""
        return NOBODY if self._standings is None else await self._standings.of(principal, since)

    def permissions(self, principal: Principal, collection: Guarded) -> list[Right]:
        """The rights that the principal holds, in the order of `RIGHTS`."""
        return [right for right in RIGHTS if self.decide(principal, right, collection).allowed]

    def decide_create(self, principal: Principal, name: str) -> Decision:
        """Whether the principal may create a collection of this name."""
        for number, (names, subjects) in enumerate(self._create):
            if fnmatchcase(name, names):
                decision = _match(principal, subjects, f"collections.create[{number}]")
                if decision.allowed:
                    return decision
        return Decision(allowed=False, rule="nothing grants create for this name")

    def may_create(self, principal: Principal) -> bool:
        """Whether the principal may create collections of some name."""
        return any(not principal.subjects.isdisjoint(subjects) for _, subjects in self._create)

    def decide_audit(self, principal: Principal) -> Decision:
        """Whether the principal may read the audit log."""
        return _match(principal, self._auditors, "audit.readers")

    def decide_ollama(self, principal: Principal) -> Decision:
        """Whether the principal may manage Ollama's models."""
        return _match(principal, self._ollama_managers, "ollama.managers")

    def decide_tool(self, principal: Principal, tool: str) -> Decision:
        """Whether the principal may run the tool; a tool that is not configured is denied."""
        return _match(principal, self._tools.get(tool, frozenset()), f"tools.{tool}.allow")

    def admits(self, principal: Principal, acl: Iterable[str] | None) -> bool:
        """Whether an audience (None = everyone who may query) admits the principal."""
        return acl is None or not principal.subjects.isdisjoint(acl)

    def canonical(self, subjects: Sequence[str], param: str) -> list[str]:
        """Subjects in full, sorted and each once.

        Raises:
            InvalidRequest: One of them is not a subject, or there are too many.
        """
        if len(subjects) > MAX_SUBJECTS:
            raise InvalidRequest(f"at most {MAX_SUBJECTS} subjects are accepted; use a group", param=param)
        return sorted({canonical_subject(text, self._sources, param) for text in subjects})


def _match(principal: Principal, subjects: frozenset[str], place: str) -> Decision:
    held = principal.subjects & subjects
    if not held:
        return Decision(allowed=False, rule=f"{place} does not name the caller")
    return Decision(allowed=True, rule=f"{place}: {min(held)}")
