"""What all verbs share: the options for a lab and for data, tables and progress."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

Progress = Callable[[str], None]
DEFAULT_LAB = "default"


def lab_option(parser: ArgumentParser) -> None:
    """--lab NAME, by default the environment's MININETES_LAB."""
    name = os.environ.get("MININETES_LAB", DEFAULT_LAB)
    parser.add_argument("--lab", default=name, metavar="NAME", help="which lab (default: %(default)s)")


def json_option(parser: ArgumentParser) -> None:
    """--json."""
    parser.add_argument("--json", action="store_true", help="print data for programs instead of text")


def console(stream: Any = None) -> Console:
    """For people; as wide as it needs to be where there is no terminal to fit.

    What is printed is text: brackets and colons in it, which a manifest may have, mean nothing.
    """
    plain: dict[str, Any] = {"file": stream or sys.stdout, "highlight": False, "markup": False, "emoji": False}
    out = Console(**plain)
    return out if out.is_terminal else Console(**plain, width=200)


def table(title: str, *columns: str) -> Table:
    """An empty table in the one style we use."""
    made = Table(title=title, title_justify="left", box=None, header_style="bold", pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def print_json(value: Any) -> None:
    """Data for programs."""
    print(json.dumps(value, indent=2))


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A line that tells how far it is, on a terminal; silence elsewhere."""
    out = Console(stderr=True, markup=False, emoji=False)
    if quiet or not out.is_terminal:
        yield lambda _: None
        return
    with out.status("starting") as status:
        yield status.update
