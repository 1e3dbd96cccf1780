"""mininetes run: builds the lab of a scenario, runs it there, saves and shows what it found."""

from __future__ import annotations

import os
import shlex
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import scenarios
from controllers.registry import choose, discover
from scenarios import Context, Scenario
from scenarios.cli import Command
from scenarios.cli.common import Progress, console, json_option, print_json, progress
from scenarios.cli.inputs import build_options, choices, configure, read
from scenarios.lab import session
from scenarios.measure.environment import environment
from scenarios.report import results, tables
from topo.cluster.errors import InputError
from topo.lab import Lab

_CHECKOUT = Path(scenarios.__file__).parent.parent


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", help="`mininetes list scenarios` names them")
    parser.add_argument("files", type=Path, nargs="*", metavar="LAB-OR-MANIFEST", help="another lab, more objects")
    parser.add_argument(
        "--repeats", type=int, default=3, help="how often each thing is measured (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=float, default=0.15, help="length of each latency run in seconds (default: %(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=Path("results"), metavar="DIR", help="where to save (default: results)"
    )
    build_options(parser)
    parser.set_defaults(lab="")
    json_option(parser)


def _run(arguments: Namespace) -> int:
    if arguments.repeats < 1 or arguments.seconds <= 0:
        raise InputError("--repeats, --seconds", "nothing would be measured", "1 or more, and more than 0")
    found = discover(scenarios, "SCENARIO", arguments.plugins)
    scenario: Scenario = choose(found, arguments.scenario, "scenario", "run")
    arguments.lab = arguments.lab or scenario.name
    config, objects, _ = read(arguments.files)
    config, own = scenario.plan(configure(arguments, config))
    plan = session.plan(config, choices(arguments), [*own, *objects])
    with progress(arguments.json) as tell:
        return session.run(plan, lambda lab: _work(lab, scenario, arguments, tell), tell)


def _work(lab: Lab, scenario: Scenario, arguments: Namespace, tell: Progress) -> int:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    userspace = lab.parts.datapath == "netdev"
    described = environment(
        datapath="userspace (netdev)" if userspace else "kernel (system)",
        offloads="tx checksum off at the pods" if userspace else "the kernel's defaults",
        seed=arguments.seed,
        checkout=_CHECKOUT,
    )
    outcome = scenario.run(Context(lab, tell, arguments.repeats, arguments.seconds))
    tell("report")
    config = asdict(lab.config)
    config["nodes"] = [node.name for node in lab.config.nodes]
    for name in ("pod_subnet", "service_subnet", "node_subnet"):
        config[name] = str(config[name])
    result = results.Result(
        scenario=scenario.name,
        started=started,
        command=shlex.join(["mininetes", *sys.argv[1:]]),
        environment=described,
        lab={**config, "pod_mtu": lab.parts.network.mtu},
        measurements=tuple(outcome.measurements),
        notes=tuple(outcome.notes),
    )
    folder = results.write(result, outcome.samples, arguments.results)
    _give_to_caller(folder)
    if arguments.json:
        print_json(asdict(result) | {"folder": str(folder)})
    else:
        out = console()
        out.print(tables.table(result))
        if costs := tables.cost_table(result):
            out.print(costs)
        out.print(f"saved in {folder}/: result.json, samples.csv, report.md, plots")
    return 0


def _give_to_caller(folder: Path) -> None:
    """Under sudo the results belong to who called, so that they can be read, moved and removed without it."""
    if os.getuid() == 0 and "SUDO_UID" in os.environ:
        owner = int(os.environ["SUDO_UID"]), int(os.environ["SUDO_GID"])
        for path in (folder, *folder.rglob("*")):
            os.chown(path, *owner)


COMMAND = Command(
    "run",
    "run a scenario in a lab of its own and save its results",
    "mininetes run quickstart --cni calico",
    _arguments,
    _run,
)
