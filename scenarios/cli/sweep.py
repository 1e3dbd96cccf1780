"""mininetes sweep: a scenario over a matrix of CNIs, proxy modes and sizes; goes on where it was interrupted."""

from __future__ import annotations

import os
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

from scenarios import Comparison
from scenarios.cli import Command, run, sweep_dask, sweep_runs
from scenarios.cli.common import json_option, print_json
from scenarios.cli.inputs import choices
from scenarios.lab import assemble
from scenarios.report import results, sweeps
from scenarios.report.sweeps import Cell, Sweep
from topo.cluster.errors import InputError, PlatformError
from topo.config import LabConfig


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("scenario", metavar="SCENARIO", help="`mininetes list scenarios` names them")
    parser.add_argument("files", type=Path, nargs="*", metavar="LAB-OR-MANIFEST", help="another lab, more objects")
    parser.add_argument("--cni", metavar="A,B:KEY=VALUE", default="", help="CNIs, each with options if need be")
    parser.add_argument("--proxy", metavar="A,B", default="", help="proxy modes")
    parser.add_argument("--nodes", metavar="N,M", default="", help="numbers of nodes")
    parser.add_argument("--runs", type=int, default=1, metavar="N", help="runs of each, in turn (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of each measurement in a run (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.15, help="of each latency run (default: %(default)s)")
    parser.add_argument("--option", action="append", default=[], metavar="KEY=VALUE", help="an option of the scenario")
    parser.add_argument("--plugins", action="append", default=[], metavar="DIR", help="CNIs, proxy modes, scenarios")
    parser.add_argument("--datapath", choices=("auto", "netdev", "system"), default="auto", help="of Open vSwitch")
    parser.add_argument("--seed", type=int, default=0, help="as of `run`")
    parser.add_argument("--results", type=Path, required=True, metavar="DIR", help="where to save, and to go on")
    side = parser.add_mutually_exclusive_group()
    side.add_argument("--jobs", type=int, default=1, metavar="N", help="labs side by side (scenarios without times)")
    side.add_argument("--dask", default="", metavar="ADDRESS", help="of a dask scheduler, or the file it wrote")
    parser.add_argument("--dry-run", action="store_true", help="check, and print the runs, without any")
    json_option(parser)


def _run(arguments: Namespace) -> int:
    """1 if a run failed or found what its scenario does not expect, 130 if it was interrupted."""
    sweep = _sweep(arguments)
    absent, timed = _check(sweep)
    absent = {} if arguments.dask else absent  # each worker says what it cannot have
    if arguments.jobs < 1:
        raise InputError(f"--jobs {arguments.jobs}", "nothing would be run", "1 or more")
    if arguments.jobs > 1 and timed:
        problem = f"{sweep.scenario} measures times, and labs side by side slow each other"
        raise InputError(f"--jobs {arguments.jobs}", problem, "1, or --dask with a machine for each lab")
    steps = list(sweep.steps())
    if arguments.dry_run:
        shown = [{"cell": c.name, "run": n, "arguments": c.arguments(), "absent": absent.get(c, "")} for c, n in steps]
        if arguments.json:
            print_json(shown)
        for one in [] if arguments.json else shown:
            print(f"{one['cell']} run {one['run']}" + (f": cannot be here: {one['absent']}" if one["absent"] else ""))
        return 0
    if arguments.dask:  # before there is a folder
        with sweep_dask.connected(arguments.dask, timed):
            pass
    sweeps.begin(sweep, arguments.results)
    failed: dict[str, str] = {}
    try:
        _steps(sweep, arguments, absent, timed, failed)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    finally:
        found = {step: at for step in steps if (at := sweeps.done(arguments.results, *step)) is not None}
        (arguments.results / sweeps.TABLE).write_text(sweeps.table(found))
    for (cell, number), at in found.items():  # those of an earlier call too
        if wrong := results.read(at).failed:
            failed[f"{cell.name} run {number}"] = f"not as expected: {wrong[0]}"
    missing = {cell.name: reason for cell, reason in absent.items()}
    if arguments.json:
        runs = [{"cell": cell.name, "run": number, "folder": str(at)} for (cell, number), at in found.items()]
        print_json({"runs": runs, "failed": failed, "absent": missing, "table": str(arguments.results / sweeps.TABLE)})
    else:
        for name, reason in {**missing, **failed}.items():
            print(f"{name}: {reason}")
        print(f"{len(found)} of {len(steps)} runs in {arguments.results}/, all figures in {sweeps.TABLE}")
    return 1 if failed else 0


def _sweep(arguments: Namespace) -> Sweep:
    """What was asked for. Raises InputError."""
    axes = {name: _words(name, getattr(arguments, name)) for name in ("cni", "proxy", "nodes")}
    if not all(word.isdigit() and int(word) for word in axes["nodes"]):
        raise InputError(f"--nodes {arguments.nodes}", "is no list of numbers of nodes", "1 or more each, as 2,4,8")
    if arguments.runs < 1:
        raise InputError(f"--runs {arguments.runs}", "nothing would be run", "1 or more")
    if not any(axes.values()):
        raise InputError("sweep", "there is no matrix", "one or more of --cni, --proxy, --nodes")
    command = ["--repeats", str(arguments.repeats), "--seconds", str(arguments.seconds), "--seed", str(arguments.seed)]
    command += ["--datapath", arguments.datapath, *(f"--option={text}" for text in arguments.option)]
    command += [f"--plugins={folder}" for folder in arguments.plugins]
    numbers = tuple(int(word) for word in axes["nodes"])
    words = (arguments.scenario, *map(str, arguments.files))
    return Sweep(arguments.scenario, axes["cni"], axes["proxy"], numbers, arguments.runs, (*words, *command))


def _words(name: str, text: str) -> tuple[str, ...]:
    words = tuple(text.split(",")) if text else ()
    for word in words:
        if not word or words.count(word) > 1:
            raise InputError(
                f"--{name} {text}", f"{word!r} is {'twice in it' if word else 'no name'}", "names, once each"
            )
    return words


def _check(sweep: Sweep) -> tuple[dict[Cell, str], bool]:
    """Refuse the whole sweep for any run that cannot be meant.

    Gives the cells that this machine cannot have, and whether the scenario measures times.
    """
    labs: dict[Cell, Sequence[LabConfig]] = {}
    absent: dict[Cell, str] = {}
    for cell in sweep.cells():
        given = _parsed([*sweep.command, *cell.arguments()])
        scenario, config, _ = run.prepare(given)
        if hasattr(scenario, "variants"):
            assert not hasattr(scenario, "plan")
            compared: Comparison = scenario
            labs[cell] = [variant.config for variant in compared.variants(config)]
        else:
            labs[cell] = [scenario.plan(config)[0]]
        try:
            for one in labs[cell]:
                assemble.parts(one, choices(given))
        except PlatformError as error:
            absent[cell] = str(error)
    if (same := sweeps.duplicates(labs)) is not None:
        expected = "an axis that the scenario does not choose itself"
        raise InputError("sweep", f"{same[0].name} and {same[1].name} are the same labs of {sweep.scenario}", expected)
    return absent, getattr(scenario, "timed", True)


def _parsed(words: Sequence[str]) -> Namespace:
    parser = ArgumentParser(prog="mininetes sweep")
    run.COMMAND.arguments(parser)
    return parser.parse_args(list(words))


def _steps(sweep: Sweep, arguments: Namespace, absent: dict[Cell, str], timed: bool, failed: dict[str, str]) -> None:
    """Run what is not done yet; says how far it is. failed: is filled."""
    folder: Path = arguments.results
    wanted = [s for s in sweep.steps() if s[0] not in absent and sweeps.done(folder, *s) is None]
    # Each lab by a name of its own, since there may be several at once, and other sweeps.
    runs = [
        sweep_runs.Run(
            f"{cell.name} run {which}",
            (*sweep.command, *cell.arguments(), "--lab", f"{sweep.scenario}-{os.getpid()}-{number}"),
            sweeps.place(folder, cell, which),
        )
        for number, (cell, which) in enumerate(wanted)
    ]
    paths = [*arguments.files, *map(Path, arguments.plugins)]
    began, ended = time.monotonic(), 0

    def tell(one: sweep_runs.Run) -> None:
        left = (time.monotonic() - began) / ended * (len(runs) - ended) if ended else 0
        ahead = f", about {left / 60:.0f} min left" if left else ""
        print(f"[{runs.index(one) + 1}/{len(runs)}] {one.name}{ahead}", file=sys.stderr, flush=True)

    def ends() -> Generator[sweep_runs.End, None, None]:
        if arguments.dask:
            return sweep_dask.on_workers(runs, arguments.dask, paths, timed)
        return sweep_runs.here(runs, arguments.jobs, tell)

    with closing(ends()) as found:
        for one in found:
            ended += 1
            if arguments.dask:
                tell(one.run)
            if one.status == sweep_runs.INTERRUPTED:
                raise KeyboardInterrupt
            if one.status:
                failed[one.run.name] = one.said or f"exit status {one.status}"


COMMAND = Command(
    "sweep",
    "run a scenario over CNIs, proxy modes and numbers of nodes",
    "mininetes sweep quickstart --cni flannel,calico:mode=vxlan --proxy ovs,ipvs --runs 3 --results results/matrix",
    _arguments,
    _run,
)
