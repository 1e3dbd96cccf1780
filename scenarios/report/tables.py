"""Show a result as Markdown and as a terminal table, both from the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from scenarios.report import markdown as md
from scenarios.report import traits

if TYPE_CHECKING:
    from scenarios.report.results import Measurement, Result

BASELINE = "baseline"  # the path of the measurements that the others are compared with
NONE = "-"
MIXED = "shaped_in_some"  # key of a result's lab: whether others of its labs were not
LABELS = {
    "icmp_rtt": "ICMP RTT",
    "tcp_rr": "TCP RR",
    "tcp_crr": "TCP CRR",
    "udp_rr": "UDP RR",
    "tcp_throughput": "TCP throughput",
    "udp_throughput": "UDP throughput",
    "sctp_throughput": "SCTP throughput",
    "http_download": "HTTP download",
    "ftp_download": "FTP download",
    "scp_download": "SCP download",
}
COLUMNS = ("Path", "Baseline", "Measured", "Ratio", "Spread of repeats", "Lost")
LEGEND = (
    "Latencies: p50 (p90, p99) of one transaction. Throughput: what arrived. All are medians over the repeats; the "
    "spread is the least and greatest repeat. Ratio: measured to the baseline, one plain veth pair on this machine. "
    "An ICMP echo is answered by the kernel; RR and CRR also wake a process at each end, which here costs more."
)


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement on one path, as text. kind: the measurement's label with its unit; value: what was measured."""

    kind: str
    path: str
    baseline: str
    measured: str
    ratio: str
    spread: str
    lost: str
    value: float | None = field(default=None, compare=False)

    def cells(self) -> tuple[str, ...]:
        return (self.path, self.baseline, self.measured, self.ratio, self.spread, self.lost)


def label(name: str) -> str:
    return LABELS.get(name, name)


def rows(result: Result) -> tuple[Row, ...]:
    """The table's rows, by kind and in it by path, in the order they were measured.

    A baseline is the first column of the other paths' rows; where it is alone, it has a row of its own.
    """
    measured = [one for one in result.measurements if not is_cost(one)]
    base = {one.name: one for one in measured if one.path == BASELINE}
    others = [one for one in measured if one.path != BASELINE]
    names = list(dict.fromkeys(one.name for one in measured))
    found = []
    for name in names:
        paths = [one for one in others if one.name == name] or [base[name]]
        found += [_row(one, base.get(name)) for one in paths]
    return tuple(found)


def cost_rows(result: Result) -> tuple[tuple[str, ...], ...]:
    """What the lab itself used while each path was measured: a heading row, then a row a kind; empty if not taken."""
    costs = [one for one in result.measurements if is_cost(one)]
    paths = tuple(dict.fromkeys(one.path for one in costs))
    cells = {(one.name, one.path): number(one.summary.p50, one.unit) for one in costs if one.summary}
    units = {one.name: one.unit for one in costs}
    body = tuple(
        (f"{name} ({unit})", *(cells.get((name, path), NONE) for path in paths)) for name, unit in units.items()
    )
    return (("Lab's own use", *paths), *body) if body else ()


def is_cost(one: Measurement) -> bool:
    """Whether it is what the lab used, and not what was asked of it."""
    return one.unit == "CPUs" or one.unit.startswith("MiB")


def shaped(lab: Mapping[str, object]) -> bool | None:
    """Whether the lab's links were limited: its "shaped", or any limit in its "fabric"; None if it has neither, and if
    only some of several labs were.
    """
    explicit, fabric = lab.get("shaped"), lab.get("fabric")
    if lab.get(MIXED):
        return None
    if isinstance(explicit, bool):
        return explicit
    if not isinstance(fabric, Mapping):
        return None
    links = fabric.get("links")
    all_links = [fabric.get("link"), *(links.values() if isinstance(links, Mapping) else ())]
    limits = ("bandwidth", "delay", "loss")
    return any(isinstance(link, Mapping) and any(link.get(key) for key in limits) for link in all_links)


def shaping(lab: Mapping[str, object]) -> str:
    """The sentence on what decided the figures."""
    if lab.get(MIXED):
        return "Fabric: shaped in some labs, unshaped in others, as their names say; in the latter the CPU decides all."
    match shaped(lab):
        case True:
            return "Fabric: shaped. Its links' limits decide the figures as long as they are below what the CPU can do."
        case False:
            return (
                "Fabric: unshaped. The emulator's CPU decides every figure: "
                "they compare paths on this machine and do not predict a real network's."
            )
        case None:
            return "Fabric: not told whether shaped. Where it is unshaped, the emulator's CPU decides every figure."


