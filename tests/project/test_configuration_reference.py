"""docs/configuration.md is what the settings models say, and every setting says what it is for."""

from __future__ import annotations

from pathlib import Path

from plugins.bundle.reference import reference

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "run `python -m plugins reference`"


def test_every_setting_is_explained() -> None:
    rows = [line for line in reference().splitlines() if line.startswith("| `")]
    assert len(rows) > 60
    assert [row for row in rows if row.replace("\\|", "").split("|")[4].strip() == ""] == []
