"""Tables of the CNI benchmark, like the published ones: rated figures, costs, places, and what the CPU had left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from scenarios import Outcome
from scenarios.measure.limits import LIMITED, SATURATED, UNSURE, verdict
from scenarios.measure.stats import median
from scenarios.measure.trials import KINDS, REQUESTS, STREAMS, Kind
from scenarios.report import ratings
from scenarios.report.ratings import Rating
from scenarios.report.results import Measurement, Samples, TextTable

# Ways of measuring, rows that are no CNI, and paths.
SHAPED, UNSHAPED = "shaped", "unshaped"
NO_CNI, BARE = "no CNI", "bare"
NODES, POD, SERVICE = "nodes", "pod", "Service"
# What a lab costs, beside the loads, as units by name; on the path IDLE, and on those that TCP was sent on.
MEMORY, CPU, COST, FLOWS = "node_memory", "node_cpu", "cpu_cost", "flows"
COSTS = {MEMORY: "MB", CPU: "% of a CPU", COST: "CPU s/Gbit", FLOWS: "flows"}
IDLE = "idle"
# What a lab says of its CNI: a table of one row.
SAID = ("MTU", "policy", "encryption")
NONE = "-"
STAR = "*"
_NOTES = (
    f"{SHAPED}: every link, and the bare wire, carries far less than the emulator can, so headers and MTU decide; "
    f"{STAR}: the CPU decided instead. {UNSHAPED}: nothing is limited, the emulator's own cost decides every figure, "
    "and none is a real network's.",
    f"The CPU was the limit ({LIMITED}) if a thread of the lab ran or waited for a CPU {SATURATED:g} % of the time, or "
    f"all CPUs were as busy and the lab had most of them; {UNSURE} if other programs had most.",
    f"{NO_CNI}: the nodes' own network, measured in every lab in turn with its pods; scores are against it in that "
    f"lab. {BARE}: two namespaces and one veth pair, limited as the links are, in the lab without pods.",
    ratings.METHOD,
    "Throughput is what arrived. UDP's datagrams fill the path's packets. Downloads: one connection, once it is open; "
    "SCP encrypts, which is in its CPU. HTTP requests/s: 8 connections (wrk); connections/s: as many, each "
    "request on a new one. CRR: one connection after the other.",
    "Memory and CPU: of the nodes' switches, of every other process in the nodes' networks and of the agent; added: to "
    "a lab without pods. Memory is PSS, which is less while other labs of the machine share pages. What real CNIs run "
    "on a node beside that (agents in Go, say) does not run here.",
)


@dataclass(frozen=True, slots=True)
class Row:
    """A CNI, or what is no CNI. path: which of its lab's stands for it; outcome: of its lab, None if left out."""

    name: str
    path: str
    outcome: Outcome | None

    @property
    def said(self) -> tuple[str, ...]:
        """SAID, as its lab has them."""
        return self.outcome.tables[0].rows[0] if self.outcome else ()

    def figure(self, name: str, path: str) -> Measurement | None:
        """A measurement of its lab that has a value."""
        found = self.outcome.measurements if self.outcome else ()
        return next((m for m in found if (m.name, m.path) == (name, path) and m.summary), None)

    def repeats(self, name: str, path: str) -> dict[int, float]:
        """Each repeat's median, by its number."""
        found = self.outcome.samples if self.outcome else ()
        return {s.repeat: median(s.values) for s in found if (s.name, s.path) == (name, path)}

    def scores(self, kind: Kind, path: str) -> tuple[float, ...]:
        """Against the nodes' own network in the same lab and repeat."""
        return ratings.scores(self.repeats(kind.name, path), self.repeats(kind.name, NODES), kind.unit)


