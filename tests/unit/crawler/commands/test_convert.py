"""`crawler convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crawler.cli import main
from tests.unit.crawler.samples import encrypted_pdf, pdf

Output = pytest.CaptureFixture[str]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    contents = {"good.pdf": pdf(), "bad.pdf": encrypted_pdf(), "words.txt": b"words"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: str(tmp_path / name) for name in contents}


def test_convert_prints_metadata_markdown_and_chunks(files: dict[str, str], capsys: Output) -> None:
    assert main(["convert", files["good.pdf"]]) == 0
    output = capsys.readouterr().out
    assert "title: Annual report" in output
    assert "| North | 10 | 12 |" in output
    assert "--- chunk 0 [0:" in output


def test_convert_prints_json_that_programs_can_read(files: dict[str, str], capsys: Output) -> None:
    assert main(["convert", files["good.pdf"], "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["metadata"]["page_count"] == 2
    assert shown["chunks"][0]["page_first"] == 1


def test_convert_of_an_unreadable_file_says_what_to_do(files: dict[str, str], capsys: Output) -> None:
    assert main(["convert", files["bad.pdf"]]) == 1
    assert "Remove the password" in capsys.readouterr().err


def test_convert_follows_a_configuration_and_tells_all_its_mistakes(
    files: dict[str, str], tmp_path: Path, capsys: Output
) -> None:
    config = tmp_path / "pipeline.yaml"
    config.write_text("limits: {max_bytes: 3}\n")
    assert main(["convert", files["words.txt"], "--config", str(config)]) == 1
    assert "larger than 3B" in capsys.readouterr().err
    config.write_text("formats: [{use: pdf, colour: 1}]\nspeed: 2\n")
    assert main(["convert", files["words.txt"], "--config", str(config)]) == 1
    errors = capsys.readouterr().err
    assert "formats[0].colour: unknown setting" in errors
    assert "speed: unknown setting" in errors
