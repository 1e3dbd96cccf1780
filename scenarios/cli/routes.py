"""mininetes routes: what a node's routing table of BGP holds, and its sessions."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import json_option, lab_option, print_json
from scenarios.lab.socket import ask


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)
    parser.add_argument("node", metavar="NODE", help="a node; with peering tor a fabric switch too")
    parser.add_argument("--protocols", action="store_true", help="the sessions instead (BIRD: show protocols)")


def _run(arguments: Namespace) -> int:
    verb = "bgp-sessions" if arguments.protocols else "bgp-routes"
    answer = ask(arguments.lab, {"verb": verb, "node": arguments.node})
    if arguments.json:
        print_json(answer["data"])
    else:
        print(answer["text"])
    return 0


COMMAND = Command(
    "routes",
    "show a node's BGP routes or sessions, of the controller's RIB or of BIRD",
    "mininetes routes worker --protocols",
    _arguments,
    _run,
)
