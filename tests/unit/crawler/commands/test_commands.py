"""Commands of other packages, and what is said when one is interrupted."""

from __future__ import annotations

import argparse
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from crawler.cli import main
from crawler.commands import GROUP, Command


def count(options: argparse.Namespace) -> int:
    if options.upto < 0:
        raise KeyboardInterrupt
    return int(options.upto)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("upto", type=int)


COUNT = Command("count", add_arguments, count, "Nothing was lost.")


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("count", f"{__name__}:COUNT", GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda _: COUNT)
    monkeypatch.setattr("crawler.cli.entry_points", lambda group: EntryPoints([entry]).select(group=group))


def test_a_command_of_an_installed_package_is_one_of_crawlers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["count", "3"]) == 3
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "count" in capsys.readouterr().out


def test_an_interrupted_command_says_what_becomes_of_what_was_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["count", "--", "-1"]) == 1
    assert capsys.readouterr().err == "Interrupted. Nothing was lost.\n"
