"""mininetes identity: the security identities of a lab's pods, for CNIs that know them."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import console, json_option, lab_option, print_json, table
from scenarios.lab.socket import ask


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("what", choices=("list",), help="number, labels and pods of each (as `cilium identity list`)")
    lab_option(parser)
    json_option(parser)


def _run(arguments: Namespace) -> int:
    found = ask(arguments.lab, {"verb": "identities"})
    if arguments.json:
        print_json(found)
        return 0
    shown = table("identities", "number", "labels", "pods")
    for one in found:
        shown.add_row(str(one["identity"]), "\n".join(one["labels"]), "\n".join(one["pods"]))
    console().print(shown)
    return 0


COMMAND = Command(
    "identity", "list the security identities of a lab's pods", "mininetes identity list", _arguments, _run
)
