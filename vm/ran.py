"""Which tests ran nowhere: those that the first report of pytest skipped, and no other ran."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vm import VmError


@dataclass(frozen=True, slots=True)
class Report:
    """One run of pytest: tests that ran, with what each ran on, and why the others did not."""

    name: str
    ran: Mapping[str, str] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)


def read(file: Path) -> Report:
    """From JUnit's XML as pytest writes it. Raises VmError."""
    try:
        cases = list(xml.parse(file).iter("testcase"))
    except (OSError, xml.ParseError) as error:
        raise VmError(f"{file}: no report of pytest ({error}): make test and make vm-test write them") from None
    ran, skipped = {}, {}
    for case in cases:
        name = f"{case.get('classname')}::{case.get('name')}"
        missed = case.find("skipped")
        if missed is None:
            said = {p.get("name"): p.get("value") for p in case.iter("property")}
            ran[name] = f"kernel {said.get('kernel', 'not noted')}, datapath {said.get('datapath', 'none')}"
        else:
            skipped[name] = str(missed.get("message"))
    return Report(file.stem, ran, skipped)


def nowhere(first: Report, others: Iterable[Report]) -> dict[str, str]:
    """The tests that ran in none of the reports, with the first's reason."""
    elsewhere = {name for report in others for name in report.ran}
    return {name: reason for name, reason in first.skipped.items() if name not in elsewhere}


def nightly(text: str) -> dict[str, str]:
    """Beginnings of tests' names, as reports have them, with the reason, from lines of pytest's arguments ("FILE" or
    "FILE::TEST"), "  # " and the reason.
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = {}
    for argument, _, reason in (line.partition("  # ") for line in lines):
        file, _, test = argument.partition("::")
        found[f"{file.removesuffix('.py').replace('/', '.')}::{test}"] = reason
    return found


def lines(reports: Sequence[Report], nightly: Mapping[str, str]) -> tuple[list[str], bool]:
    """What to print, and whether every test ran somewhere or does at night.

    nightly: beginnings of tests' names, with the reason for each.
    """
    said = []
    for report in reports:
        said += [f"{report.name}: {count} tests on {where}" for where, count in Counter(report.ran.values()).items()]
    ran = sum(len(report.ran) for report in reports)
    left = nowhere(reports[0], reports[1:])
    later = {start: sum(name.startswith(start) for name in left) for start in nightly}
    said += [f"only by make nightly: {count} of {start}: {nightly[start]}" for start, count in later.items() if count]
    bad = {name: reason for name, reason in left.items() if not name.startswith(tuple(nightly))}
    said += [f"ran nowhere: {name}: {reason}" for name, reason in bad.items()]
    return said or ["no test ran"], ran > 0 and not bad
