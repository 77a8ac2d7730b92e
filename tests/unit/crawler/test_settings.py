"""Values that the YAML leaves to the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crawler.settings import from_environment


def read(value: str, **environ: str) -> tuple[Any, list[str]]:
    mistakes: list[str] = []
    return from_environment({"key": value}, mistakes, "x", environ), mistakes


def test_a_secret_is_read_from_the_file_that_its_variable_names(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret\n", encoding="utf-8")
    assert read("os.environ/TOKEN", TOKEN_FILE=f"{tmp_path}/secret") == ({"key": "s3cret"}, [])


def test_the_variable_itself_counts_before_its_file(tmp_path: Path) -> None:
    assert read("os.environ/TOKEN", TOKEN="direct", TOKEN_FILE=f"{tmp_path}/none") == ({"key": "direct"}, [])


@pytest.mark.parametrize("default", ["", ":-fallback"])
def test_a_file_that_cannot_be_read_is_a_mistake_without_its_path_also_with_a_default(
    tmp_path: Path, default: str
) -> None:
    _, mistakes = read(f"os.environ/TOKEN{default}", TOKEN_FILE=f"{tmp_path}/none")
    assert mistakes == ["x.key: the file that TOKEN_FILE names cannot be read"]


def test_without_variable_and_file_the_default_counts() -> None:
    assert read("os.environ/TOKEN:-fallback") == ({"key": "fallback"}, [])
    assert read("os.environ/TOKEN")[1] == ["x.key: the environment variable TOKEN is not set"]
