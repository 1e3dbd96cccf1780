"""mininetes cni: asks a lab's CNI plugins about what they made."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from scenarios.cli import Command
from scenarios.cli.common import console, json_option, lab_option, print_json, table
from scenarios.lab.socket import ask


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)
    parser.add_argument(
        "command",
        choices=("check", "status", "gc", "result"),
        help="check pods (CHECK); ask nodes' plugins if they can serve (STATUS) or to give back what nobody has (GC); "
        "show what ADD gave a pod",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="pods for check and result, else nodes; default: all")


def _run(arguments: Namespace) -> int:
    found = ask(arguments.lab, {"verb": "cni", "command": arguments.command, "names": arguments.names})
    if arguments.json:
        print_json(found)
    else:
        shown = table("", "name", "", "what")
        for one in found:
            said = "; ".join(f"{e['plugin']}: {e['msg']} {e['details']} (code {e['code']})" for e in one["errors"])
            shown.add_row(
                one["name"],
                "ok" if one["ok"] else "failed",
                said or (json.dumps(one["result"]) if "result" in one else ""),
            )
        console().print(shown)
    return 0 if all(one["ok"] for one in found) else 1


COMMAND = Command(
    "cni",
    "ask a lab's CNI plugins: CHECK, STATUS, GC, results (exit status 1 if one fails)",
    "mininetes cni check frontend",
    _arguments,
    _run,
)
