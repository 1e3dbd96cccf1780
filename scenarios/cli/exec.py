"""mininetes exec: runs a program of this machine in a pod, on a node or on a fabric switch."""

from __future__ import annotations

from argparse import REMAINDER, ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import lab_option
from scenarios.lab.socket import ask
from topo.cluster.errors import InputError


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    parser.add_argument("target", metavar="POD", help="a pod (NAME, NAMESPACE/NAME or its workload's), node or switch")
    parser.add_argument("command", nargs=REMAINDER, metavar="-- CMD", help="a program and its arguments")


def _run(arguments: Namespace) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        raise InputError("exec", "there is no command", "mininetes exec POD -- PROGRAM ARGUMENTS")
    request = {"verb": "exec", "target": arguments.target, "command": command}
    return int(ask(arguments.lab, request, fds=(0, 1, 2))["status"])


COMMAND = Command(
    "exec", "run a program in a pod, on a node or on a switch", "mininetes exec frontend -- ip addr", _arguments, _run
)
