"""mininetes switch: crashes and restarts the Open vSwitch of a node or fabric switch."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import json_option, lab_option, print_json
from scenarios.lab.socket import ask


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)
    parser.add_argument("action", choices=("restart", "stop", "start"))
    parser.add_argument("machine", metavar="MACHINE", help="a node or a fabric switch")


def _run(arguments: Namespace) -> int:
    done = ask(arguments.lab, {"verb": "switch", "action": arguments.action, "machine": arguments.machine})
    if arguments.json:
        print_json(done)
    else:
        state = {"restart": "is back", "stop": "is dead", "start": "is back"}[done["action"]]
        print(f"the switch of {done['machine']} {state} ({done['seconds']} s)")
    return 0


COMMAND = Command(
    "switch",
    "crash (SIGKILL) or restart the Open vSwitch of a node or fabric switch",
    "mininetes switch restart worker",
    _arguments,
    _run,
)
