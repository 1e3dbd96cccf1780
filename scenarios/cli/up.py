"""mininetes up: builds a lab, keeps it, and opens Mininet's command line in it."""

from __future__ import annotations

import os
import select
import signal
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from scenarios.cli import Command
from scenarios.cli.common import console, json_option, print_json, progress
from scenarios.cli.inputs import build_options, choices, configure, read
from scenarios.cli.status import show
from scenarios.cli.terminal import printable
from scenarios.lab import session, verbs
from topo.cluster.errors import UserError
from topo.hosts import CommandLine
from topo.lab import Lab


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("files", type=Path, nargs="*", metavar="LAB-OR-MANIFEST", help="a lab file, manifests, folders")
    parser.add_argument("--detach", "-d", action="store_true", help="return once it is ready, instead of a shell")
    build_options(parser)
    json_option(parser)


def _run(arguments: Namespace) -> int:
    config, objects, ignored = read(arguments.files)
    config = configure(arguments, config)
    plan = session.plan(config, choices(arguments), objects)
    for text in ignored:
        print(printable(f"ignored: {text}"), file=sys.stderr)
    if arguments.detach:
        return _detached(plan, arguments)
    with progress(arguments.json) as tell:
        # The spinner must not run on when the shell has the terminal, so the work ends it.
        return session.run(plan, lambda lab: _shell(lab, arguments, tell), tell)


def _shell(lab: Lab, arguments: Namespace, tell: object) -> int:
    status = getattr(tell, "__self__", None)
    if status is not None:
        status.stop()
    _report(lab, arguments.json)
    CommandLine(lab.mininet)
    return 0


def _report(lab: Lab, as_json: bool) -> None:
    if as_json:
        print_json(verbs.status(lab))
    else:
        show(verbs.status(lab), console())
    sys.stdout.flush()


def _detached(plan: session.Plan, arguments: Namespace) -> int:
    """Run the lab in a process of its own; this one passes on what it says until the lab is ready or has failed."""
    said, says = os.pipe()
    done, tells = os.pipe()
    child = os.fork()
    if child:
        os.close(says)
        os.close(tells)
        ready = _pass_on(said, done)
        return 0 if ready else os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream, target in ((0, null), (1, says), (2, says)):
        os.dup2(target, stream)
    for fd in (said, done, says):
        os.close(fd)

    def keep(lab: Lab) -> int:
        _report(lab, arguments.json)
        for stream in (1, 2):
            os.dup2(null, stream)
        os.write(tells, b"ready")
        os.close(tells)
        while True:
            signal.pause()

    status = 1
    try:
        status = session.run(plan, keep, lambda _: None)
    except UserError as error:
        print(f"mininetes: {error}", file=sys.stderr)
        status = 2
    finally:
        os._exit(status)


def _pass_on(said: int, done: int) -> bool:
    """Copy what comes from `said` to standard output until `done` speaks (true) or ends (false)."""
    while True:
        if said in select.select([said, done], [], [])[0] and (data := os.read(said, 65536)):
            os.write(1, data)
        else:
            return bool(os.read(done, 16))


COMMAND = Command(
    "up",
    "build a lab and keep it running, with Mininet's command line in it",
    "mininetes up lab.yaml manifests/ --cni calico",
    _arguments,
    _run,
)
