"""The right-check: what is never gained, what implies what, and which mistakes of the YAML are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plugins.collections.rights import Grants, Rights
from plugins.core.config import CollectionsConfig, Config, Creation, Policy, ToolEntry
from plugins.core.errors import ConfigError, InvalidRequest
from plugins.core.identity import RIGHTS, Principal, Right
from plugins.core.identity_config import IdentityConfig, Source
from tests.support.collections import person


@dataclass
class Shelf:
    name: str | None = "hr-handbook"
    kind: str = "bundle"
    grants: Grants = field(default_factory=dict)
    held: frozenset[Right] = frozenset()


def rights(
    policy: list[Policy] | None = None,
    create: list[Creation] | None = None,
    tools: list[ToolEntry] | None = None,
    sources: tuple[str, ...] = ("kc", "gitlab"),
) -> Rights:
    return Rights(
        Config(
            folder=Path("config"),
            identity=IdentityConfig(sources=[Source(use="oidc", name=name) for name in sources]),
            collections=CollectionsConfig(policy=policy or [], create=create or []),
            tools=tools or [],
        )
    )


names = st.sampled_from(["a", "b", "c/d"])
subjects = st.one_of(
    st.just("*"),
    st.builds(
        "{}:{}/{}".format,
        st.sampled_from(["user", "group", "role"]),
        st.sampled_from(["kc", "gitlab"]),
        names,
    ),
)
grants_of = st.dictionaries(st.sampled_from(RIGHTS), st.frozensets(subjects, max_size=3))
policies = st.lists(
    st.builds(
        Policy,
        names=st.sampled_from(["*", "hr-*", "x"]),
        **{right: st.lists(subjects, max_size=2) for right in RIGHTS},
    ),
    max_size=3,
)
principals = st.builds(
    lambda user, source, groups, roles: Principal(
        source=source, subject=user, username=user, groups=groups, roles=roles
    ),
    names,
    st.sampled_from(["kc", "gitlab"]),
    st.frozensets(names),
    st.frozensets(names),
)


@given(policies, grants_of, principals, st.data())
def test_a_right_is_never_gained_by_losing_groups_or_roles(
    policy: list[Policy], grants: Grants, principal: Principal, data: st.DataObject
) -> None:
    checks = rights(policy)
    fewer = principal.model_copy(
        update={
            "groups": data.draw(st.frozensets(st.sampled_from(sorted(principal.groups))))
            if principal.groups
            else frozenset(),
            "roles": frozenset(),
        }
    )
    fewer = Principal.model_validate(fewer.model_dump())
    shelf = Shelf(grants=grants)
    assert set(checks.permissions(fewer, shelf)) <= set(checks.permissions(principal, shelf))
    for audience in grants.values():
        assert checks.admits(principal, audience) or not checks.admits(fewer, audience)


@given(st.sampled_from(RIGHTS), subjects)
def test_manage_implies_all_rights_and_no_other_implies_another(right: Right, subject: str) -> None:
    holder = Principal(
        source="kc",
        subject="a",
        username="a",
        groups=frozenset({"a", "b", "c/d"}),
        roles=frozenset({"a", "b", "c/d"}),
    )
    shelf = Shelf(grants={right: frozenset({subject})})
    held = set(rights().permissions(holder, shelf))
    if subject not in holder.subjects:
        assert held == set()
    elif right == "manage":
        assert held == set(RIGHTS)
    else:
        assert held == {right}


def test_nothing_is_allowed_by_default() -> None:
    checks = rights()
    alice = person("alice", "staff")
    assert checks.permissions(alice, Shelf()) == []
    assert not checks.decide_create(alice, "x").allowed
    assert not checks.decide_tool(alice, "search_documents").allowed
    assert not checks.decide(alice, "query", Shelf(name=None, grants={"query": frozenset("*")})).allowed
    assert not checks.decide(alice, "query", Shelf(kind="milvus", grants={"query": frozenset("*")})).allowed


def test_equal_names_of_two_issuers_never_mix() -> None:
    shelf = Shelf(grants={"query": frozenset({"user:kc/alice"}), "add": frozenset({"group:kc/staff"})})
    assert rights().permissions(person("alice", "staff"), shelf) == ["query", "add"]
    assert rights().permissions(person("alice", "staff", source="gitlab"), shelf) == []


def test_policy_goes_by_the_name_and_the_answer_names_the_rule() -> None:
    checks = rights([Policy(names="hr-*", query=["group:kc/hr"]), Policy(names="*", discover=["*"])])
    anna = person("anna", "hr")
    assert checks.permissions(anna, Shelf()) == ["discover", "query"]
    assert checks.permissions(anna, Shelf(name="finance")) == ["discover"]
    assert checks.decide(anna, "query", Shelf()).rule == "collections.policy[0].query: group:kc/hr"
    assert checks.decide(anna, "add", Shelf()).rule == "nothing grants add"


def test_create_and_tools_are_granted_by_name() -> None:
    checks = rights(
        create=[Creation(names="hr-*", subjects=["role:kc/author"])],
        tools=[ToolEntry(use="acme.tools.jira", allow=["user:kc/anna"])],
    )
    author = person("bob", roles=["author"])
    assert checks.decide_create(author, "hr-new").allowed
    assert not checks.decide_create(author, "new").allowed
    assert checks.decide_tool(person("anna"), "jira").allowed
    assert not checks.decide_tool(author, "jira").allowed


def test_the_short_form_of_a_subject_is_accepted_with_one_source_only() -> None:
    assert rights(sources=("kc",)).canonical(["user:anna", "*", "user:kc/anna"], "acl") == [
        "*",
        "user:kc/anna",
    ]
    with pytest.raises(InvalidRequest) as ambiguous:
        rights().canonical(["user:anna"], "acl")
    assert ambiguous.value.param == "acl"


def test_every_mistake_of_the_yaml_is_told_at_once_with_its_place() -> None:
    with pytest.raises(ConfigError) as wrong:
        rights(
            [Policy(names="*", query=["anna", "user:kc/x"], add=["user:ldap/anna"])],
            [Creation(subjects=["robot:kc/x"])],
            [ToolEntry(use="search_documents", allow=["role:"])],
        )
    places = [line.split(":")[0] for line in wrong.value.mistakes]
    assert places == [
        "collections.policy[0].query[0]",
        "collections.policy[0].add[0]",
        "collections.create[0].subjects[0]",
        "tools[0].allow[0]",
    ]
