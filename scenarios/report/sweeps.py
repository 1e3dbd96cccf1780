"""A sweep: which runs it consists of, what of them is done, and all their figures as one table."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from scenarios.report import results
from topo.cluster.errors import InputError

SCHEMA, FILE, TABLE = "mininetes/sweep/v1", "sweep.json", "sweep.csv"
COLUMNS = ("cni", "proxy", "nodes", "run", "measurement", "path", "unit", "repeat", "p50", "p90", "p99", "warnings")


@dataclass(frozen=True, slots=True)
class Cell:
    """One lab of the matrix. cni: NAME[:KEY=VALUE]...; empty or 0 for the lab file's own."""

    cni: str = ""
    proxy: str = ""
    nodes: int = 0

    @property
    def name(self) -> str:
        """As a folder is called."""
        parts = [self.cni, self.proxy, f"{self.nodes}-nodes" if self.nodes else ""]
        return re.sub(r"[^A-Za-z0-9_.+=-]+", "-", "+".join(part for part in parts if part)) or "lab"

    def arguments(self) -> list[str]:
        """As `mininetes run` takes them."""
        name, *options = self.cni.split(":")
        found = ["--cni", name] if name else []
        found += [word for option in options for word in ("--cni-option", option)]
        found += ["--proxy", self.proxy] if self.proxy else []
        return found + (["--nodes", str(self.nodes)] if self.nodes else [])


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was asked for. command: arguments of `mininetes run` that all cells share; runs: of each cell."""

    scenario: str
    cni: tuple[str, ...]
    proxy: tuple[str, ...]
    nodes: tuple[int, ...]
    runs: int
    command: tuple[str, ...]

    def cells(self) -> tuple[Cell, ...]:
        """The matrix, row by row."""
        return tuple(Cell(*one) for one in product(self.cni or ("",), self.proxy or ("",), self.nodes or (0,)))

    def steps(self) -> Iterator[tuple[Cell, int]]:
        """Every cell once, then all again: what changes with time is in each cell's runs, not between cells."""
        for run in range(1, self.runs + 1):
            yield from ((cell, run) for cell in self.cells())


def begin(sweep: Sweep, folder: Path) -> None:
    """Note in the folder what it is for. Raises InputError if it is for something else."""
    document = {"schema": SCHEMA, **asdict(sweep)}
    text = json.dumps(document, indent=2) + "\n"
    file = folder / FILE
    if file.exists():
        try:
            there = json.loads(file.read_text())
        except ValueError:
            there = {}
        differing = [key for key in document if there.get(key) != json.loads(text)[key]]
        if differing:
            what = ", ".join(differing)
            raise InputError(str(folder), f"holds another sweep (it differs in {what})", "another --results folder")
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(str(folder), "is no sweep's folder, and not empty", "a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def place(folder: Path, cell: Cell, run: int) -> Path:
    """Where the results of one step are saved."""
    return folder / cell.name / f"run-{run}"


def done(folder: Path, cell: Cell, run: int) -> Path | None:
    """The result of a step, if there is one; what is not whole yet is in a folder whose name begins with a dot."""
    return next((one.parent for one in sorted(place(folder, cell, run).glob("[!.]*/result.json"))), None)


def table(found: Mapping[tuple[Cell, int], Path]) -> str:
    """Every repeat of every measurement as a line of CSV."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for (cell, run), folder in found.items():
        result = results.read(folder)
        for one in result.measurements:
            for number, repeat in enumerate(one.repeats, start=1):
                where = (cell.cni, cell.proxy, cell.nodes or "", run, one.name, one.path, one.unit, number)
                rows.writerow((*where, repeat.p50, repeat.p90, repeat.p99, len(result.warnings)))
    return text.getvalue()


def duplicates(labs: Mapping[Cell, Sequence[object]]) -> tuple[Cell, Cell] | None:
    """Two cells whose labs are equal, which would be measured twice under two names."""
    cells = list(labs)
    for number, one in enumerate(cells):
        for other in cells[number + 1 :]:
            if list(labs[one]) == list(labs[other]):
                return one, other
    return None
