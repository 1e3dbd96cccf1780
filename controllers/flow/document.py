"""Prints docs/pipeline.md from the values the compilers use: python -m controllers.flow.document."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controllers.flow import actions as a
from controllers.flow import fields as f
from controllers.flow import program as p
from controllers.flow import tables as t
from topo.cluster import wiring

_BRIDGES = {
    "br-int": "the pod bridge of every node",
    "br-ex": "the uplink bridge of every node",
    "br-fabric": "the bridge of every fabric switch",
}
_PORTS = (
    ("br-int", wiring.TUNNEL_PORT, "the CNI's tunnel, if it has one"),
    ("br-int", wiring.GATEWAY_PORT, "gw0, the node's own kernel"),
    ("br-int", wiring.UPLINK_PORT, "patch to br-ex"),
    ("br-int", f"{wiring.FIRST_POD_PORT} and up", "one for each pod"),
    ("br-ex", wiring.WIRE_PORT, "eth0, the wire to the fabric"),
    ("br-ex", wiring.PATCH_PORT, "patch to br-int"),
    ("br-ex", wiring.SEAL_PORT, "seal0, the node's kernel where it seals what goes to other nodes"),
    ("br-ex", "LOCAL", "the node's own address"),
)
_ZONES = (
    (a.ZONE, "every connection of a pod, with the Service's NAT"),
    (a.SNAT_ZONE, "hairpin connections once more, with the SNAT that hides the pod from itself"),
)
_PRIORITIES = (
    ("HIGH", t.HIGH, "an exception to NORMAL"),
    ("NORMAL", t.NORMAL, "most flows"),
    ("LOW", t.LOW, "what is left of a kind of packet"),
    ("ROUTE", f"{t.ROUTE} + prefix length", f"routes in {t.L3_FORWARDING}: the longest prefix wins"),
    ("MISS", t.MISS, "what no other flow of the table wants"),
)
_COOKIE = (
    ("63..56", f"{p.MAGIC:#x}: the flow is ours"),
    ("55..40", "CRC-32 of feature and owner, its lower half"),
    ("39..8", "CRC-32 of priority, match and actions"),
    ("7..0", "number of the table"),
)
_WALK = f"""\
A pod of node-1 opens a connection to a Service whose chosen endpoint is a pod of node-2.

1. **{t.CLASSIFIER}** knows the port for a pod's. **{t.SPOOF_GUARD}** lets the packet pass, for its MAC and IP are the
   pod's own, and **{t.ARP_RESPONDER}** because it is IP. **{t.IDENTITY}** is for CNIs that know them.
   **{t.UN_SNAT}** has nothing to undo, and **{t.SCTP_REPLY}** concerns SCTP alone.
2. **{t.CONNTRACK}** looks the connection up: it is new, so **{t.CONNTRACK_STATE}** sends it to **{t.SERVICE_LB}**.
   The flow of the Service's address and port hands it to its group, one bucket of which is chosen by a hash of the
   connection. The bucket remembers the connection and rewrites its destination to the endpoint. A Service without
   endpoints has no group: its packets go to **{t.REJECT}**, so that the kernel answers.
   In **{t.EGRESS_SUBJECTS}** pods that policies govern are told from others; this one goes on.
3. **{t.L3_FORWARDING}** finds the route to node-2's pods, which the CNI wrote: the tunnel port, the node's address
   and the tunnel's key for an overlay, or the uplink and the next hop's MAC. **{t.L3_DEC_TTL}** decrements the TTL.
4. **{t.INGRESS_SUBJECTS}** knows the governed pods of this node, and the endpoint is none; **{t.SCTP_LEARN}** is
   for SCTP again. **{t.CONNTRACK_COMMIT}** marks the connection as allowed; once it is answered, its packets skip
   {t.SERVICE_LB}.
   **{t.SNAT}** concerns only a pod that was sent to itself. **{t.OUTPUT}** sends the packet out by OutPort.
5. As it is, or inside the tunnel's UDP packet, it passes **{t.UPLINK}** of br-ex on both nodes. In the fabric,
   **{t.FABRIC_FORWARD}** of each switch knows the node's MAC; of several equally short ways a group chooses one.
6. On node-2 it enters by the tunnel or the uplink, whose packets prove no sender. It is new here too, its destination
   is no Service, and {t.L3_FORWARDING} knows the pod's own MAC and port.
7. The answer goes the same way back. On node-1, {t.CONNTRACK} knows it for a reply and makes the Service's address its
   source: the client never sees the endpoint. It answers a marked connection, and goes straight to {t.L3_FORWARDING}.
"""


def text() -> str:
    """The whole document."""
    parts = [
        "# The pipelines",
        "Written by `python -m controllers.flow.document` from the code; change it there.",
    ]
    for name, pipeline in t.PIPELINES.items():
        rows = [(x.number, x.name, x.stage, x.purpose) for x in pipeline]
        parts += [f"## {name}: {_BRIDGES[name]}", _table(("Table", "Name", "Stage", "Purpose"), rows)]
    registers = [(x.name, x.place, f"{x.since} to {x.until}", x.meaning, _values(x)) for x in f.REGISTERS]
    parts += ["## Registers of br-int", _table(("Name", "Bits", "Alive in tables", "Meaning", "Values"), registers)]
    parts += ["## Connection tracking in br-int", _table(("Zone", "Connections"), [(f"{z:#x}", w) for z, w in _ZONES])]
    parts += [
        _table(("ct_mark", "Meaning"), [(f"{a.ALLOWED:#x}", "the connection passed all tables that may drop it")])
    ]
    parts += ["## Priorities", _table(("Name", "Value", "Use"), _PRIORITIES)]
    parts += ["## Cookies", _table(("Bits", "Meaning"), _COOKIE)]
    parts += ["## OpenFlow ports", _table(("Bridge", "Port", "What is there"), _PORTS)]
    parts += ["## A packet's way", _WALK]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _values(register: f.Register) -> str:
    return ", ".join(f"{number} {name}" for number, name in register.values.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


if __name__ == "__main__":
    print(text(), end="")
