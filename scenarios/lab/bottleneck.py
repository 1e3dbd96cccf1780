"""One link of the fabric that is slower than all others, the last before a node, and the queue in front of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from scenarios.measure.place import Place, ProgramError, run
from topo import fabric
from topo.config import LabConfig
from topo.lab import Lab
from topo.wires import port_name

# Ethernet's header and the largest packet of a fabric of 1500 bytes: what a queue of packets is counted in.
FRAME = 1514
# What such a frame counts for in a socket's buffer (struct sk_buff and its data, rounded up by the allocator).
_TRUE_SIZE = 2304
Discipline = Literal["pfifo", "fq_codel", "fq", "sfq", "codel", "cake"]


@dataclass(frozen=True, slots=True)
class Queue:
    """kind: of tc's queueing disciplines; limit: packets that it holds, 0 for the discipline's own."""

    kind: Discipline
    limit: int = 0

    @property
    def arguments(self) -> list[str]:
        return [self.kind, *(["limit", str(self.limit)] if self.limit else [])]

    def room(self, megabits: float, most: int | None = None) -> float | None:
        """Milliseconds that the last packet of a full queue waits; None where the discipline decides by itself.

        most: packets that whoever fills it hands over at all.
        """
        if self.kind != "pfifo" or not self.limit:
            return None
        return min(self.limit, most or self.limit) * FRAME * 8 / megabits / 1e3


def handed_over(datapath: str) -> int | None:
    """Packets that a switch has in its interfaces' queues at most; None for as many as they hold.

    In userspace it sends by a socket, whose buffer (socket(7), wmem_default) counts each until it has left the queue.
    """
    if datapath != "netdev":
        return None
    return int(Path("/proc/sys/net/core/wmem_default").read_text()) // _TRUE_SIZE


def before(config: LabConfig, node: str, megabits: float) -> LabConfig:
    """The lab with that bandwidth on the node's link; the others carry what the machine does."""
    index = [one.name for one in config.nodes].index(node)
    switch = fabric.attach(config.fabric, index).switch
    link = replace(fabric.link(config.fabric, node, switch), bandwidth=megabits)
    others = {
        name: one for name, one in config.fabric.links.items() if name not in (f"{node}--{switch}", f"{switch}--{node}")
    }
    return replace(config, fabric=replace(config.fabric, links={**others, f"{node}--{switch}": link}))


def burst(megabits: float) -> int:
    """Bytes that pass such a link at once when it was idle: what a wire takes 2 ms for, for processes wake up late."""
    return max(2 * FRAME, int(megabits * 250))


def set_queue(lab: Lab, node: str, queue: Queue) -> str:
    """Queue what goes to the node so, at its switch. Gives the part that the kernel lacks for it, or nothing.

    A class of HTB's without a queue of its own has one of the interface's length (tc-htb(8)), which this replaces; and
    the burst that links are made with, a large packet at least, would let small answers pass as if there were no limit.
    """
    place = lab.nodes[node].attachment
    switch = Place(place.switch, lab.switches[place.switch].pid, "")
    device = ["dev", port_name(place.port)]
    rate = fabric.link(lab.config.fabric, node, place.switch).bandwidth or 0.0
    credit = f"{burst(rate)}b"
    limits = ["htb", "rate", f"{rate:g}mbit", "burst", credit, "cburst", credit]
    run(switch, ["tc", "class", "change", *device, "parent", "1:", "classid", "1:1", *limits], 10)
    what = [*device, "parent", "1:1"]
    run(switch, ["tc", "qdisc", "del", *what], 10, check=False)  # one of an earlier call, whose kind may be another
    try:
        run(switch, ["tc", "qdisc", "add", *what, *queue.arguments], 10)
    except ProgramError as problem:
        if "kind is unknown" in str(problem) or "No such file" in str(problem):
            return f"needs sch_{queue.kind}"
        raise
    return ""
