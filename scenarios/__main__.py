"""The mininetes command: finds its verbs, runs one, and turns every user's error into one line and status 2."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from controllers.registry import discover
from scenarios import cli
from scenarios.cli import Command
from scenarios.lab.socket import LabError
from topo.cluster.errors import UserError


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="mininetes",
        description="Kubernetes networking, emulated with real packets on one machine.",
        epilog="`mininetes VERB --help` explains a verb with an example.",
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, command in discover(cli, "COMMAND").items():
        one: Command = command
        sub = verbs.add_parser(
            name,
            help=one.help,
            description=one.help,
            epilog=f"example:\n  {one.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.arguments(sub)
        sub.set_defaults(run=one.run)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; its exit status. 2 for a user's error, 130 for Ctrl-C."""
    arguments = parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except LabError as error:
        print(f"mininetes: {error}", file=sys.stderr)
        return error.status
    except UserError as error:
        print(f"mininetes: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output went away (head, less); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


if __name__ == "__main__":
    sys.exit(main())
