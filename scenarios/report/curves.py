"""Curves: how a figure grows with the size of something, drawn on logarithmic axes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

Points = tuple[tuple[float, float], ...]
Bands = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True, slots=True)
class Curves:
    """One picture. x, y: what the axes show, with units; lines: name -> (x, y) points.

    spread: name -> (x, least repeat, greatest repeat), where they are known.
    """

    title: str
    x: str
    y: str
    lines: Mapping[str, Points]
    spread: Mapping[str, Bands] = field(default_factory=dict)

    @property
    def file(self) -> str:
        """The name of its picture."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-") + ".svg"


def read(document: Mapping[str, object]) -> Curves:
    """From result.json."""
    lines, spread = document["lines"], document.get("spread", {})
    assert isinstance(lines, dict) and isinstance(spread, dict)
    points = {name: tuple((float(x), float(y)) for x, y in found) for name, found in lines.items()}
    bands = {name: tuple((float(x), float(low), float(high)) for x, low, high in of) for name, of in spread.items()}
    return Curves(str(document["title"]), str(document["x"]), str(document["y"]), points, bands)


def draw(curves: Curves, path: Path, salt: str) -> None:
    """Write it as SVG. salt: makes equal results equal files."""
    import matplotlib  # takes half a second; without pyplot: no display and no global state
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    axes = figure.add_subplot()
    for name, points in curves.lines.items():
        (line,) = axes.plot(*zip(*points, strict=True), marker="o", label=name)
        if bands := curves.spread.get(name):
            xs, low, high = zip(*bands, strict=True)
            axes.fill_between(xs, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_title(curves.title)
    axes.set_xlabel(curves.x)
    axes.set_ylabel(curves.y)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(path, metadata={"Date": None})
