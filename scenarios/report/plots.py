"""Plots of a result as places on a picture: repeats and their spread by path, and curves; pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scenarios.report.curves import Curves
from scenarios.report.tables import is_cost, label, number, shown_unit

if TYPE_CHECKING:
    from scenarios.report.results import Measurement, Result

# In pixels of an undistorted picture, which fits a phone.
WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 340.0, 10.0, 14.0, 34.0, 6.0, 30.0
CURVES_HEIGHT, CURVES_LEFT = 230.0, 46.0
# A logarithmic axis where the greatest value is so many times the least.
LOGARITHMIC = 20.0


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on an axis."""

    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Mark:
    """One path's row. value: as text. low, high: least and greatest repeat; tail: p99, None where it says nothing."""

    path: str
    value: str
    y: float
    middle: float
    low: float
    high: float
    tail: float | None
    repeats: tuple[float, ...]
    title: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One kind of measurement."""

    title: str
    unit: str
    logarithmic: bool
    height: float
    marks: tuple[Mark, ...]
    ticks: tuple[Tick, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """One line. path, band: as SVG's d; band: between least and greatest repeat, "" where they are not known."""

    name: str
    path: str
    band: str
    points: tuple[tuple[float, float, str], ...]


@dataclass(frozen=True, slots=True)
class CurvePanel:
    """One picture of curves on logarithmic axes."""

    title: str
    x: str
    y: str
    lines: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]


def panels(result: Result) -> tuple[Panel, ...]:
    """A panel for each kind of measurement that has values, paths in the order they were measured."""
    kinds: dict[tuple[str, str], list[Measurement]] = {}
    for one in result.measurements:
        if one.summary is not None and not is_cost(one):
            kinds.setdefault((one.name, one.unit), []).append(one)
    return tuple(_panel(name, unit, of) for (name, unit), of in kinds.items())


def curve_panels(curves: Iterable[Curves]) -> tuple[CurvePanel, ...]:
    """A panel for each picture that has points; what is not above zero has no place on a logarithmic axis."""
    return tuple(_curve_panel(one) for one in curves if any(y > 0 for of in one.lines.values() for _, y in of))


def ticks(low: float, high: float, logarithmic: bool) -> tuple[float, ...]:
    """Round values from low to high: powers of ten (with 2 and 5 where there are few), or steps of 1, 2 or 5."""
    if logarithmic:
        exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        factors = (1, 2, 5) if high / low < 100 else (1, 3) if high / low < 1000 else (1,)
        found = [factor * 10.0**exponent for exponent in exponents for factor in factors]
        return tuple(value for value in found if low <= value <= high * (1 + 1e-9))
    step = 10.0 ** math.floor(math.log10((high - low) / 3 or 1))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 4)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(step * n for n in range(first, last + 1))


def _scale(low: float, high: float, start: float, end: float, logarithmic: bool) -> Callable[[float], float]:
    if logarithmic:
        low, high = math.log10(low), math.log10(high)

    def place(value: float) -> float:
        return start + (end - start) * ((math.log10(value) if logarithmic else value) - low) / ((high - low) or 1)

    return place


def _panel(name: str, unit: str, measurements: Sequence[Measurement]) -> Panel:
    scale, shown = shown_unit(unit)
    values = [value / scale for one in measurements for value in _extent(one)]
    low, high = min(values), max(values)
    logarithmic = low > 0 and high / low > LOGARITHMIC
    low, high = (low / 1.15, high * 1.15) if logarithmic else (min(0.0, low), high * 1.05 or 1.0)
    place = _scale(low, high, LEFT, WIDTH - RIGHT, logarithmic)
    marks = tuple(_mark(one, TOP + row * ROW, lambda v: place(v / scale)) for row, one in enumerate(measurements))
    marked = tuple(Tick(place(value), f"{value:g}") for value in ticks(low, high, logarithmic))
    return Panel(label(name), shown, logarithmic, TOP + len(marks) * ROW + BOTTOM, marks, marked)


def _extent(one: Measurement) -> Iterable[float]:
    assert one.summary is not None
    yield from (one.summary.p50, one.summary.spread.low, one.summary.spread.high)
    if one.unit == "us":
        yield one.summary.p99


def _mark(one: Measurement, y: float, place: Callable[[float], float]) -> Mark:
    assert one.summary is not None
    value, low, high = one.summary.p50, one.summary.spread.low, one.summary.spread.high
    shown = shown_unit(one.unit)[1]
    many = f"{number(low, one.unit)} to {number(high, one.unit)} {shown} in {len(one.repeats)} repeats"
    return Mark(
        path=one.path,
        value=number(value, one.unit),
        y=y,
        middle=place(value),
        low=place(low),
        high=place(high),
        tail=place(one.summary.p99) if one.unit == "us" else None,
        repeats=tuple(place(run.p50) for run in one.repeats),
        title=f"{one.path}: {number(value, one.unit)} {shown}, {many}",
    )


def _curve_panel(curves: Curves) -> CurvePanel:
    lines: Mapping[str, list[tuple[float, float]]] = {
        name: [(x, y) for x, y in points if x > 0 and y > 0] for name, points in curves.lines.items()
    }
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    ys += [y for points in curves.spread.values() for _, *both in points for y in both if y > 0]
    x_low, x_high, y_low, y_high = min(xs) / 1.1, max(xs) * 1.1, min(ys) / 1.2, max(ys) * 1.2
    to_x = _scale(x_low, x_high, CURVES_LEFT, WIDTH - RIGHT, True)
    to_y = _scale(y_low, y_high, CURVES_HEIGHT - BOTTOM, TOP, True)
    drawn = []
    for name, points in lines.items():
        at = tuple((to_x(x), to_y(y), f"{name}: {y:.4g} at {x:g}") for x, y in points)
        known = [(to_x(x), to_y(low), to_y(high)) for x, low, high in curves.spread.get(name, ()) if low > 0]
        band = _path([*((x, high) for x, _, high in known), *((x, low) for x, low, _ in reversed(known))])
        drawn.append(Curve(name, _path([(x, y) for x, y, _ in at]), f"{band} Z" if len(known) > 1 else "", at))
    return CurvePanel(
        title=curves.title,
        x=curves.x,
        y=curves.y,
        lines=tuple(drawn),
        x_ticks=tuple(Tick(to_x(v), f"{v:g}") for v in ticks(x_low, x_high, True)),
        y_ticks=tuple(Tick(to_y(v), f"{v:g}") for v in ticks(y_low, y_high, True)),
    )


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if i else 'M'} {x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))
