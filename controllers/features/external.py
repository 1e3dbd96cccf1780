"""Connections from outside the cluster: their answers leave by the uplink, past the node's own kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import EXTERNAL, Goto, Set
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, Writer, match
from controllers.state import Node, NodeView
from topo.cluster.wiring import UPLINK_PORT


def fragments(view: NodeView) -> Iterable[Fragment]:
    """One way out a machine of the node subnet, and the router's for the rest."""
    for peer in view.peers:
        yield _answers(view.node, peer.name, peer.ip, peer.mac, False)
    for number, machine in enumerate(view.outside):
        yield _answers(view.node, machine.name, machine.ip, machine.mac, number == 0)


@kept
def _answers(node: Node, name: str, ip: int, mac: int, is_router: bool) -> Fragment:
    w = Writer("external", f"answers to {name}")
    answer: dict[str, Any] = {"ct_state": "+rpl+trk", "ct_mark": (EXTERNAL, EXTERNAL)}
    out = (Set(f.ETH_SRC, node.mac), Set(f.ETH_DST, mac), Set(f.OUT_PORT, UPLINK_PORT), Goto(t.L3_DEC_TTL))
    w.flow(t.L3_FORWARDING, t.HIGH, match("ip", **answer, nw_dst=ip), *out)
    if is_router:  # less than any pod's route, more than the default one
        w.flow(t.L3_FORWARDING, t.ROUTE + 1, match("ip", **answer), *out)
    return w.fragment()
