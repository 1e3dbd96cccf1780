"""mininetes list: the scenarios, CNIs and proxy modes there are, and what this kernel can do."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

import scenarios
from controllers.registry import discover
from scenarios import Scenario
from scenarios.cli import Command
from scenarios.cli.common import console, json_option, print_json, table
from scenarios.lab import assemble
from scenarios.lab.socket import running
from scenarios.report import traits
from topo import platform


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=("scenarios", "cni", "proxy", "kernel", "labs"), help="only these")
    parser.add_argument("--plugins", type=Path, action="append", default=[], metavar="DIR", help="also look there")
    json_option(parser)


def _run(arguments: Namespace) -> int:
    found: dict[str, dict[str, Any]] = {
        "scenarios": {n: _scenario(s) for n, s in discover(scenarios, "SCENARIO", arguments.plugins).items()},
        "cni": {name: traits.data(one) for name, one in assemble.cni_traits(arguments.plugins).items()},
        "proxy": assemble.proxy_modes(arguments.plugins),
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
        out.print(_table(title, entries) if entries else f"{title}: none")
        out.print()
    return 0


def _table(title: str, entries: Mapping[str, Any]) -> Table:
    if title == "cni":
        shown = table(title, *traits.COLUMNS)
        lines = traits.rows(entries)
    else:
        shown = table(title, "name", "")
        lines = tuple(entries.items())
    for line in lines:
        shown.add_row(*map(escape, line))
    return shown


def _scenario(found: Scenario) -> str:
    options = getattr(found, "options", {})
    shown = "; ".join(f"--option {key}={value}" for key, value in options.items())
    return f"{found.description} ({shown})" if shown else found.description


COMMAND = Command(
    "list", "list scenarios, CNIs, proxy modes, labs, and what the kernel has", "mininetes list cni", _arguments, _run
)
