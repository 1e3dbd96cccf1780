"""Finds the verbs, runs one, and turns every user's error into one line and status 2."""

from __future__ import annotations

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path

from controllers.registry import discover, look_in
from scenarios import cli
from scenarios.cli import Command
from scenarios.cli.terminal import printable
from scenarios.lab.socket import LabError
from topo.cluster.errors import UserError
from topo.system import find_system_programs


def commands(wanted: str) -> dict[str, Command]:
    """The verb that is wanted, alone (importing all takes much longer than one), or every verb there is."""
    if wanted in {info.name for info in pkgutil.iter_modules(cli.__path__)}:
        found = getattr(importlib.import_module(f"{cli.__name__}.{wanted}"), "COMMAND", None)
        if found is not None:
            return {wanted: found}
    return discover(cli, "COMMAND")


def parser(wanted: str = "") -> argparse.ArgumentParser:
    """The command line; with only one verb in it if that one is wanted."""
    top = argparse.ArgumentParser(
        prog="mininetes",
        description="Kubernetes networking, emulated with real packets on one machine.",
        epilog="`mininetes VERB --help` explains a verb with an example.",
    )
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, one in commands(wanted).items():
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


def run(words: Sequence[str]) -> int:
    """Run one verb; its exit status, 2 for a user's error."""
    arguments = parser(words[0] if words else "").parse_args(words)
    find_system_programs()
    look_in([Path(folder) for folder in getattr(arguments, "plugins", ())])
    try:
        return int(arguments.run(arguments))
    except LabError as error:
        print(printable(f"mininetes: {error}"), file=sys.stderr)
        return error.status
    except UserError as error:
        print(printable(f"mininetes: {error}"), file=sys.stderr)
        return 2
    except BrokenPipeError:
        # The reader of our output went away (head, less); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
