"""Runs the benchmarks: python -m benchmarks [NAME...] [--json]."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from benchmarks import alarm, datapath, policy, scaling, services, start
from benchmarks.figure import Figure

BENCHMARKS = {
    "alarm": alarm.figures,
    "datapath": datapath.figures,
    "policy": policy.figures,
    "scaling": scaling.figures,
    "services": services.figures,
    "start": start.figures,
}


def main() -> int:
    """Run what is asked for (all by default); status 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--json", action="store_true", help="print data instead of a table")
    arguments = parser.parse_args()
    for name in arguments.names:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}; expected one of: {', '.join(BENCHMARKS)}")
    found: list[Figure] = []
    out = Console(stderr=True)
    for name in arguments.names or BENCHMARKS:
        if out.is_terminal:
            out.print(f"running {name}")
        found += BENCHMARKS[name]()
    if arguments.json:
        print(json.dumps([asdict(f) | {"met": f.met} for f in found], indent=2))
    else:
        shown = Table("figure", "measured", "goal", "met")
        for f in found:
            goal = "" if f.goal is None else f"< {f.goal:g} {f.unit}"
            shown.add_row(f.name, f"{f.value:.3g} {f.unit}", goal, {True: "yes", False: "NO", None: ""}[f.met])
        Console(width=None if sys.stdout.isatty() else 120).print(shown)
    return 1 if any(f.met is False for f in found) else 0


if __name__ == "__main__":
    sys.exit(main())
