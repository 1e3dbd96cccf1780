"""What a lab has at rest, counted: blocks and all of memory, open files, processes, flows, connections, its folder."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from scenarios.disorder.audit import held
from scenarios.disorder.census import LAB, census
from scenarios.disorder.growth import Rest
from topo import capsule
from topo.lab import Lab

_MIB = 1 << 20


def count(lab: Lab, step: int) -> Rest:
    """All of it, as it is now."""
    gc.collect()  # what is only waiting to be collected is not in use
    pids = census(Path("/proc"))
    memory = {name: sum(map(_own_memory, numbers)) / _MIB for name, numbers in pids.items()}
    files = {name: float(sum(map(_open_files, numbers))) for name, numbers in pids.items()}
    processes = {name: float(len(numbers)) for name, numbers in pids.items()}
    machines = {**lab.switches, **{node.name: node.machine for node in lab.nodes.values()}}
    texts = [machines[name].switch.ofctl("--no-names", "dump-flows", bridge) for name, bridge in lab.bridges()]
    written = sum(len(held(text)) for text in texts)
    followed = {n.name: n.machine.switch.appctl("dpctl/dump-conntrack").splitlines() for n in lab.nodes.values()}
    return Rest(
        step,
        {
            "blocks": {LAB: float(sys.getallocatedblocks())},
            "memory": memory,
            "open files": files,
            "processes": processes,
            "flows": {"the controller": float(written), "the switches": float(sum(map(_lines, texts)) - written)},
            "connections": {name: float(len(lines)) for name, lines in followed.items()},
            "folder": {"the lab": sum(_sizes(capsule.RUN)) / _MIB},
        },
    )


def ending(lab: Lab) -> Iterator[str]:
    """Pods that have not ended yet: with them the lab is not at rest."""
    for pod in lab.store.list("Pod"):
        if "deletionTimestamp" in pod["metadata"]:
            yield f"pod {pod['metadata']['namespace']}/{pod['metadata']['name']} has not ended"


def _lines(listing: str) -> int:
    """Flows in a listing, whose first line is no flow."""
    return sum("cookie=" in line for line in listing.splitlines())


def _own_memory(pid: int) -> int:
    """Bytes that are no file's (proc_pid_smaps(5)). Not PSS: of a page that the lab shares with the process it was
    forked from it has half, and all of it as soon as either writes there."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Anonymous:")), 0)


def _open_files(pid: int) -> int:
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return 0


def _sizes(folder: Path) -> Iterator[int]:
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # it was removed meanwhile
                yield (Path(place) / name).lstat().st_size
