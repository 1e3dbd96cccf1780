"""What measuring a path cost the lab: CPU and memory of its switches, controller and pods meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from scenarios.measure import usage
from scenarios.measure.suite import Run, combine
from scenarios.report.results import Measurement
from topo.lab import Lab


def groups(lab: Lab) -> dict[str, list[int]]:
    """Pids of the lab's processes by what they are for. The measuring programs are in none."""
    machines = [*lab.switches.values(), *(n.machine for n in lab.nodes.values())]
    found = {
        "vswitchd": [m.switch.processes["ovs-vswitchd"].pid for m in machines],
        "ovsdb": [m.switch.processes["ovsdb-server"].pid for m in machines],
        "pods": [lab.standin.process.pid, *(s.pid for s in lab.kubelet.sandboxes.values())],
    }
    for process in (lab.controller, lab.agent):
        if process.process is not None:
            found[process.name] = [process.process.pid]
    return found


@contextmanager
def costs(lab: Lab, path: str) -> Iterator[list[Measurement]]:
    """Gives a list that is filled when the block ends: CPUs in use on average, and memory at its end, by group."""
    found: list[Measurement] = []
    before = usage.read(groups(lab))
    yield found
    spent = usage.difference(before, usage.read(groups(lab)))
    for name, cost in spent.groups.items():
        memory = cost.memory / (1 << 20)
        found.append(
            combine(f"{name} CPU", path, "CPUs", [Run((cost.cpus,), details={"seconds": cost.cpu_seconds})])[0]
        )
        found.append(combine(f"{name} memory", path, f"MiB {spent.memory_kind}", [Run((memory,))])[0])
