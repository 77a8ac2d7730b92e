"""The sub-commands of ``crawler``, one file each. Other packages add theirs by the entry-point group
``crawler.commands``: the entry's name is the command's, its object a :class:`Command`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

GROUP = "crawler.commands"


@dataclass(frozen=True)
class Command:
    """A sub-command."""

    help: str
    """One line."""
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    """Does it, and returns the exit status: 0, or 1 when something failed."""
    interrupted: str = ""
    """What becomes of what was done by then, when it is interrupted."""


def say(text: str, *, error: bool = False) -> None:
    """A line for who runs the command."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)
