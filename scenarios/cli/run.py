"""mininetes run: builds the lab of a scenario, runs it there, saves and shows what it found."""

from __future__ import annotations

import os
import pickle
import shlex
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, cast

import scenarios
from controllers.registry import choose, discover
from scenarios import Comparison, Context, Outcome, Scenario, Variant
from scenarios.cli import Command
from scenarios.cli.common import Progress, console, json_option, print_json, progress
from scenarios.cli.inputs import build_options, choices, configure, read
from scenarios.lab import assemble, options, session, topology
from scenarios.lab.child import in_child
from scenarios.measure.environment import environment
from scenarios.measure.selfcheck import watched
from scenarios.report import results, tables
from topo.cluster.errors import InputError, PlatformError, UserError
from topo.cluster.store import Object
from topo.config import LabConfig
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
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the scenario; may repeat"
    )
    build_options(parser)
    parser.set_defaults(lab="")
    json_option(parser)


def _run(arguments: Namespace) -> int:
    scenario, config, objects = prepare(arguments)
    if hasattr(scenario, "variants"):
        return _compare(cast(Comparison, scenario), config, objects, arguments)
    config, own = scenario.plan(config)
    plan = session.plan(config, choices(arguments), [*own, *objects])
    with progress(arguments.json) as tell:
        return session.run(plan, lambda lab: _work(lab, scenario, arguments, tell), tell)


def prepare(arguments: Namespace) -> tuple[Scenario | Comparison, LabConfig, Sequence[Object]]:
    """The scenario, the lab that was asked for, and more objects for it, all checked. Raises InputError."""
    if arguments.repeats < 1 or arguments.seconds <= 0:
        raise InputError("--repeats, --seconds", "nothing would be measured", "1 or more, and more than 0")
    found = discover(scenarios, "SCENARIO")
    scenario: Scenario | Comparison = choose(found, arguments.scenario, "scenario", "run")
    arguments.lab = arguments.lab or scenario.name
    config, objects, _ = read(arguments.files)
    wanted = options.merge(scenario.name, getattr(scenario, "options", {}), arguments.option)
    return scenario, replace(configure(arguments, config), scenario=wanted), objects


def _work(lab: Lab, scenario: Scenario, arguments: Namespace, tell: Progress) -> int:
    started = datetime.now(UTC).isoformat(timespec="seconds")
    described = _described(lab, arguments)
    with watched(tx_off=lab.parts.datapath == "netdev") as watch:
        outcome = _run_in(lab, scenario, tell, arguments)
    tell("report")
    described |= watch.environment
    return _save(scenario.name, outcome, described, _lab(lab, arguments), watch.warnings, started, arguments)


def _run_in(lab: Lab, scenario: Scenario | Comparison, tell: Progress, arguments: Namespace) -> Outcome:
    """What it found, with what must be known of the lab."""
    outcome = scenario.run(Context(lab, tell, arguments.repeats, arguments.seconds))
    return replace(outcome, notes=(*outcome.notes, *lab.parts.caveats))


def _compare(scenario: Comparison, config: LabConfig, objects: Sequence[Object], arguments: Namespace) -> int:
    """Each variant's lab in turn; what it found comes back through a file, for its capsule is another process."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    outcomes: dict[str, Outcome] = {}
    missing: dict[str, str] = {}
    described: dict[str, object] = {}
    labs: dict[str, Any] = {}
    seen: dict[str, object] = {}
    shapings: set[bool | None] = set()
    warnings: list[str] = []
    with tempfile.TemporaryDirectory(prefix="mininetes-") as folder:
        for variant in scenario.variants(config):
            file = Path(folder) / "outcome"
            status = in_child(partial(_variant, scenario, variant, objects, arguments, file))
            if status != 0:
                return status
            found = pickle.loads(file.read_bytes())
            if isinstance(found, str):  # what the machine lacks is said in the result, and the others are compared
                missing[variant.name] = found
            else:
                outcomes[variant.name], described, labs, doubts = found
                seen |= labs["traits"]
                shapings.add(tables.shaped(labs))
                warnings += [f"{variant.name}: {text}" for text in doubts]
    if not outcomes:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise PlatformError(f"none of the labs of {scenario.name} can be here", reasons)
    labs = {**labs, "traits": seen} | ({tables.MIXED: True} if len(shapings) > 1 else {})
    return _save(scenario.name, scenario.compare(outcomes, missing), described, labs, warnings, started, arguments)


def _variant(
    scenario: Comparison, variant: Variant, objects: Sequence[Object], arguments: Namespace, file: Path
) -> int:
    with progress(arguments.json) as tell:
        say = partial(_say, tell, variant.name)

        def work(lab: Lab) -> int:
            described = _described(lab, arguments)
            with watched(tx_off=lab.parts.datapath == "netdev") as watch:
                found = _run_in(lab, scenario, say, arguments)
            of_lab = _lab(lab, arguments) | {"variant": variant.name}
            file.write_bytes(pickle.dumps((found, described | watch.environment, of_lab, watch.warnings)))
            return 0

        try:
            plan = session.plan(variant.config, choices(arguments), [*variant.objects, *objects])
        except UserError as error:
            file.write_bytes(pickle.dumps(str(error)))
            return 0
        return session.run(plan, work, say)


def _say(tell: Progress, name: str, text: str) -> None:
    tell(f"{name}: {text}")


def _described(lab: Lab, arguments: Namespace) -> dict[str, object]:
    userspace = lab.parts.datapath == "netdev"
    return environment(
        datapath="userspace (netdev)" if userspace else "kernel (system)",
        offloads="tx checksum off at the pods" if userspace else "the kernel's defaults",
        seed=arguments.seed,
        checkout=_CHECKOUT,
    )


def _lab(lab: Lab, arguments: Namespace) -> dict[str, object]:
    config = asdict(lab.config)
    config["nodes"] = [node.name for node in lab.config.nodes]
    for name in ("pod_subnet", "service_subnet", "node_subnet"):
        config[name] = str(config[name])
    config["load_balancer_pool"] = str(config["load_balancer_pool"] or "")
    more = {"topology": topology.describe(lab), "traits": assemble.traits_of(lab.config)}
    return {**config, "pod_mtu": lab.parts.network.mtu, **more}


def _save(
    name: str,
    outcome: Outcome,
    described: Mapping[str, object],
    lab: Mapping[str, object],
    warnings: Sequence[str],
    started: str,
    arguments: Namespace,
) -> int:
    """Write and show what was found; 1 if something was not as expected."""
    result = results.Result(
        scenario=name,
        started=started,
        command=shlex.join(["mininetes", *sys.argv[1:]]),
        environment=described,
        lab=lab,
        measurements=tuple(outcome.measurements),
        notes=(*outcome.notes, *(f"Not as expected: {text}" for text in outcome.failed)),
        tables=tuple(outcome.tables),
        curves=tuple(outcome.curves),
        warnings=tuple(warnings),
        failed=tuple(outcome.failed),
    )
    folder = results.write(result, outcome.samples, arguments.results, outcome.evidence)
    _give_to_caller(folder)
    if arguments.json:
        print_json(asdict(result) | {"folder": str(folder)})
    else:
        out = console()
        for own in tables.text_tables(result):
            out.print(own)
        out.print(tables.notes(result) if result.tables else tables.table(result))
        if costs := tables.cost_table(result):
            out.print(costs)
        more = ", evidence" if outcome.evidence else ""
        out.print(f"saved in {folder}/: report.html, result.json, samples.csv, report.md, plots{more}")
    return 1 if outcome.failed else 0


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
