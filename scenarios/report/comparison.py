"""Runs side by side: what each measured with its interval, and an order only where chance hardly made it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from scenarios.measure.inference import Difference, Estimate, difference, holm, mean
from scenarios.report.results import Measurement, Result
from scenarios.report.tables import BASELINE, is_cost, plain, shaped

# A pair is told apart if chance would make it look so this seldom, after Holm over the pairs of one measurement.
SIGNIFICANT = 0.05
# Of an environment and a lab: what makes runs those of other machines, and what a reader should know to differ.
MACHINE = ("cpu", "cpus", "kernel", "datapath")
DIFFERING = (*MACHINE, "ovs", "offloads", "commit", "tcp_congestion_control", "seed")
LAB = ("cni", "cni_options", "proxy_mode", "proxy_options", "fabric", "variant", "scenario")
METHOD = (
    "mean: geometric, over the repeats' medians, with its 95 % interval (Student's t on logarithms). ratio: to the "
    "first run, with Welch's 95 % interval. p: Welch's test on logarithms, adjusted by Holm over the pairs of one "
    f"measurement; runs are ordered where it is below {SIGNIFICANT:g}. Intervals cover what differs between repeats of "
    "a run, not what differs between the moments of two runs: repeat the runs in turn to have that too."
)


@dataclass(frozen=True, slots=True)
class Figure:
    """One run's share of a row. rank: best and worst place it can have, equal if its place is certain."""

    run: str
    repeats: tuple[float, ...]
    mean: Estimate
    to_first: Difference | None
    rank: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two runs. p: adjusted; None where a run has one repeat."""

    first: str
    second: str
    ratio: Estimate
    p: float | None

    @property
    def apart(self) -> bool:
        """Whether they may be ordered."""
        return self.p is not None and self.p < SIGNIFICANT


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement on one path. verdict: a sentence."""

    name: str
    path: str
    unit: str
    figures: tuple[Figure, ...]
    pairs: tuple[Pair, ...]
    verdict: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All of it. notes: what the runs differ in, and why figures are to be doubted."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


def compare(runs: Mapping[str, Result], *, relative: bool) -> Comparison:
    """Every measurement that two runs or more have. relative: as ratios to each run's own plain veth pair."""
    found: dict[tuple[str, str, str], dict[str, tuple[float, ...]]] = {}
    for run, result in runs.items():
        for one in result.measurements:
            values = repeats(result, one, relative=relative)
            if values and not (is_cost(one) and len(values) == 1):
                found.setdefault((one.name, one.path, one.unit), {})[run] = values
    rows = tuple(_row(*key, of) for key, of in found.items() if len(of) > 1)
    return Comparison(rows, tuple(_notes(runs, relative=relative)))


def repeats(result: Result, one: Measurement, *, relative: bool) -> tuple[float, ...]:
    """The repeats' medians that a run compares by; none where there are no values above zero to compare."""
    values = tuple(run.p50 for run in one.repeats)
    if relative:
        base = next((m for m in result.measurements if (m.name, m.path) == (one.name, BASELINE)), None)
        if one.path == BASELINE or base is None or base.summary is None or base.summary.p50 <= 0:
            return ()
        values = tuple(value / base.summary.p50 for value in values)
    return values if values and min(values) > 0 else ()


def more_is_better(unit: str) -> bool:
    """Rates; everything else that is measured is a time or a cost."""
    return unit.endswith("/s")


def order(values: Mapping[str, Sequence[float]], unit: str) -> tuple[tuple[Pair, ...], dict[str, tuple[int, int]]]:
    """All pairs with their adjusted probabilities, and the places that each name can have."""
    between = [(a, b, difference(values[a], values[b])) for a, b in combinations(values, 2)]
    known = [d.p for _, _, d in between if d.p is not None]
    adjusted = iter(holm(known))
    pairs = tuple(Pair(a, b, d.ratio, None if d.p is None else next(adjusted)) for a, b, d in between)
    places = {}
    for name in values:
        better = worse = 0
        for pair in pairs:
            if pair.apart and name in (pair.first, pair.second):
                second_is_better = (pair.ratio.value > 1) == more_is_better(unit)
                wins = second_is_better == (name == pair.second)
                better, worse = better + (not wins), worse + wins
        places[name] = 1 + better, len(values) - worse
    return pairs, places


def _row(name: str, path: str, unit: str, values: Mapping[str, tuple[float, ...]]) -> Row:
    pairs, places = order(values, unit)
    first = next(iter(values))
    figures = tuple(
        Figure(run, of, mean(of), None if run == first else difference(values[first], of), places[run])
        for run, of in values.items()
    )
    return Row(name, path, unit, figures, pairs, _verdict(pairs, places))


def _verdict(pairs: Sequence[Pair], places: Mapping[str, tuple[int, int]]) -> str:
    if all(pair.p is None for pair in pairs):
        return "no order: one repeat says nothing about chance"
    if not any(pair.apart for pair in pairs):
        return "no order: the difference is within the noise"
    whole = all(best == worst for best, worst in places.values())
    best = [run for run, (place, _) in places.items() if place == 1]
    winner = f"best: {best[0]}" if len(best) == 1 else f"not told apart: {', '.join(best)}"
    return winner if whole or len(best) > 1 else f"{winner}; the others partly within the noise"


def _notes(runs: Mapping[str, Result], *, relative: bool) -> list[str]:
    results = list(runs.values())
    found = []
    for key in DIFFERING:
        values = {run: result.environment.get(key) for run, result in runs.items()}
        found += _differ(key.replace("_", " "), values)
    for key in LAB:
        found += _differ(f"lab: {key.replace('_', ' ')}", {run: result.lab.get(key) for run, result in runs.items()})
    if len({shaped(result.lab) for result in results}) > 1:
        found.append("Some runs were shaped and others not: the first are decided by links, the others by the CPU.")
    if not relative and any(len({str(r.environment.get(key)) for r in results}) > 1 for key in MACHINE):
        found.append("The machines differ: compare with --relative, as ratios to each run's own plain veth pair.")
    return found + [f"{run}: {text}" for run, result in runs.items() for text in result.warnings]


def _differ(what: str, values: Mapping[str, object]) -> list[str]:
    """A sentence for what differs, down to the fields of mappings."""
    if len({str(value) for value in values.values()}) == 1:
        return []
    maps = {run: value for run, value in values.items() if isinstance(value, Mapping)}
    if len(maps) == len(values):
        keys = dict.fromkeys(key for value in maps.values() for key in value)
        return [text for key in keys for text in _differ(f"{what} {key}", {r: v.get(key) for r, v in maps.items()})]
    return [f"Different {what}: " + "; ".join(f"{run} {plain(value)[:80] or '-'}" for run, value in values.items())]
