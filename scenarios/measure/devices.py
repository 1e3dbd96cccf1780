"""Which interfaces and switch ports of a node a packet passes, found by counting what passes each."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from topo.nodes import Machine
from topo.system import inside

# What a bridge of ours is between: its ports are counted by the switch, for some are no interfaces of the kernel.
_BRIDGES = ("br-int", "br-ex")
# How names begin along the way; "" for those of any other device, which is a tunnel's.
_ORDER = ("veth", "cni", "docker", "gw0", "", "patch-ex", "patch-int", "br-ex", "eth0")
_PORT = re.compile(r"port +(\S+?): rx pkts=(\d+).*?tx pkts=(\d+)", re.DOTALL)


def counts(machine: Machine) -> dict[str, int]:
    """Packets in and out of every interface and port of a node, by name."""
    # The switch adds up what its fast path has counted only now and then (ovs-vswitchd(8), "revalidator/wait").
    machine.switch.appctl("revalidator/wait")
    found = _interfaces(machine.pid)
    for bridge in _BRIDGES:
        for name, received, sent in _PORT.findall(machine.switch.ofctl("--names", "dump-ports", bridge)):
            found.setdefault(name.strip('"'), int(received) + int(sent))
    return found


def passed(before: Mapping[str, int], after: Mapping[str, int], least: int) -> list[str]:
    """Names by which at least so many packets passed in between, in the order in which a packet leaves a node."""
    names = [name for name, count in after.items() if count - before.get(name, 0) >= least and name != "lo"]
    return sorted(names, key=lambda name: (_place(name), name))


def sent(machine: Machine, interface: str) -> int:
    """Bytes that left by an interface."""
    return _fields(machine.pid)[interface][8]


def _place(name: str) -> int:
    """From the pod's end over bridges of pods and the node's address among them to tunnels and the wire."""
    return next((i for i, start in enumerate(_ORDER) if start and name.startswith(start)), _ORDER.index(""))


def _interfaces(pid: int) -> dict[str, int]:
    return {name: fields[1] + fields[9] for name, fields in _fields(pid).items()}


def _fields(pid: int) -> dict[str, list[int]]:
    """Of each interface what /proc/net/dev has: bytes, packets and six more received, then the same sent (proc(5))."""
    with inside(pid):
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()[2:]
    return {
        name.strip(): [int(word) for word in rest.split()] for name, _, rest in (line.partition(":") for line in lines)
    }
