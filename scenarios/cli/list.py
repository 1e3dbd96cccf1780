"""mininetes list: the scenarios, CNIs and proxy modes there are, and what this kernel can do."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

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

# Each looked for only if it is shown: trying what the kernel has takes a while.
_KINDS: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    "scenarios": lambda: {name: _scenario(one) for name, one in discover(scenarios, "SCENARIO").items()},
    "cni": lambda: {name: traits.data(one) for name, one in assemble.cni_traits().items()},
    "proxy": assemble.proxy_modes,
    "kernel": lambda: {f.part: f"{'yes' if f.there else 'no'}: {f.needed}" for f in platform.findings()},
    "labs": lambda: dict.fromkeys(running(), "running"),
}


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=tuple(_KINDS), help="only these")
    parser.add_argument("--plugins", type=Path, action="append", default=[], metavar="DIR", help="also look there")
    json_option(parser)


def _run(arguments: Namespace) -> int:
    wanted = [arguments.what] if arguments.what else list(_KINDS)
    found = {what: _KINDS[what]() for what in wanted}
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
        shown.add_row(*line)
    return shown


def _scenario(found: Scenario) -> str:
    options = getattr(found, "options", {})
    shown = "; ".join(f"--option {key}={value}" for key, value in options.items())
    return f"{found.description} ({shown})" if shown else found.description


COMMAND = Command(
    "list", "list scenarios, CNIs, proxy modes, labs, and what the kernel has", "mininetes list cni", _arguments, _run
)
