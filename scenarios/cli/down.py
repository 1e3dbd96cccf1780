"""mininetes down: ends a lab with everything in it."""

from __future__ import annotations

import time
from argparse import ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import json_option, lab_option, print_json
from scenarios.lab.socket import ask, running
from topo.cluster.errors import PlatformError
from topo.cluster.patience import patience

_PATIENCE = patience(10.0)


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)


def _run(arguments: Namespace) -> int:
    began = time.monotonic()
    ask(arguments.lab, {"verb": "down"})
    while arguments.lab in running():
        if time.monotonic() - began > _PATIENCE:
            raise PlatformError(f"lab {arguments.lab} did not end in {_PATIENCE:.0f} s", "kill its outermost process")
        time.sleep(0.01)
    seconds = round(time.monotonic() - began, 3)
    if arguments.json:
        print_json({"down": arguments.lab, "seconds": seconds})
    else:
        print(f"lab {arguments.lab} is down ({seconds} s)")
    return 0


COMMAND = Command("down", "end a lab with everything in it", "mininetes down --lab second", _arguments, _run)
