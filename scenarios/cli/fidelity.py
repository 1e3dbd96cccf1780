"""mininetes fidelity: what published figures claim beside what runs measured, claim by claim."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import scenarios
from scenarios.cli import Command
from scenarios.cli.common import console, json_option, print_json
from scenarios.cli.compare import read_runs
from scenarios.report import claims, fidelity
from scenarios.report.tables import shaping

REFERENCE = Path(scenarios.__file__).parent.parent / "results" / "reference"
_STYLES = {fidelity.HOLDS: "green", fidelity.FAILS: "red", fidelity.UNDECIDED: "yellow"}


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a result")
    parser.add_argument(
        "--reference",
        type=Path,
        default=REFERENCE,
        metavar="DIR",
        help="folder with published.yaml and claims.yaml (default: this checkout's results/reference)",
    )
    json_option(parser)


def _run(arguments: Namespace) -> int:
    """1 if a claim fails."""
    known = claims.load(arguments.reference)
    runs = read_runs(arguments.runs, least=1)
    judged, missing = fidelity.judge(known, runs)
    counts = Counter(one.verdict for one in judged)
    if arguments.json:
        by = {claim.id: claim for claim in known}
        print_json(
            {
                "counts": {**counts, "not measured": len(missing)},
                "claims": [
                    {**asdict(one), "statement": by[one.claim].statement, "source": by[one.claim].section["source"]}
                    for one in judged
                ],
                "not_measured": [{"claim": c.id, "statement": c.statement, "scenario": c.scenario} for c in missing],
            }
        )
        return 1 if counts[fidelity.FAILS] else 0
    out = console()
    for claim in known:
        for one in (one for one in judged if one.claim == claim.id):
            out.print(one.verdict, style=_STYLES[one.verdict], end=" ")
            out.print(f"{claim.id}: {claim.statement}")
            for title, text in (("published", one.published), ("measured", one.measured), ("why", one.why)):
                if text:
                    out.print(f"    {title:<10}{text}")
            out.print(f"    {'source':<10}{claim.section['source']}; run {one.run}", style="dim")
    for claim in missing:
        out.print(f"not measured {claim.id}: {claim.statement} (scenario {claim.scenario})", style="dim")
    for run, result in runs.items():
        for text in (shaping(result.lab), *(f"Warning: {text}" for text in result.warnings)):
            out.print(f"{run}: {text}", style="dim")
    shown = ", ".join(f"{counts[verdict]} {verdict}" for verdict in _STYLES)
    out.print(f"{len(known)} claims: {shown}, {len(missing)} not measured by these runs")
    return 1 if counts[fidelity.FAILS] else 0


COMMAND = Command(
    "fidelity",
    "hold runs to published figures, claim by claim",
    "mininetes fidelity results/20260101-120000-proxy-scaling",
    _arguments,
    _run,
)
