"""Whether a path became slower than it was: its ratio to another path, measured in turn with it, against a known ratio.

A ratio to something that the same moment measured holds on another machine, and on this one when it is busy: what
disturbs one of the two disturbs the other. Slower means that chance would hardly make the ratio so large: all of its
95 % interval lies beyond the known ratio and the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios.measure.inference import Estimate, mean
from topo.cluster.errors import InputError
from topo.yaml_source import plain, read_documents, read_text

LEAST_REPEATS = 3


@dataclass(frozen=True, slots=True)
class Beside:
    """A path's repeats and, taken in turn, another's: medians in `unit`. datapath: netdev or system, the lab's."""

    kind: str
    unit: str
    path: tuple[float, ...]
    beside: tuple[float, ...]
    datapath: str

    @property
    def ratios(self) -> tuple[float, ...]:
        """Of each repeat to its neighbour, so that more is slower."""
        pairs = zip(self.path, self.beside, strict=True)
        return tuple(two / one if self.unit.endswith("/s") else one / two for one, two in pairs)


@dataclass(frozen=True, slots=True)
class Verdict:
    """slower: whether it is a regression. text: a sentence with the figures."""

    slower: bool
    ratio: Estimate
    text: str


def judge(measured: Beside, known: float, tolerance: float) -> Verdict:
    """known: the ratio as it was; tolerance: by how much more is still no regression (0.25: a quarter)."""
    if len(measured.ratios) < LEAST_REPEATS:
        raise InputError(measured.kind, f"{len(measured.ratios)} repeats say nothing", f"{LEAST_REPEATS} or more")
    if known <= 0 or tolerance < 0:
        raise InputError(measured.kind, f"baseline {known:g}, tolerance {tolerance:g}", "above 0, and 0 or more")
    ratio = mean(measured.ratios)
    assert ratio.low is not None and ratio.high is not None
    slower = ratio.low > known * (1 + tolerance)
    said = f"{ratio.value:.2f} times (95 %: {ratio.low:.2f} to {ratio.high:.2f}) what is beside it"
    text = f"{measured.kind}: {said}; baseline {known:.2f}, tolerance {tolerance:.0%}"
    return Verdict(slower, ratio, f"{text}: {'slower' if slower else 'no regression'}")


def known_ratio(file: Path, name: str, measured: Beside) -> float:
    """A baseline by its name: a number, or one for each datapath. Raises InputError that says what to add."""
    documents = [d for d in read_documents(read_text(file), str(file)) if d.value is not None] if file.exists() else []
    entry: Any = plain(documents[0].value).get(name) if documents and isinstance(documents[0].value, dict) else None
    ratio = entry.get(measured.datapath) if isinstance(entry, dict) else entry
    if not isinstance(ratio, int | float) or isinstance(ratio, bool):
        now = mean(measured.ratios).value
        raise InputError(
            str(file),
            f"has no baseline {name!r} for datapath {measured.datapath}",
            f"`{name}: {now:.2f}`, as it is now",
        )
    return float(ratio)
