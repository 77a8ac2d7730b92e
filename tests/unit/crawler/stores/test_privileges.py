"""Milvus's grants read as rights: the one table of `crawler.stores._privileges`."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from crawler.stores._privileges import BUILT_IN_GROUPS, read

Grant = tuple[str, str, str]
"""Object type, object, privilege."""


def rights(*grants: Grant, groups: Mapping[str, frozenset[str]] = BUILT_IN_GROUPS) -> dict[str, list[str]]:
    """For `mine` and for `other`."""
    rows = [{"object_type": kind, "object_name": name, "privilege": what} for kind, name, what in grants]
    found = read(rows, groups)
    return {name: sorted(found.on(name)) for name in ("mine", "other")}


@pytest.mark.parametrize(
    ("grants", "mine", "other"),
    [
        ([], [], []),
        ([("Collection", "mine", "Search")], [], []),
        ([("Collection", "mine", "Query")], [], []),
        ([("Collection", "mine", "Search"), ("Collection", "mine", "Query")], ["query"], []),
        ([("Collection", "mine", "Search"), ("Collection", "other", "Query")], [], []),
        ([("Collection", "*", "Search"), ("Collection", "mine", "Query")], ["query"], []),
        ([("Collection", "mine", "Insert")], ["add"], []),
        ([("Collection", "mine", "Delete"), ("Collection", "mine", "Load")], [], []),
        ([("Collection", "mine", "*")], ["add", "query"], []),
        ([("Collection", "*", "*")], ["add", "query"], ["add", "query"]),
        ([("Global", "mine", "DropCollection")], ["manage"], []),
        ([("Global", "*", "DropCollection")], ["manage"], ["manage"]),
        ([("Global", "*", "*")], ["manage"], ["manage"]),
        ([("Global", "*", "DescribeCollection"), ("Global", "*", "ShowCollections")], [], []),
        ([("User", "*", "*")], [], []),
        ([("Global", "mine", "CollectionReadOnly")], ["query"], []),
        ([("Global", "mine", "CollectionReadWrite")], ["add", "query"], []),
        ([("Global", "*", "CollectionAdmin")], ["add", "query"], ["add", "query"]),
        ([("Global", "*", "DatabaseAdmin")], ["manage"], ["manage"]),
        ([("Global", "*", "DatabaseReadWrite")], [], []),
        ([("Global", "*", "ClusterAdmin")], [], []),
        ([("Global", "mine", "NoSuchGroup")], [], []),
    ],
)
def test_a_right_takes_all_its_privileges_on_the_collection(
    grants: list[Grant], mine: list[str], other: list[str]
) -> None:
    assert rights(*grants) == {"mine": mine, "other": other}


def test_a_group_of_the_operator_means_what_the_server_says() -> None:
    groups = {
        "librarians": frozenset({"Search", "Query", "Insert"}),
        "CollectionReadOnly": frozenset({"Search"}),
    }
    assert rights(("Global", "mine", "librarians"), groups=groups)["mine"] == ["add", "query"]
    assert rights(("Global", "mine", "CollectionReadOnly"), groups=groups)["mine"] == []


@pytest.mark.parametrize(
    ("grant", "allowed"),
    [
        (("Global", "*", "CreateCollection"), True),
        (("Global", "*", "*"), True),
        (("Global", "*", "DatabaseAdmin"), True),
        (("Collection", "*", "*"), False),
        (("Global", "*", "DropCollection"), False),
    ],
)
def test_who_may_create(grant: Grant, allowed: bool) -> None:
    kind, name, privilege = grant
    row = {"object_type": kind, "object_name": name, "privilege": privilege}
    assert read([row], BUILT_IN_GROUPS).create is allowed
