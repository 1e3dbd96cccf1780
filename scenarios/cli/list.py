"""mininetes list: the scenarios, CNIs and proxy modes there are, and what this kernel can do."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

import scenarios
from controllers.registry import discover
from scenarios import Scenario
from scenarios.cli import Command
from scenarios.cli.common import console, json_option, print_json, table
from scenarios.lab import assemble
from scenarios.lab.socket import running
from topo import platform


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("scenarios", "cni", "proxy", "kernel", "labs"), help="only these")
    parser.add_argument("--plugins", type=Path, action="append", default=[], metavar="DIR", help="also look there")
    json_option(parser)


def _run(arguments: Namespace) -> int:
    found = {
        "scenarios": {n: _scenario(s) for n, s in discover(scenarios, "SCENARIO", arguments.plugins).items()},
        **assemble.names(arguments.plugins),
        "kernel": {f.part: f"{'yes' if f.there else 'no'}: {f.needed}" for f in platform.findings()},
        "labs": dict.fromkeys(running(), "running"),
    }
    if arguments.what:
        found = {arguments.what: found[arguments.what]}
    if arguments.json:
        print_json(found)
        return 0
    out = console()
    for title, entries in found.items():
        shown = table(title, "name", "")
        for name, text in entries.items():
            shown.add_row(name, text)
        out.print(shown if entries else f"{title}: none")
        out.print()
    return 0


def _scenario(found: Scenario) -> str:
    options = getattr(found, "options", {})
    shown = "; ".join(f"--option {key}={value}" for key, value in options.items())
    return f"{found.description} ({shown})" if shown else found.description


COMMAND = Command(
    "list", "list scenarios, CNIs, proxy modes, labs, and what the kernel has", "mininetes list cni", _arguments, _run
)
