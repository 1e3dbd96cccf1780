"""mininetes apply: puts manifests into a running lab."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from scenarios.cli import Command
from scenarios.cli.common import json_option, lab_option, print_json
from scenarios.cli.terminal import printable
from scenarios.lab.socket import ask
from topo import manifests


def _arguments(parser: ArgumentParser) -> None:
    lab_option(parser)
    json_option(parser)
    parser.add_argument(
        "-f", dest="files", type=Path, action="append", required=True, metavar="FILE", help="may repeat"
    )
    parser.add_argument("--wait", type=float, metavar="SECONDS", help="until all is ready, at most so long")


def _run(arguments: Namespace) -> int:
    loaded = manifests.load(arguments.files)
    for one in loaded.ignored:
        print(printable(f"ignored: {one.where}: {one.kind} {one.name}"), file=sys.stderr)
    done = ask(arguments.lab, {"verb": "apply", "objects": list(loaded.objects), "wait": arguments.wait})
    for one in done:
        for text in one["warnings"]:
            print(printable(f"warning: {one['kind']} {one['name']}: {text}"), file=sys.stderr)
    if arguments.json:
        print_json(done)
    else:
        for one in done:
            print(f"{one['kind'].lower()}/{one['name']} {one['outcome']}")
    return 0


COMMAND = Command(
    "apply", "put manifests into a running lab", "mininetes apply -f guestbook.yaml --wait 30", _arguments, _run
)