def outcome(outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
    """All labs' figures and the tables of each condition. Names of labs: NAME, CONDITION."""
    tables: list[TextTable] = []
    measurements: list[Measurement] = []
    samples: list[Samples] = []
    for name, found in outcomes.items():
        measurements += [replace(m, path=f"{name}: {m.path}") for m in found.measurements]
        samples += [replace(s, path=f"{name}: {s.path}") for s in found.samples]
    for condition in dict.fromkeys(name.partition(", ")[2] for name in (*outcomes, *missing)):
        tables += _tables(condition, _rows(condition, outcomes, missing))
    notes = [f"{name} is left out: {why}" for name, why in missing.items()]
    notes += [f"{name}: {text}" for name, one in outcomes.items() for text in one.notes]
    return Outcome(measurements, samples, [*notes, *_NOTES], tables)


def _rows(condition: str, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> list[Row]:
    found = []
    for name in (*outcomes, *missing):
        cni, _, own = name.partition(", ")
        if own != condition:
            continue
        one = outcomes.get(name)
        if one is not None and not one.measurements:
            one = None  # its notes say why
        paths = {BARE: BARE, NO_CNI: NODES} if cni == NO_CNI else {cni: POD}
        found += [Row(row, path, one) for row, path in paths.items()]
    return found


def _tables(condition: str, rows: Sequence[Row]) -> Iterator[TextTable]:
    way = condition.partition(", ")[0]
    starred = way == SHAPED
    there = [row for row in rows if row.outcome is not None]
    columns = [
        (kind, path)
        for kind in KINDS
        for path in ((POD, SERVICE) if kind.service else (POD,))
        if any(row.figure(kind.name, _own(row, path)) for row in there)
    ]
    streams, requests = ([c for c in columns if c[0] in kinds] for kinds in (STREAMS, REQUESTS))
    if streams:
        cells = _figures(streams, starred)
        yield _table(f"{condition}: Mbit/s between two nodes", _heads(streams), rows, cells)
    if requests:
        yield _table(f"{condition}: requests between two nodes", _heads(requests), rows, _figures(requests, starred))
    base = next((row for row in there if row.name == NO_CNI), None)
    heads = (SAID[0], "MB a node, idle", "added", "under TCP", "CPU (%), idle", "under TCP", "CPU s/Gbit", "rating")
    yield _table(f"{condition}: what it costs and can", (*heads, "flows", *SAID[1:]), rows, lambda r: _costs(r, base))
    for part in filter(None, (streams, requests)):
        title = f"{condition}: scores with their 95 % intervals; in brackets places among the CNIs"
        yield _table(title, _heads(part), there, _scores(part, there))
    if columns:
        title = f"{condition}: was the CPU the limit? percent: the machine, the lab's part, the lab's busiest thread"
        yield _table(title, _heads(columns), there, lambda row: tuple(_cpu(row, *c) for c in columns))


def _heads(columns: Sequence[tuple[Kind, str]]) -> tuple[str, ...]:
    return tuple(kind.title + ("" if path == POD else f" {path}") for kind, path in columns)


def _table(title: str, heads: Sequence[str], rows: Sequence[Row], cells: Callable[[Row], tuple[str, ...]]) -> TextTable:
    """A line a row; why one is left out is in the notes."""
    blank = ("",) * (len(heads) - 1)
    lines = [(row.name, *(cells(row) if row.outcome else ("left out", *blank))) for row in rows]
    return TextTable(title, ("CNI", *heads), tuple(lines))


def _own(row: Row, path: str) -> str:
    """Where a row has what stands in the column of a path; nothing but CNIs has Services."""
    return row.path if path == POD else path


def _figures(columns: Sequence[tuple[Kind, str]], starred: bool) -> Callable[[Row], tuple[str, ...]]:
    def cell(row: Row, kind: Kind, path: str) -> str:
        path = _own(row, path)
        found = row.figure(kind.name, path)
        if found is None or found.summary is None:
            return NONE
        value = found.summary.p50 / kind.scale
        text = f"{value:.1f}" if value < 1000 and kind.unit == "bit/s" else f"{value:.0f}"
        scores = row.scores(kind, path) if path != NODES else ()
        word = f" {ratings.rate(scores).word}" if scores else ""
        return text + word + (STAR if starred and _limit(found) == LIMITED else "")

    return lambda row: tuple(cell(row, *column) for column in columns)


def _limit(found: Measurement) -> str:
    """Whether the CPU was the limit, by what it was busy in most repeats."""
    machine, own, thread = (found.details.get(f"{what}_percent", 0.0) for what in ("machine", "own", "thread"))
    return verdict(machine, own, thread)


def _scores(columns: Sequence[tuple[Kind, str]], rows: Sequence[Row]) -> Callable[[Row], tuple[str, ...]]:
    """Each row's score with its interval; and the places of the CNIs, where they can be told apart."""
    cells: list[dict[str, str]] = []
    for kind, path in columns:
        known = {row.name: found for row in rows if row.path != NODES and (found := row.scores(kind, _own(row, path)))}
        places = ratings.ranks({row.name: known[row.name] for row in rows if row.path == POD and row.name in known})
        told = {name: f" [{places[name]}]" if name in places else "" for name in known}
        cells.append({name: _score(ratings.rate(found)) + told[name] for name, found in known.items()})
    return lambda row: tuple(column.get(row.name, NONE) for column in cells)


def _score(rating: Rating) -> str:
    score = rating.score
    if score.low is None or score.high is None:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} ({score.low:.2f}-{score.high:.2f})"


def _cpu(row: Row, kind: Kind, path: str) -> str:
    found = row.figure(kind.name, _own(row, path))
    if found is None:
        return NONE
    shown = "/".join(f"{found.details.get(f'{what}_percent', 0.0):.0f}" for what in ("machine", "own", "thread"))
    return f"{_limit(found)} {shown}"


def _costs(row: Row, base: Row | None) -> tuple[str, ...]:
    """Of its lab. base: the row of the lab without pods."""

    def cell(name: str, path: str, digits: int = 1) -> str:
        found = row.figure(name, path)
        return f"{found.summary.p50:.{digits}f}" if found and found.summary else NONE

    if row.path == BARE:
        return (NONE,) * (8 + len(SAID))
    added = rated = NONE
    if row.path == POD:
        scores = ratings.scores(row.repeats(COST, POD), row.repeats(COST, NODES), COSTS[COST])
        rated = ratings.rate(scores).word if scores else NONE
        added = _added(row, base) if base is not None else NONE
    mtu, *able = row.said
    memory = cell(MEMORY, IDLE), added, cell(MEMORY, row.path)
    cpu = cell(CPU, IDLE, 0), cell(CPU, row.path, 0), cell(COST, row.path, 2), rated
    return (mtu, *memory, *cpu, cell(FLOWS, IDLE, 0), *able)


def _added(row: Row, base: Row) -> str:
    """Memory beyond that of a lab without pods; nothing that is less than the repeats differ."""
    ours, theirs = (list(one.repeats(MEMORY, IDLE).values()) for one in (row, base))
    if not ours or not theirs:
        return NONE
    more = f"{median(ours) - median(theirs):+.1f}"
    if min(len(ours), len(theirs)) < 2:
        return f"{more} {ratings.ONCE}"
    return more if min(ours) > max(theirs) or max(ours) < min(theirs) else ratings.NOISE
