"""The console command ``crawler``: finds the sub-command and runs it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.metadata import entry_points

from crawler.commands import GROUP, Command, say
from crawler.commands.convert import CONVERT
from crawler.commands.crawl import CRAWL
from crawler.commands.sync import SYNC
from crawler.errors import ConfigError

OURS = {"crawl": CRAWL, "sync": SYNC, "convert": CONVERT}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when all of it succeeded, 1 when something failed, 2 when the command line is
    wrong."""
    commands = {**OURS, **_of_others()}
    parser = argparse.ArgumentParser(prog="crawler", description="Documents to searchable passages.")
    choices = parser.add_subparsers(dest="command", required=True)
    for name, command in commands.items():
        command.add_arguments(choices.add_parser(name, help=command.help, description=command.help))
    options = parser.parse_args(arguments)
    chosen = commands[options.command]
    try:
        return chosen.run(options)
    except ConfigError as error:
        say("\n".join(error.mistakes), error=True)
    except KeyboardInterrupt:
        say(f"Interrupted. {chosen.interrupted}".rstrip(), error=True)
    return 1


def _of_others() -> dict[str, Command]:
    return {entry.name: entry.load() for entry in entry_points(group=GROUP)}
