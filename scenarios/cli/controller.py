"""mininetes controller: restarts, stops or starts a lab's controller, so that edited code takes effect."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import json_option, lab_option, print_json
from scenarios.lab.socket import ask


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)
    parser.add_argument("action", choices=("restart", "stop", "start"))


def _run(arguments: Namespace) -> int:
    done = ask(arguments.lab, {"verb": "controller", "action": arguments.action})
    if arguments.json:
        print_json(done)
    else:
        state = f"runs as pid {done['pid']} of the lab" if done["pid"] else "is stopped; switches keep their flows"
        print(f"the controller {state} ({done['seconds']} s)")
    return 0


COMMAND = Command(
    "controller",
    "restart, stop or start the controller of a running lab (after editing it, say)",
    "mininetes controller restart && mininetes flows worker --diff",
    _arguments,
    _run,
)
