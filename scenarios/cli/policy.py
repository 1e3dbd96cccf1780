"""mininetes policy: explains and tabulates what network policies allow, and runs files of cases with real packets."""

from __future__ import annotations

import pickle
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from scenarios.cli import Command
from scenarios.cli.common import Progress, console, json_option, lab_option, print_json, progress, table
from scenarios.cli.inputs import build_options, choices, configure
from scenarios.lab import session
from scenarios.lab.child import in_child
from scenarios.lab.socket import ask
from scenarios.netpol import cases, labs, policy_text
from scenarios.netpol.prober_client import Prober
from scenarios.netpol.runner import Outcome, Runner
from topo import labfile
from topo.cluster.errors import InputError, UserError
from topo.config import LabConfig
from topo.lab import Lab

_NODES = 4
_SHOWN = 6


def _arguments(parser: ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="what", metavar="WHAT", required=True)
    explain = verbs.add_parser("explain", help="why a pod may open a connection to another, or may not")
    lab_option(explain)
    explain.add_argument("source", metavar="POD-A", help="a pod (NAME or NAMESPACE/NAME), a node or an address")
    explain.add_argument("target", metavar="POD-B[:PORT]", help="PORT as 80, 53/UDP, a name, icmp; default: all it has")
    explain.set_defaults(work=_explain)
    json_option(explain)
    matrix = verbs.add_parser("matrix", help="who reaches whom, as a truth table")
    lab_option(matrix)
    matrix.add_argument(
        "--port", action="append", default=[], metavar="PORT", help="80 or 53/UDP; default: all there are"
    )
    matrix.add_argument(
        "-n", "--namespace", action="append", default=[], metavar="NAME", help="only its pods; may repeat"
    )
    matrix.add_argument("--probe", action="store_true", help="ask with packets, too; exit status 1 if they differ")
    matrix.add_argument("--html", type=Path, metavar="FILE", help="write it as a page")
    matrix.set_defaults(work=_matrix)
    json_option(matrix)
    log = verbs.add_parser("log", help="what rules with action Log have seen")
    lab_option(log)
    log.set_defaults(work=_log)
    json_option(log)
    check = verbs.add_parser("check", help="run files of cases with real packets, in a lab of their own")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE.json", help="cases (docs/policy.md)")
    check.add_argument("--case", metavar="TEXT", help="only cases whose name contains this")
    build_options(check)
    check.set_defaults(lab="", work=_check)
    json_option(check)


def _run(arguments: Namespace) -> int:
    return int(arguments.work(arguments))


def _explain(arguments: Namespace) -> int:
    target, _, port = arguments.target.partition(":")
    request = {"verb": "policy-explain", "source": arguments.source, "target": target, "port": port}
    found = ask(arguments.lab, request)
    if arguments.json:
        print_json(found)
    else:
        policy_text.show_explanation(found, console())
    return 0


def _matrix(arguments: Namespace) -> int:
    request = {"verb": "policy-matrix", "ports": arguments.port, "namespaces": arguments.namespace}
    found = ask(arguments.lab, request | {"probe": arguments.probe})
    if arguments.html:
        arguments.html.write_text(policy_text.page(found))
    if arguments.json:
        print_json(found)
    elif not arguments.html:
        policy_text.show_matrix(found, console())
    return 1 if found.get("differences") else 0


def _log(arguments: Namespace) -> int:
    found = ask(arguments.lab, {"verb": "policy-log"})
    if arguments.json:
        print_json(found)
    else:
        policy_text.show_log(found, console())
    return 0


