"""Results of a scenario: their model, and writing and reading their folders (JSON, samples, report, plots)."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from scenarios.measure.stats import RepeatSummary, Spread, Summary
from scenarios.report import curves, html, schema
from scenarios.report import tables as report
from scenarios.report.curves import Curves
from topo.cluster.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA = schema.NAME


@dataclass(frozen=True, slots=True)
class Measurement:
    """One kind of measurement on one path.

    name: "tcp_rr". path: "other node", or report.BASELINE. unit: "us" or "bit/s". lost: of all repeats.
    details: what else was seen, as medians over the repeats ("retransmits"). note: why it was not measured.
    """

    name: str
    path: str
    unit: str
    repeats: tuple[Summary, ...] = ()
    summary: RepeatSummary | None = None
    lost: int = 0
    details: Mapping[str, float] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Samples:
    """One repeat's samples, in the order they were taken."""

    name: str
    path: str
    repeat: int
    unit: str
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TextTable:
    """A table of a scenario's own, already as text: what figures alone do not say."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """started: ISO 8601. lab: a plain dict; its "shaped" (or "fabric") tells whether links were shaped.

    warnings: why the figures are to be doubted; failed: what was not as the scenario expects.
    """

    scenario: str
    started: str
    command: str
    environment: Mapping[str, object]
    lab: Mapping[str, object]
    measurements: tuple[Measurement, ...]
    notes: tuple[str, ...] = ()
    tables: tuple[TextTable, ...] = ()
    curves: tuple[Curves, ...] = ()
    warnings: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    schema: str = SCHEMA


def write(
    result: Result, samples: Iterable[Samples], folder: Path, evidence: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Write a new folder <YYYYmmdd-HHMMSS>-<scenario> in `folder` and return its path.

    evidence: texts by file name, for a folder `evidence` in it.
    All is written to a hidden sibling first and renamed at the end, so an interruption leaves nothing half-made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    begun = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        (begun / "result.json").write_text(json.dumps(asdict(result), indent=2) + "\n")
        _write_samples(samples, begun / "samples.csv")
        plots = [begun / name for name, draw in PLOTS.items() if draw(result, begun / name)]
        for one in result.curves:
            curves.draw(one, begun / one.file, SCHEMA)
            plots.append(begun / one.file)
        (begun / "report.md").write_text(report.markdown(result, plots=[plot.name for plot in plots]))
        (begun / "report.html").write_text(html.page(result))
        if evidence:
            (begun / "evidence").mkdir()
        for name, text in evidence.items():
            (begun / "evidence" / name).write_text(text)
        begun.chmod(0o755)  # mkdtemp makes it private.
        return _rename_to_free(begun, folder / folder_name(result))
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise


def read(folder: Path) -> Result:
    """Read a result folder; InputError if it holds none of this schema."""
    path = folder / "result.json"
    try:
        document = json.loads(path.read_text())
    except OSError as problem:
        raise InputError(str(path), f"cannot be read ({problem.strerror})", "a result folder") from None
    except ValueError as problem:
        raise InputError(str(path), f"is not JSON ({problem})") from None
    schema.check(document, str(path))
    measurements = tuple(_measurement(one) for one in document.pop("measurements"))
    tables = tuple(_table(one) for one in document.pop("tables", ()))
    drawn = tuple(curves.read(one) for one in document.pop("curves", ()))
    return Result(
        scenario=document["scenario"],
        started=document["started"],
        command=document["command"],
        environment=document["environment"],
        lab=document["lab"],
        measurements=measurements,
        notes=tuple(document["notes"]),
        tables=tables,
        curves=drawn,
        warnings=tuple(document.get("warnings", ())),
        failed=tuple(document.get("failed", ())),
    )


def folder_name(result: Result) -> str:
    stamp = datetime.fromisoformat(result.started).strftime("%Y%m%d-%H%M%S")
    return f"{stamp}-{re.sub(r'[^A-Za-z0-9_.-]+', '-', result.scenario)}"


def _table(document: dict[str, Any]) -> TextTable:
    return TextTable(document["title"], tuple(document["columns"]), tuple(map(tuple, document["rows"])))


def _measurement(document: dict[str, Any]) -> Measurement:
    repeats = tuple(Summary(**_known(Summary, run)) for run in document["repeats"])
    summary = document["summary"]
    if summary is not None:
        spread = Spread(**_known(Spread, summary["spread"]))
        summary = RepeatSummary(**{**_known(RepeatSummary, summary), "spread": spread})
    return Measurement(**{**_known(Measurement, document), "repeats": repeats, "summary": summary})


def _known(kind: type, document: Mapping[str, Any]) -> dict[str, Any]:
    """What this version knows of it: a later one may have added keys."""
    return {name: document[name] for name in kind.__dataclass_fields__ if name in document}  # type: ignore[attr-defined]


def _write_samples(samples: Iterable[Samples], path: Path) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("measurement", "path", "repeat", "unit", "value"))
        for run in samples:
            rows.writerows((run.name, run.path, run.repeat, run.unit, value) for value in run.values)


def _rename_to_free(begun: Path, wanted: Path) -> Path:
    """Rename to the first of wanted, wanted-2, wanted-3 ... that is free."""
    number = 1
    while True:
        target = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
        number += 1
        if target.exists():
            continue
        try:
            os.rename(begun, target)  # noqa: PTH104 - Path.rename is the same, but reads as if it moved into target
        except OSError:
            if not target.exists():
                raise
            continue  # Another process was faster: rename(2) refuses a folder that is not empty.
        return target


def plot_latency(result: Result, path: Path) -> bool:
    """p50, p90 and p99 by path, one panel for each kind; the whiskers span the repeats. False: nothing to draw."""
    kinds = _by_name(result, "us")
    if not kinds:
        return False
    figure = _figure(width=4.2 * len(kinds))
    for number, (name, measurements) in enumerate(kinds.items(), start=1):
        axes = figure.add_subplot(1, len(kinds), number)
        for offset, key in enumerate(("p50", "p90", "p99")):
            _bars(axes, measurements, key, 1.0, (offset - 1) * 0.27, 0.25)
        axes.set_title(report.label(name))
        axes.set_ylabel("µs")
        axes.legend()
    _save(figure, path)
    return True


def plot_throughput(result: Result, path: Path) -> bool:
    """Throughput by path; the whiskers span the repeats. False: nothing to draw."""
    kinds = _by_name(result, "bit/s")
    if not kinds:
        return False
    figure = _figure(width=4.2 * len(kinds))
    for number, (name, measurements) in enumerate(kinds.items(), start=1):
        axes = figure.add_subplot(1, len(kinds), number)
        _bars(axes, measurements, "p50", 1e9, 0.0, 0.6)
        axes.set_title(report.label(name))
        axes.set_ylabel("Gbit/s")
    _save(figure, path)
    return True


PLOTS: Mapping[str, Callable[[Result, Path], bool]] = {
    "latency.svg": plot_latency,
    "throughput.svg": plot_throughput,
}


def _by_name(result: Result, unit: str) -> dict[str, list[Measurement]]:
    kinds: dict[str, list[Measurement]] = {}
    for one in result.measurements:
        if one.unit == unit and one.summary is not None:
            kinds.setdefault(one.name, []).append(one)
    return kinds


def _bars(axes: Axes, measurements: Sequence[Measurement], key: str, scale: float, shift: float, width: float) -> None:
    heights = [getattr(one.summary, key) / scale for one in measurements]
    runs = [[getattr(run, key) / scale for run in one.repeats] for one in measurements]
    below = [height - min(values) for height, values in zip(heights, runs, strict=True)]
    above = [max(values) - height for height, values in zip(heights, runs, strict=True)]
    at = [place + shift for place in range(len(measurements))]
    axes.bar(at, heights, width, yerr=(below, above), capsize=3, label=key)
    axes.set_xticks(range(len(measurements)), [one.path for one in measurements], rotation=20, ha="right")


def _figure(width: float) -> Figure:
    # Imported here, for it takes half a second. Without pyplot: no display and no global state.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, 4.0), layout="constrained")


def _save(figure: Figure, path: Path) -> None:
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": SCHEMA}):  # Equal results give equal files.
        figure.savefig(path, metadata={"Date": None})
