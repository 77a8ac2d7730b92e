"""What the crawler's README shows, done."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from crawler.cli import main
from crawler.crawler import check

README = (Path(__file__).parents[3] / "crawler" / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_example_runs_and_prints_what_it_made() -> None:
    done = subprocess.run(
        [sys.executable, "-c", blocks("python")[0]], check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "Notice ('Notice',) 384\n"


def test_the_format_of_ones_own_is_one() -> None:
    code = blocks("python")[1] + (
        "\nsource = Source(filename='a.shout', content=b'hey')"
        "\nassert Shout(Settings()).accepts(source) and Shout(Settings()).convert(source).markdown == 'HEY'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_settings_shown_are_settings() -> None:
    config = yaml.safe_load(blocks("yaml")[0])
    config["formats"] = [part for part in config["formats"] if part["use"] != "acme.jira"]
    assert check(config, "readme") == []


@pytest.mark.parametrize("command", ["crawl", "sync", "convert"])
def test_the_options_shown_are_options(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    offered = capsys.readouterr().out
    shown = {
        "crawl": ["--collection", "--url", "--key-env"],
        "sync": ["--collection", "--dry-run"],
        "convert": ["--json", "--config"],
    }
    assert all(option in README and option in offered for option in shown[command])
