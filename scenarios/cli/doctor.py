"""mininetes doctor: what this machine has and lacks, and what to do about it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from dataclasses import asdict

from rich.text import Text

from scenarios.cli import Command
from scenarios.cli.common import console, json_option, print_json, table
from topo import platform


def _arguments(parser: ArgumentParser) -> None:
    json_option(parser)


def _run(arguments: Namespace) -> int:
    found = platform.findings()
    if arguments.json:
        print_json([asdict(one) for one in found])
    else:
        shown = table("", "part", "there", "detail", "needed for", "if it is missing")
        for one in found:
            mark = Text("yes", "green") if one.there else Text("no", "red")
            shown.add_row(one.part, mark, one.detail, one.needed, "" if one.there else one.remedy)
        console().print(shown)
    platform.require()
    return 0


COMMAND = Command("doctor", "say what this machine has and lacks for labs", "mininetes doctor", _arguments, _run)
