"""robots.txt as RFC 9309 says; the examples are its own where it has them."""

from __future__ import annotations

import pytest

from crawler.robots import Robots


def allows(rules: str, path: str) -> bool:
    return Robots(f"User-agent: *\n{rules}", "litellm-collections").allows(path)


@pytest.mark.parametrize(
    ("rules", "path", "allowed"),
    [
        ("", "/page", True),
        ("Disallow:", "/page", True),
        ("Disallow: /", "/page", False),
        ("Disallow: /", "/robots.txt", True),
        ("Disallow: /fish", "/fish.html", False),
        ("Disallow: /fish/", "/fish", True),
        ("Allow: /p\nDisallow: /", "/page", True),
        ("Allow: /folder\nDisallow: /folder", "/folder/page", True),
        ("Allow: /page\nDisallow: /*.htm", "/page.htm", False),
        ("Allow: /$\nDisallow: /", "/", True),
        ("Allow: /$\nDisallow: /", "/page.htm", False),
        ("Disallow: /*.pdf$", "/a/b.pdf", False),
        ("Disallow: /*.pdf$", "/a/b.pdf?x=1", True),
        ("Disallow: /*?", "/a?x=1", False),
        ("Disallow: /a*b*c", "/a1b2c3", False),
        ("Disallow: /a*b*c", "/a1c2b3", True),
        ("Disallow: /foo/bar/ツ", "/foo/bar/%E3%83%84", False),
        ("Disallow: /foo/bar/%62%61%7A", "/foo/bar/baz", False),
        ("DISALLOW : /x # why", "/x", False),
        ("Sitemap: /\nDisallow: /x", "/x", False),
    ],
)
def test_the_longest_rule_that_matches_decides(rules: str, path: str, allowed: bool) -> None:
    assert allows(rules, path) is allowed


def test_rules_for_us_come_before_rules_for_all_and_groups_of_one_name_are_one() -> None:
    robots = Robots(
        "User-agent: *\nDisallow: /\n\n"
        "User-agent: Litellm-Collections\nDisallow: /a\n\n"
        "User-agent: other\nUser-agent: litellm-collections/2\nDisallow: /b\n",
        "litellm-collections",
    )
    assert [robots.allows(path) for path in ("/a", "/b", "/c")] == [False, False, True]


def test_a_hostile_pattern_costs_no_time() -> None:
    """With a backtracking matcher this would not end."""
    assert allows("Disallow: /" + "*a" * 5_000 + "$", "/" + "a" * 4_999)
