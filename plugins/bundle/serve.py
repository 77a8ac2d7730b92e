"""`python -m plugins serve`: check the configuration, then become the stock proxy."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import MutableMapping, Sequence
from pathlib import Path

from crawler.settings import FILE_SUFFIX, PREFIX, variable
from plugins.bundle.check import check
from plugins.core.config import folder

REFERENCE = re.compile(re.escape(PREFIX) + r"([A-Za-z_][A-Za-z0-9_]*)")


def serve(config: Path, arguments: Sequence[str]) -> int:
    """Become ``litellm --config <config> <arguments>``, which then gets the signals.

    LiteLLM's YAML takes secrets from the environment alone: those that it names and of which only
    ``NAME_FILE`` is set are read from their files.

    Returns:
        The exit status 1, when there are mistakes; all of them are printed.
    """
    mistakes = [*read_secrets(config, os.environ), *check(folder(), config.absolute())]
    if not mistakes:
        program = str(Path(sys.executable).parent / "litellm")
        os.execv(program, [program, "--config", str(config), *arguments])  # noqa: S606 - becomes the proxy
    print(*mistakes, sep="\n", file=sys.stderr)  # noqa: T201 - a command's output
    return 1


def read_secrets(config: Path, environ: MutableMapping[str, str]) -> list[str]:
    """Put the variables that the YAML names into ``environ`` where only their files are; answers mistakes."""
    try:
        names = set(REFERENCE.findall(config.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return []  # the check says it better
    mistakes = []
    for name in sorted(names):
        try:
            if value := variable(name, environ):
                environ[name] = value
        except (OSError, UnicodeDecodeError):
            mistakes.append(f"{config}: the file that {name}{FILE_SUFFIX} names cannot be read")
    return mistakes
