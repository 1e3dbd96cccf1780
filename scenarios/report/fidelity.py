"""Whether a run says what published figures claim: holds, fails, or undecided where noise allows no verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from scenarios.measure.inference import Estimate, difference, mean, relative_error, spearman
from scenarios.report.claims import Claim
from scenarios.report.comparison import Pair, more_is_better, order, repeats
from scenarios.report.results import Measurement, Result
from scenarios.report.tables import number, shown_unit

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
Values = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A claim and one run. published, measured: as text; figures: the numbers behind them; why: unless it holds."""

    claim: str
    run: str
    verdict: str
    published: str
    measured: str
    figures: Mapping[str, object] = field(default_factory=dict)
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Found:
    verdict: str
    published: str
    measured: str
    figures: Mapping[str, object] = field(default_factory=dict)


def judge(claims: Sequence[Claim], runs: Mapping[str, Result]) -> tuple[tuple[Judgement, ...], tuple[Claim, ...]]:
    """Every claim with every run that measured it; and the claims that none did."""
    found, missing = [], []
    for claim in claims:
        judged = [(run, one) for run, result in runs.items() if (one := _judge(claim, result)) is not None]
        if not judged:
            missing.append(claim)
        for run, one in judged:
            why = "" if one.verdict == HOLDS else claim.explanation + _doubt(runs[run])
            found.append(Judgement(claim.id, run, one.verdict, one.published, one.measured, one.figures, why))
    return tuple(found), tuple(missing)


def _judge(claim: Claim, result: Result) -> _Found | None:
    if result.scenario != claim.scenario or not _applies(claim, result):
        return None
    return _KINDS[claim.kind](claim, result)


def _doubt(result: Result) -> str:
    many = len(result.warnings)
    return f"; and this run itself is to be doubted: {result.warnings[0]}" + _more(many) if many else ""


def _more(many: int) -> str:
    return f" (and {many - 1} more)" if many > 1 else ""


def _applies(claim: Claim, result: Result) -> bool:
    """Whether the lab was one of those that the claim is about."""
    wanted = claim.fields.get("where", {})
    return all(result.lab.get(k) in (v if isinstance(v, list) else [v]) for k, v in wanted.items())


def _measurement(result: Result, place: Mapping[str, str], path: str) -> Measurement | None:
    return next((m for m in result.measurements if (m.name, m.path) == (place["measurement"], path)), None)


def _values(result: Result, place: Mapping[str, str], path: str) -> Values:
    one = _measurement(result, place, path)
    return repeats(result, one, relative=False) if one is not None else ()


def _ratio(claim: Claim, result: Result) -> _Found | None:
    """Holds if all of the interval is within the band, fails if none of it is."""
    top, bottom = (_values(result, claim.fields[name], claim.fields[name]["path"]) for name in ("of", "to"))
    if not top or not bottom:
        return None
    given = claim.fields["published"]
    published = given if not isinstance(given, dict) else claim.published(given["of"]) / claim.published(given["to"])
    measured = difference(bottom, top).ratio
    within = claim.fields["within"]
    verdict = _in_band(measured, published, within)
    figures = {"published": published, "measured": measured.value, "low": measured.low, "high": measured.high}
    return _Found(verdict, f"ratio {published:.2f}, within {within:.0%}", f"ratio {_interval(measured)}", figures)


def _in_band(measured: Estimate, published: float, within: float) -> str:
    if measured.low is None or measured.high is None:
        return UNDECIDED
    low, high = published * (1 - within), published * (1 + within)
    if low <= measured.low and measured.high <= high:
        return HOLDS
    return FAILS if measured.high < low or measured.low > high else UNDECIDED


def _shape(claim: Claim, result: Result) -> _Found | None:
    """A curve, as ratios to its first point."""
    place, given = claim.fields["measured"], claim.fields["published"]
    points = zip(claim.published(given["at"]), claim.published(given["values"]), strict=True)
    known = [(str(x), y, of) for x, y in points if (of := _values(result, place, place["path"].format(x=x)))]
    return _series(claim, known, known[0][0] if known else "")


def _table(claim: Claim, result: Result) -> _Found | None:
    """Rows, as ratios to the baseline's."""
    place, column = claim.fields["measured"], claim.fields["column"]
    rows = [(name, claim.published(f"rows.{row}.{column}")) for row, name in claim.fields["rows"].items()]
    known = [(name, y, of) for name, y in rows if (of := _values(result, place, place["path"].format(name=name)))]
    return _series(claim, known, claim.fields["rows"][claim.fields["baseline"]])


