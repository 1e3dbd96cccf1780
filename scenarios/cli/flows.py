"""mininetes flows: a node's flows with names and counters, or what the last synchronisation changed."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import json_option, lab_option, print_json
from scenarios.lab.socket import ask


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)
    parser.add_argument("node", metavar="NODE", help="a node or a fabric switch")
    parser.add_argument("--table", metavar="NAME", help="only this table, by name or number")
    parser.add_argument("--bridge", metavar="NAME", help="br-int (default), br-ex; br-fabric of a switch")
    parser.add_argument("--diff", action="store_true", help="what the last synchronisation set (+) and removed (-)")


def _run(arguments: Namespace) -> int:
    request = {"verb": "flow-diff" if arguments.diff else "flows", "node": arguments.node, "bridge": arguments.bridge}
    answer = ask(arguments.lab, request | {"table": arguments.table})
    if arguments.json:
        print_json(answer)
    elif arguments.diff:
        print(f"# {answer['node']} {answer['bridge']}, revision {answer['revision']}:", end=" ")
        print(f"{answer['set']} flows set, {answer['removed']} removed\n{answer['text']}")
    else:
        for flow in answer:
            who = f"{flow['feature']} {flow['owner']}".strip() + (f" ({flow['source']})" if flow["source"] else "")
            print(f"{flow['flow']}\n    {flow['packets']} packets, {flow['bytes']} bytes; {who}")
    return 0


COMMAND = Command(
    "flows",
    "show a node's flows with the names of tables, fields and owners",
    "mininetes flows worker --table ServiceLB",
    _arguments,
    _run,
)
