"""Where the model's files are looked for first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crawler.embedders import _minilm
from crawler.errors import ConfigError


def test_the_folder_that_the_environment_names_goes_before_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINILM_PATH", raising=False)
    installed = _minilm.find("tokenizer.json")
    monkeypatch.setenv("MINILM_PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="MINILM_PATH"):
        _minilm.find("tokenizer.json")
    shutil.copy(installed, tmp_path)
    assert _minilm.find("tokenizer.json") == tmp_path / "tokenizer.json" != installed


def test_a_folder_in_the_settings_goes_before_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINILM_PATH", raising=False)
    installed = _minilm.find("tokenizer.json")
    monkeypatch.setenv("MINILM_PATH", str(tmp_path))
    assert _minilm.find("tokenizer.json", installed.parent) == installed
