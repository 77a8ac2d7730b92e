"""Names of files that others chose: what is left of them can be shown and stored anywhere."""

from __future__ import annotations

import pytest

from crawler.filenames import clean_name, some


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("report.pdf", "report.pdf"),
        ("Über  uns\u00a0.md", "Über uns .md"),
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\a/plan.pdf", "plan.pdf"),
        ("in\u202evoice\x07\u200b.txt", "invoice.txt"),
        ("two\nlines\u2028here.txt", "two lines here.txt"),
        (" .hidden. ", "hidden"),
        ("x" * 300 + ".pdf", "x" * 196 + ".pdf"),
        ("x" * 300 + "." + "y" * 40, "x" * 200),
    ],
)
def test_a_name_keeps_what_can_be_read_and_its_end(given: str, name: str) -> None:
    assert clean_name(given, "document") == name


@pytest.mark.parametrize("given", ["", "..", "folder/", "\u202e", " . "])
def test_a_name_with_nothing_to_keep_is_the_one_for_such(given: str) -> None:
    assert clean_name(given, "document") == "document"


def test_of_many_names_ten_are_told() -> None:
    assert some(["a\x1b", "b"]) == "a, b"
    assert some([str(number) for number in range(12)]) == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"