def _check(arguments: Namespace) -> int:
    every = [case for file in arguments.files for case in cases.load(file)]
    every = [case for case in every if not arguments.case or arguments.case in case.name]
    if not every:
        raise InputError("--case", f"no case has {arguments.case!r} in its name", "a part of a name")
    arguments.lab = arguments.lab or "policy-check"
    arguments.cni = arguments.cni or "calico"
    config = replace(labfile.default_config(arguments.nodes or _NODES), dns=False)
    arguments.nodes = None
    config = configure(arguments, config)
    found: list[_Found] = []
    with tempfile.TemporaryDirectory(prefix="mininetes-") as folder:
        for wanted, some in labs.grouped(every, config):
            file = Path(folder) / "found"
            status = in_child(partial(_one_lab, wanted, some, arguments, file))
            if status != 0:
                return status
            found.append(pickle.loads(file.read_bytes()))
    order = {id_: i for i, id_ in enumerate((c.file, c.name) for c in every)}
    done = sorted((o for f in found for o in f.done), key=lambda o: order[o.case.file, o.case.name])
    if arguments.json:
        print_json(_data(done, found, config.cni))
    else:
        _show(done)
        if not found[0].enforces:
            print(f"mininetes: CNI {config.cni} enforces no policies", file=sys.stderr)
    failed = [o for o in done if not o.passed and not o.skipped]
    return 1 if failed or not any(o.passed for o in done) else 0


@dataclass(frozen=True, slots=True)
class _Found:
    """What one lab came to."""

    done: list[Outcome]
    enforces: tuple[str, ...]
    warnings: list[str]


def _one_lab(config: LabConfig, some: list[cases.Case], arguments: Namespace, file: Path) -> int:
    with progress(arguments.json) as tell:
        try:
            plan = session.plan(config, choices(arguments), [])
        except UserError as error:
            print(f"mininetes: {error}", file=sys.stderr)
            return 2
        return session.run(plan, lambda lab: _work(lab, some, file, tell), tell)


def _work(lab: Lab, some: list[cases.Case], file: Path, tell: Progress) -> int:
    done: list[Outcome] = []
    with Prober() as prober:
        runner = Runner(lab, prober)
        for number, case in enumerate(some, start=1):
            tell(f"case {number} of {len(some)}: {case.name}")
            done.append(runner.run(case))
    warnings = sorted({e["message"] for e in lab.store.list("Event") if e["reason"] == "NoEffect"})
    file.write_bytes(pickle.dumps(_Found(done, lab.parts.enforces, warnings)))
    return 0


def _data(done: list[Outcome], found: list[_Found], cni: str) -> dict[str, object]:
    return {
        "cni": cni,
        "passed": sum(o.passed for o in done),
        "failed": sum(not o.passed and not o.skipped for o in done),
        "skipped": sum(bool(o.skipped) for o in done),
        "pairs": sum(o.pairs for o in done),
        "seconds": round(sum(o.seconds for o in done), 1),
        "warnings": sorted({text for one in found for text in one.warnings}),
        "cases": [
            {
                "name": o.case.name,
                "file": o.case.file,
                "source": o.case.source,
                "result": "skipped" if o.skipped else "passed" if o.passed else "failed",
                "reason": o.skipped,
                "pairs": o.pairs,
                "seconds": o.seconds,
                "differences": [
                    {"step": d.step, "pair": d.probe, "expected": "allowed" if d.expected else "refused"}
                    for d in o.differences
                ],
            }
            for o in done
        ],
    }


def _show(done: list[Outcome]) -> None:
    out = console()
    for outcome in done:
        if outcome.skipped:
            out.print(f"skipped  {outcome.case.file}: {outcome.case.name}: {outcome.skipped}")
        elif not outcome.passed:
            out.print(f"FAILED   {outcome.case.file}: {outcome.case.name}")
            for d in outcome.differences[:_SHOWN]:
                said = "allowed, but refused" if d.expected else "refused, but allowed"
                out.print(f"           step {d.step}: {d.probe} should be {said}")
            if len(outcome.differences) > _SHOWN:
                out.print(f"           and {len(outcome.differences) - _SHOWN} more pairs")
    found = table("", "file", "cases", "passed", "failed", "skipped", "pairs", "seconds")
    for file in dict.fromkeys(o.case.file for o in done):
        mine = [o for o in done if o.case.file == file]
        passed, skipped = sum(o.passed for o in mine), sum(bool(o.skipped) for o in mine)
        numbers = len(mine), passed, len(mine) - passed - skipped, skipped, sum(o.pairs for o in mine)
        found.add_row(file, *map(str, numbers), f"{sum(o.seconds for o in mine):.1f}")
    out.print(found)


COMMAND = Command(
    "policy",
    "explain network policies, print who reaches whom, or run cases with real packets",
    "mininetes policy check cases.json --cni calico",
    _arguments,
    _run,
)
