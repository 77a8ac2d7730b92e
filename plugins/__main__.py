"""Commands for the operator.

`python -m plugins check`: is the configuration right? Exit status 1 when it is not.
`python -m plugins serve`: the same, and then become the proxy (`litellm`); what follows is passed on to it.
`python -m plugins migrate`: check, then bring the database to this version's tables. Exit status 1 if not.
`python -m plugins doctor`: does every part work, here and now? Exit status 1 when one does not.
`python -m plugins reference`: docs/configuration.md, from the settings themselves.
`python -m plugins schema`: config/schema.json, from the settings themselves.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from dotenv import load_dotenv

from crawler.errors import ConfigError
from plugins.core.config import folder, load


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m plugins", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="print all mistakes of the configuration at once")
    check.add_argument("--config", type=Path, default=Path("litellm_config.yaml"), help="LiteLLM's YAML")
    proxy = commands.add_parser("serve", help="check, then become the proxy")
    proxy.add_argument("--config", type=Path, default=Path("litellm_config.yaml"), help="LiteLLM's YAML")
    proxy.add_argument("arguments", nargs=argparse.REMAINDER, help="for litellm: `-- --port 4000`")
    migration = commands.add_parser("migrate", help="check, then bring the database to this version's tables")
    migration.add_argument("--config", type=Path, help="LiteLLM's YAML, to be checked as well")
    doctor = commands.add_parser("doctor", help="try every part for real; nothing is changed")
    doctor.add_argument("--config", type=Path, default=Path("litellm_config.yaml"), help="LiteLLM's YAML")
    doctor.add_argument("--token-file", type=Path, help="a file with a token, to be verified step by step")
    doctor.add_argument("--no-models", action="store_true", help="ask no model (a question costs money)")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    commands.add_parser("reference", help="print the configuration reference as markdown")
    commands.add_parser("schema", help="print the JSON schema of the configuration")
    return parser.parse_args()


def main() -> int:
    args = read_arguments()
    if args.command == "reference":
        from plugins.bundle.reference import reference

        print(reference(), end="")
        return 0
    if args.command == "schema":
        from plugins.bundle.schema import schema

        print(schema(), end="")
        return 0
    load_dotenv(Path(".env"))
    if args.command == "doctor":
        from plugins.bundle.doctor.command import run
        from plugins.bundle.serve import read_secrets

        for line in read_secrets(args.config, os.environ):
            print(line, file=sys.stderr)
        return run(
            folder(), args.config.absolute(), args.token_file, models=not args.no_models, as_json=args.json
        )

    if args.command == "migrate":
        return migrate(args.config)
    if args.command == "serve":
        from plugins.bundle.serve import serve

        return serve(args.config, [one for one in args.arguments if one != "--"])

    if not is_right(args.config):
        return 1
    print(f"The configuration is right: {args.config} and {folder()}")
    return 0


def is_right(proxy_config: Path | None) -> bool:
    """Whether the configuration has no mistake; prints all that it has."""
    from plugins.bundle.check import check as find_mistakes

    mistakes = find_mistakes(folder(), proxy_config and proxy_config.absolute())
    for line in mistakes:
        print(line, file=sys.stderr)
    if mistakes:
        print(f"{len(mistakes)} mistake(s) in the configuration", file=sys.stderr)
    return not mistakes


def migrate(proxy_config: Path | None) -> int:
    """Bring the database of the configuration to this version's tables, if this version can start."""
    from plugins.collections import database

    if not is_right(proxy_config):
        return 1
    try:
        database.migrate(database.database_url(load(folder()).storage))
    except ConfigError as error:
        print(*error.mistakes, sep="\n", file=sys.stderr)
        return 1
    print("The database has this version's tables.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
