"""mininetes compare: runs side by side, with intervals, and an order only where chance did not make it."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from scenarios.cli import Command
from scenarios.cli.common import console, json_option, print_json, table
from scenarios.measure.inference import Estimate
from scenarios.report import comparison, results
from scenarios.report.comparison import Figure, Row
from scenarios.report.results import Result
from scenarios.report.tables import label, number, shown_unit
from topo.cluster.errors import InputError


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="folder of a result; the first is the reference"
    )
    parser.add_argument(
        "--relative", action="store_true", help="compare ratios to each run's own plain veth pair (for other machines)"
    )
    json_option(parser)


def _run(arguments: Namespace) -> int:
    found = read_runs(arguments.runs, least=2)
    compared = comparison.compare(found, relative=arguments.relative)
    if not compared.rows:
        raise InputError("compare", "the runs have no measurement in common", "runs of one scenario")
    if arguments.json:
        data = asdict(compared)
        for row in data["rows"]:
            for pair in row["pairs"]:
                pair["apart"] = pair["p"] is not None and pair["p"] < comparison.SIGNIFICANT
        print_json({"method": comparison.METHOD, **data})
        return 0
    out = console()
    shown = table("", "measurement", "path", "run", "repeats", "mean (95 %)", "ratio (95 %)", "p", "place")
    for row in compared.rows:
        for place, figure in enumerate(row.figures):
            first = (f"{label(row.name)} ({'ratio' if arguments.relative else shown_unit(row.unit)[1]})", row.path)
            shown.add_row(*(("", "") if place else first), *_cells(row, figure, relative=arguments.relative))
        shown.add_row("", "", row.verdict, style="dim")
    out.print(shown)
    for text in (*compared.notes, comparison.METHOD):
        out.print(text)
    return 0


def read_runs(folders: Sequence[Path], least: int) -> dict[str, Result]:
    """Results by their folders' names, or by their paths where names are equal. Raises InputError."""
    if len(folders) < least:
        raise InputError("RUN", f"{len(folders)} is too few", f"{least} or more result folders")
    paths = [folder.resolve() for folder in folders]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(str(twice), "is named twice", "another run")
    names = [path.name for path in paths]
    labels = names if len(set(names)) == len(names) else [str(path) for path in paths]
    return {name: results.read(path) for name, path in zip(labels, paths, strict=True)}


def _cells(row: Row, figure: Figure, *, relative: bool) -> tuple[str, ...]:
    unit = "" if relative else row.unit
    ratio, p = "-", "-"
    if figure.to_first is not None:
        ratio = _interval(figure.to_first.ratio, "")
        pair = next(pair for pair in row.pairs if (pair.first, pair.second) == (row.figures[0].run, figure.run))
        p = "-" if pair.p is None else f"{pair.p:.2g}"
    best, worst = figure.rank
    place = str(best) if best == worst else f"{best} to {worst}"
    return figure.run, str(len(figure.repeats)), _interval(figure.mean, unit), ratio, p, place


def _interval(found: Estimate, unit: str) -> str:
    if found.low is None or found.high is None:
        return f"{number(found.value, unit)} (-)"
    return f"{number(found.value, unit)} ({number(found.low, unit)} to {number(found.high, unit)})"


COMMAND = Command(
    "compare",
    "put runs side by side, with confidence intervals",
    "mininetes compare results/20260101-120000-quickstart results/20260101-130000-quickstart",
    _arguments,
    _run,
)