def _series(claim: Claim, known: Sequence[tuple[str, float, Values]], base: str) -> _Found | None:
    """Several ratios to one. Holds if they are near the published ones on average, and ranked alike if that is asked.

    Near by chance does not hold: the intervals' farther ends may be off twice as much on average and no more. What is
    not near fails if some ratio's whole interval is off its band, which chance alone would not do.
    """
    first = next((one for one in known if one[0] == base), None)
    others = [one for one in known if one[0] != base]
    if first is None or not others:
        return None
    published = {name: y / first[1] for name, y, _ in others}
    measured = {name: difference(first[2], of).ratio for name, _, of in others}
    error = relative_error(list(published.values()), [one.value for one in measured.values()])
    ranked = spearman([1.0, *published.values()], [1.0, *(one.value for one in measured.values())])
    within, wanted = claim.fields["within"], claim.fields.get("correlation")
    near = error <= within and (wanted is None or (ranked is not None and ranked >= wanted))
    off = any(_in_band(measured[name], published[name], within) == FAILS for name in published)
    repeated = all(one.low is not None for one in measured.values())
    if not repeated:
        verdict = UNDECIDED
    elif near:
        verdict = HOLDS if _reach(published, measured) <= 2 * within else UNDECIDED
    else:
        verdict = FAILS if off or error <= within else UNDECIDED
    figures = {
        "baseline": base,
        "published": published,
        "measured": {name: {"ratio": one.value, "low": one.low, "high": one.high} for name, one in measured.items()},
        "spearman": ranked,
        "mean_relative_error": error,
    }
    limits = f"mean error within {within:.0%}" + (
        f", rank correlation {wanted:g} or more" if wanted is not None else ""
    )
    to = f"to {base}: "
    shown = f"; mean error {error:.0%}, rank correlation {'none' if ranked is None else f'{ranked:.2f}'}"
    return _Found(
        verdict,
        f"{to}{', '.join(f'{name} {value:.2f}' for name, value in published.items())}; {limits}",
        f"{to}{', '.join(f'{name} {_interval(one)}' for name, one in measured.items())}{shown}",
        figures,
    )


def _reach(published: Mapping[str, float], measured: Mapping[str, Estimate]) -> float:
    """How far the farther ends of the intervals are off, relatively and on average."""
    ends = [max((one.low or 0, one.high or 0), key=lambda end: abs(end - published[n])) for n, one in measured.items()]
    return relative_error(list(published.values()), ends)


def _ordering(claim: Claim, result: Result) -> _Found | None:
    """Groups, the best first. Every pair of two groups must be told apart, in this order."""
    place, groups = claim.fields["measured"], claim.fields["groups"]
    names = [name for group in groups for name in group]
    values = {name: of for name in names if (of := _values(result, place, place["path"].format(name=name)))}
    rank = {name: level for level, group in enumerate(groups) for name in group}
    if len({rank[name] for name in values}) < 2:
        return None
    one = _measurement(result, place, place["path"].format(name=next(iter(values))))
    assert one is not None
    pairs, _ = order(values, one.unit)
    across = [pair for pair in pairs if rank[pair.first] != rank[pair.second]]
    wrong = [p for p in across if p.apart and _second_is_better(p, one.unit) != (rank[p.second] < rank[p.first])]
    open_ = [pair for pair in across if not pair.apart]
    verdict = FAILS if wrong else UNDECIDED if open_ or len(values) < len(names) else HOLDS
    unit = shown_unit(one.unit)[1]
    measured = ", ".join(f"{name} {number(mean(of).value, one.unit)}" for name, of in values.items())
    doubts = [f"{p.first} and {p.second} are the other way round" for p in wrong]
    doubts += [f"{p.first} and {p.second} are within the noise" for p in open_]
    doubts += [f"{name} was not measured" for name in names if name not in values]
    figures = {"unit": one.unit, "means": {name: mean(of).value for name, of in values.items()}, "doubts": doubts}
    wanted = ", then ".join(" and ".join(group) for group in groups)
    return _Found(verdict, f"best first: {wanted}", "; ".join([f"{measured} {unit}", *doubts]), figures)


def _second_is_better(pair: Pair, unit: str) -> bool:
    return (pair.ratio.value > 1) == more_is_better(unit)


def _outcome(claim: Claim, result: Result) -> _Found | None:
    """The scenario's own expectations."""
    del claim
    failed = [*result.failed, *(note for note in result.notes if note.startswith("Not as expected: "))]
    said = failed[0] if failed else "everything as expected"
    return _Found(FAILS if failed else HOLDS, "everything as expected", said, {"failed": len(result.failed)})


_KINDS: Mapping[str, Callable[[Claim, Result], _Found | None]] = {
    "ratio": _ratio,
    "shape": _shape,
    "table": _table,
    "ordering": _ordering,
    "outcome": _outcome,
}


def _interval(found: Estimate) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:.2f} (one repeat)"
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
