"""A switch's flows for people: the controller's names for tables, fields and owners, with the switch's counters."""

from __future__ import annotations

import re
from typing import Any

from controllers.flow.tables import PIPELINES
from topo.cluster.errors import InputError
from topo.lab import Lab

_COUNTERS = re.compile(r"cookie=(0x[0-9a-f]+).*?table=(\d+), n_packets=(\d+), n_bytes=(\d+)")


def bridge_of(lab: Lab, machine: str, bridge: str | None) -> tuple[str, str]:
    """(machine, bridge), br-int of a node or br-fabric of a switch if none is named. Raises InputError."""
    there = [b for m, b in lab.bridges() if m == machine]
    if not there:
        raise InputError(
            f"node {machine}", "there is no such machine", f"one of: {', '.join([*lab.nodes, *lab.switches])}"
        )
    if bridge is not None and bridge not in there:
        raise InputError(f"--bridge {bridge}", f"{machine} has no such bridge", f"one of: {', '.join(there)}")
    return machine, bridge or there[0]


def listing(lab: Lab, machine: str, bridge: str | None, table: str | None) -> list[dict[str, Any]]:
    """Every flow the switch holds: text, packets, bytes, who wants it. Raises InputError for an unknown table."""
    name = bridge_of(lab, machine, bridge)
    known = {t.name: t.number for t in PIPELINES[name[1]]}
    if table is not None and table not in known and table not in map(str, known.values()):
        raise InputError(f"--table {table}", f"{name[1]} has no such table", f"one of: {', '.join(known)}")
    wanted_table = None if table is None else known.get(table) if table in known else int(table)
    ours = lab.controller.ask("owners", bridge=list(name))
    if "error" in ours:
        ours = {}
    names = {number: label for label, number in known.items()}
    switch = (lab.nodes[machine].machine if machine in lab.nodes else lab.switches[machine]).switch
    found = []
    for line in switch.ofctl("--no-names", "dump-flows", name[1]).splitlines():
        match = _COUNTERS.search(line)
        if match is None:
            continue
        cookie, number, packets, size = match[1], int(match[2]), int(match[3]), int(match[4])
        if wanted_table is not None and number != wanted_table:
            continue
        feature, owner, source, text = ours.get(cookie, ("", "not ours", "", _raw(line, names)))
        found.append(
            {
                "table": names.get(number, str(number)),
                "flow": text,
                "packets": packets,
                "bytes": size,
                "feature": feature,
                "owner": owner,
                "source": source,
                "cookie": cookie,
                "number": number,
            }
        )
    found.sort(key=lambda f: (f["number"], -_priority(f["flow"]), f["flow"]))
    return found


def last_change(lab: Lab, machine: str, bridge: str | None) -> dict[str, Any]:
    """What the last synchronisation of the bridge set and removed."""
    name = bridge_of(lab, machine, bridge)
    answer: dict[str, Any] = lab.controller.ask("diff", bridge=list(name))
    if "error" in answer:
        raise InputError(f"flows {machine} --diff", answer["error"], "mininetes' own controller")
    return {"node": name[0], "bridge": name[1], **answer}


def _raw(line: str, names: dict[int, str]) -> str:
    text = re.sub(r"^ *cookie=\S+ duration=\S+ ", "", line)
    text = re.sub(r"n_packets=\d+, n_bytes=\d+, ", "", text)
    return re.sub(r"table=(\d+)", lambda m: f"table={names.get(int(m[1]), m[1])}", text).strip()


def _priority(text: str) -> int:
    match = re.search(r"priority=(\d+)", text)
    return int(match[1]) if match else 32768
