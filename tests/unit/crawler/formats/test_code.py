"""Source code: which language, and what it declares, as headings."""

from __future__ import annotations

import pytest

from crawler.contracts import Converted, Source
from crawler.formats.code import Code
from crawler.settings import Settings
from tests.unit.crawler.text_samples import PYTHON

CODE = Code(Settings())


def read(filename: str, text: str) -> Converted:
    source = Source(filename=filename, content=text.encode())
    assert CODE.accepts(source)
    return CODE.convert(source)


def headings(markdown: str) -> list[str]:
    """Those outside of fences."""
    found: list[str] = []
    fence = ""
    for line in markdown.split("\n"):
        if fence:
            fence = "" if line == fence else fence
        elif line.startswith("```"):
            fence = line[: len(line) - len(line.lstrip("`"))]
        elif line:
            found.append(line)
    return found


def test_classes_and_functions_of_python_are_headings_and_properties() -> None:
    converted = read("tools/leave.py", PYTHON)
    assert headings(converted.markdown) == [
        "# leave.py", "## class Leave", "### function days", "## function main", "# leave.py",
    ]  # fmt: skip
    assert converted.metadata == {
        "programming_language": "python",
        "line_count": 22,
        "functions": ["days", "main"],
        "classes": ["Leave"],
        "imports": ["datetime", "decimal"],
    }


def test_no_line_is_lost_and_code_with_fences_gets_longer_ones() -> None:
    markdown = read("leave.py", PYTHON).markdown
    assert [line for line in PYTHON.split("\n") if line not in markdown.split("\n")] == []
    assert '````python\ndef main() -> None:\n    print("class Wrong: ```")\n````' in markdown


DECLARATIONS = {
    "Leave.java": (
        "package x;\n\n@Entity\npublic class Leave extends Base {\n  /** Days. */\n  @Override\n"
        "  public static <T> int days(List<T> a) throws E {\n    if (a.isEmpty()) { return 0; }\n  }\n\n"
        "  Leave(int a) {\n  }\n  interface Kind { }\n}\n",
        ["## class Leave", "### function days", "### function Leave", "### interface Kind"],
    ),
    "leave.c": (
        "#include <a.h>\n\nstruct leave {\n  int days;\n};\n\n/* adds */\nstatic struct leave *add(int a,\n"
        "    char *b)\n{\n  if (a)\n    return call(a,\n      b);\n}\n\nint main(void) {\n}\n",
        ["## struct leave", "## function add", "## function main"],
    ),
    "leave.cpp": (
        "template <class T>\nclass Leave : public Base {\npublic:\n  void days() const override {\n  }\n};\n"
        "\nint Leave::left(int x) {\n}\n",
        ["## class Leave", "### function days", "## function Leave::left"],
    ),
    "leave.js": (
        "// class Comment {}\nexport class Leave extends Base {\n  async days(a) {\n    if (a) {\n    }\n"
        "  }\n}\nexport default function main() {\n}\nconst add = async (x) => {\n};\n",
        ["## class Leave", "### function days", "## function main", "## function add"],
    ),
    "leave.ts": (
        "interface Kind { a: string }\nexport abstract class Leave<T> {\n  private days(a: T): number {\n"
        "  }\n}\nexport const add = (x: number): string => {\n}\n",
        ["## interface Kind", "## class Leave", "### function days", "## function add"],
    ),
    "leave.go": (
        "package main\n\n// Days of it.\nfunc (l *Leave) Days(a int) error {\n}\n\ntype Leave struct {\n}\n",
        ["## function Days", "## type Leave"],
    ),
    "leave.rs": (
        "pub fn add<T>(a: T) -> i32 {\n}\n\n#[derive(Debug)]\npub(crate) struct Leave {\n}\n\n"
        "impl Kind for Leave {\n    fn days(&self) {}\n}\n",
        ["## function add", "## struct Leave", "## impl Kind", "### function days"],
    ),
    "Leave.cs": (
        "namespace Work\n{\n  public sealed class Leave : Base\n  {\n    public async Task<int> Days(int a)\n"
        "    {\n    }\n  }\n}\n",
        ["## namespace Work", "### class Leave", "#### function Days"],
    ),
    "leave.rb": (
        "module Work\n  class Leave < Base\n    def days?(a)\n    end\n  end\nend\n",
        ["## module Work", "### class Leave", "#### function days?"],
    ),
    "leave.php": (
        "<?php\nfinal class Leave {\n  public function days($a) {\n  }\n}\n",
        ["## class Leave", "### function days"],
    ),
    "leave.sh": (
        "set -e\nadd() {\n  echo 1\n}\nfunction main {\n  add\n}\n",
        ["## function add", "## function main"],
    ),
    "leave.sql": (
        "CREATE TABLE leave (\n  days int\n);\n\nCREATE OR REPLACE FUNCTION add() RETURNS int AS $$\n"
        "BEGIN\nEND\n$$;\n",
        ["## table leave", "## function add"],
    ),
    "Leave.kt": (
        "data class Leave(val days: Int) {\n  fun left(a: Int): Int = 1\n}\n",
        ["## class Leave", "### function left"],
    ),
    "Leave.swift": (
        "class Leave {\n  func days(_ a: Int) -> Int {\n  }\n}\nextension Leave {}\n",
        ["## class Leave", "### function days", "## extension Leave"],
    ),
    "leave.lua": ("local function add(a)\nend\n", ["## function add"]),
    "leave.R": ("add <- function(a) {\n}\n", ["## function add"]),
}  # fmt: skip


@pytest.mark.parametrize("filename", DECLARATIONS)
def test_what_a_language_declares_is_a_heading(filename: str) -> None:
    text, found = DECLARATIONS[filename]
    converted = read(filename, text)
    assert [h for h in headings(converted.markdown) if h != f"# {filename}"] == found
    assert [line for line in text.split("\n") if line not in converted.markdown.split("\n")] == []


def test_comments_and_decorators_stand_with_what_they_are_about() -> None:
    markdown = read("Leave.java", DECLARATIONS["Leave.java"][0]).markdown
    assert "### function days\n\n```java\n  /** Days. */\n  @Override\n  public static" in markdown


@pytest.mark.parametrize(
    ("filename", "content", "language"),
    [
        ("run", "#!/usr/bin/env python3\nx = 1\n", "python"),
        ("run", "#!/bin/sh\nls\n", "bash"),
        ("Dockerfile", "FROM scratch\n", "docker"),
        ("config.yaml", "# a comment\na: 1\n", "yaml"),
        ("old.py", "print 'python 2'\n", "python"),
    ],
)
def test_the_language_is_told_by_name_or_interpreter(filename: str, content: str, language: str) -> None:
    converted = read(filename, content)
    assert converted.metadata["programming_language"] == language
    assert headings(converted.markdown) == [f"# {filename}"]


@pytest.mark.parametrize(
    ("filename", "content"),
    [
        ("notes.txt", b"x = 1"),
        ("run", b"#!/usr/bin/env nothing\n"),
        ("a.py", b"\x7fELF\x00"),
        ("a.py", b"<html>"),
    ],
)
def test_what_is_no_code_is_left_to_others(filename: str, content: bytes) -> None:
    assert not CODE.accepts(Source(filename=filename, content=content))
