"""mininetes capture: writes what passes on a link to a pcap file."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from scenarios.cli import Command
from scenarios.cli.common import lab_option
from scenarios.lab.socket import ask
from topo.cluster.errors import InputError


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    parser.add_argument("link", metavar="LINK", help="A--B (seen at A), MACHINE:INTERFACE, or a pod")
    parser.add_argument(
        "-w", dest="file", metavar="FILE.pcap", required=True, help="where to write; - for standard output"
    )
    parser.add_argument("-c", dest="count", type=int, metavar="N", help="stop after N packets (else: Ctrl-C)")
    parser.add_argument("--filter", default="", metavar="EXPRESSION", help="pcap-filter(7), as in 'udp port 8472'")


def _run(arguments: Namespace) -> int:
    request = {"verb": "capture", "link": arguments.link, "count": arguments.count, "filter": arguments.filter.split()}
    if arguments.file == "-":
        return int(ask(arguments.lab, request, fds=(0, 1, 2))["status"])
    try:
        file = Path(arguments.file).open("wb")  # noqa: SIM115 - closed below, whatever happens
    except OSError as error:
        raise InputError(f"-w {arguments.file}", f"cannot be written ({error.strerror})", "a file name") from error
    with file:
        try:
            return int(ask(arguments.lab, request, fds=(0, file.fileno(), sys.stderr.fileno()))["status"])
        except KeyboardInterrupt:
            return 0  # the usual way to end a capture


COMMAND = Command(
    "capture",
    "write what passes on a link to a pcap file",
    "mininetes capture leaf-1--spine-1 -w fabric.pcap",
    _arguments,
    _run,
)
