"""What a pod network costs the nodes: processes in their networks, CPU and memory of each kind, flows in br-int.

A lab has switches and programs whatever its CNI; what a CNI adds is the difference to a lab whose pods are all on their
nodes' own network, and that subtraction is the reader's. What is attributed: a node's Open vSwitch (its database too),
every other process in the node's network namespace (BIRD, tunnels, wireguard-go, who gossips), and the agent, which is
one for all nodes. The controller and what stands in for containers are not on the nodes. A datapath in the kernel works
in softirqs of the receiving CPU, which no process shows: there only the machine's load tells.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from scenarios.measure import usage
from topo.lab import Lab
from topo.nodes import processes

_FLOWS = re.compile(r"flow_count=(\d+)")


@dataclass(frozen=True, slots=True)
class Footprint:
    """By kind of process. seconds: of CPU, in all; cpus: in use, in all, 1.0 is one; memory: MB, a node on average."""

    seconds: Mapping[str, float]
    cpus: Mapping[str, float]
    memory: Mapping[str, float]


def groups(lab: Lab) -> dict[str, list[int]]:
    """Pids by kind. Ask before programs that measure are started in a node."""
    machines = [node.machine for node in lab.nodes.values()]
    switches = [pid for machine in machines for pid in processes(machine).values()]
    holders = {machine.pid for machine in machines} | {box.pid for box in lab.kubelet.sandboxes.values()}
    networks = {_network(machine.pid) for machine in machines}
    found = {"switch": switches, "programs": []}
    if lab.agent.process is not None:
        found["agent"] = [lab.agent.process.pid]
    for entry in Path("/proc").iterdir():
        pid = int(entry.name) if entry.name.isdecimal() else 0
        if pid and pid not in holders and pid not in switches:
            with suppress(OSError):  # it has just ended
                if _network(pid) in networks:
                    found["programs"].append(pid)
    return found


def between(before: usage.Usage, after: usage.Usage, nodes: int) -> Footprint:
    """Of two readings of the groups of so many nodes."""
    cost = usage.difference(before, after)
    return Footprint(
        {name: one.cpu_seconds for name, one in cost.groups.items()},
        {name: one.cpus for name, one in cost.groups.items()},
        {name: one.memory / nodes / 1e6 for name, one in cost.groups.items()},
    )


def flows(lab: Lab) -> float:
    """Flows of the pod bridge, a node on average."""
    texts = [n.machine.switch.ofctl("dump-aggregate", "br-int") for n in lab.nodes.values()]
    return sum(int(found[1]) for text in texts if (found := _FLOWS.search(text))) / len(texts)


def _network(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/net").stat().st_ino