def markdown(result: Result, plots: Sequence[str] = ()) -> str:
    """The report. plots: file names of images to show."""
    lines = [f"# {md.text(result.scenario)}", "", f"Started {md.text(result.started)} by {md.code(result.command)}."]
    lines += ["", shaping(result.lab)]
    lines += [line for said in result.warnings for line in ("", f"**Warning:** {md.text(said)}")]
    for own in result.tables:
        lines += ["", f"## {md.text(own.title)}", "", md.line(own.columns), md.line("---" for _ in own.columns)]
        lines += [md.line(row) for row in own.rows]
    for kind, group in groupby(rows(result), key=lambda row: row.kind):
        lines += ["", f"## {md.text(kind)}", "", md.line(COLUMNS), md.line("---" for _ in COLUMNS)]
        lines += [md.line(row.cells()) for row in group]
    if costs := cost_rows(result):
        lines += ["", "## What the lab used", "", md.line(costs[0]), md.line("---" for _ in costs[0])]
        lines += [md.line(row) for row in costs[1:]]
    lines += ["", LEGEND]
    lines += _networks(result.lab.get("traits"))
    lines += [line for plot in plots for line in ("", f"![{plot.removesuffix('.svg')}]({plot})")]
    if result.notes:
        lines += ["", "## Notes", "", *(f"- {md.text(note)}" for note in result.notes)]
    lines += ["", "## Measured on", "", md.line(("what", "value")), md.line(("---", "---"))]
    lines += [md.line((key, plain(value))) for key, value in result.environment.items()]
    return "\n".join(lines) + "\n"


def _networks(found: object) -> list[str]:
    """Traits of the CNIs that were measured."""
    if not isinstance(found, Mapping) or not found:
        return []
    return ["", "## Pod networks", "", *traits.markdown(found)]


def table(result: Result) -> Table:
    """The same rows for a terminal."""
    caption = "\n".join((*warnings(result), shaping(result.lab), LEGEND, *result.notes))
    shown = Table(title=result.scenario, caption=caption, caption_justify="left", box=box.SIMPLE_HEAD)
    for place, column in enumerate(("Measurement", *COLUMNS)):
        shown.add_column(column, justify="left" if place < 2 else "right")
    for kind, group in groupby(rows(result), key=lambda row: row.kind):
        for place, row in enumerate(group):
            shown.add_row("" if place else kind, *row.cells())
        shown.add_section()
    return shown


def notes(result: Result) -> str:
    """What a reader of the scenario's own tables must know."""
    return "\n".join((*warnings(result), shaping(result.lab), *result.notes))


def warnings(result: Result) -> tuple[str, ...]:
    """Why the figures are to be doubted."""
    return tuple(f"Warning: {text}" for text in result.warnings)


def text_tables(result: Result) -> list[Table]:
    """The scenario's own tables for a terminal."""
    found = []
    for own in result.tables:
        shown = Table(*own.columns, title=own.title, box=box.SIMPLE_HEAD)
        for row in own.rows:
            shown.add_row(*row)
        found.append(shown)
    return found


def cost_table(result: Result) -> Table | None:
    """The costs for a terminal, if they were taken."""
    costs = cost_rows(result)
    if not costs:
        return None
    shown = Table(*costs[0], box=box.SIMPLE_HEAD)
    for row in costs[1:]:
        shown.add_row(*row)
    for column in shown.columns[1:]:
        column.justify = "right"
    return shown


def _row(one: Measurement, base: Measurement | None) -> Row:
    _, unit = shown_unit(one.unit)
    ratio, spread = NONE, NONE
    if one.summary is not None:
        spread = f"{number(one.summary.spread.low, one.unit)} to {number(one.summary.spread.high, one.unit)}"
        if base is not None and base.summary is not None and base.summary.p50:
            ratio = f"{one.summary.p50 / base.summary.p50:.2f}"
    return Row(
        kind=f"{label(one.name)} ({unit})",
        path=one.path,
        baseline=_cell(base),
        measured=_cell(one),
        ratio=ratio,
        spread=spread,
        lost=_lost(one),
        value=one.summary.p50 if one.summary else None,
    )


def _cell(one: Measurement | None) -> str:
    if one is None:
        return NONE
    if one.summary is None:
        return one.note or NONE
    middle = number(one.summary.p50, one.unit)
    if one.unit == "bit/s":
        return middle
    return f"{middle} ({number(one.summary.p90, one.unit)}, {number(one.summary.p99, one.unit)})"


def _lost(one: Measurement) -> str:
    """Transactions that were lost; of a flood only the share tells anything, and TCP sends again what is lost."""
    if one.summary is None:
        return NONE
    if "loss_percent" in one.details:
        return f"{one.details['loss_percent']:.1f} %"
    if "retransmits" in one.details:
        return f"{one.details['retransmits']:.0f} resent"
    return str(one.lost)


def shown_unit(unit: str) -> tuple[float, str]:
    """What a value of the unit is divided by to be shown, and the unit that is then shown."""
    return {"bit/s": (1e9, "Gbit/s"), "us": (1.0, "µs")}.get(unit, (1.0, unit))


def number(value: float, unit: str) -> str:
    """Three significant digits are more than such a measurement is worth; none is cut before the point."""
    scaled = value / shown_unit(unit)[0]
    digits = 0 if scaled >= 100 else 1 if scaled >= 10 else 2 if scaled >= 1 else 3
    return f"{scaled:.{digits}f}"


def plain(value: object) -> str:
    """A value of the environment as text."""
    if value is None:
        return NONE
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
