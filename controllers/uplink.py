"""The node's uplink bridge br-ex: between the wire, the node's own stack and the pod bridge."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from controllers.flow import tables as t
from controllers.flow.actions import Output
from controllers.flow.fields import LOCAL
from controllers.flow.program import Fragment, Writer, match
from controllers.state import Node, NodeView
from topo.cluster.wiring import WIRE_PORT


def fragments(view: NodeView) -> Iterable[Fragment]:
    """What every CNI needs there; each adds its own (Cni.uplink)."""
    yield _node(view.node)


@lru_cache(maxsize=4096)
def _node(node: Node) -> Fragment:
    w = Writer("uplink", node.name)
    w.flow(t.UPLINK, t.LOW, match("arp", in_port=WIRE_PORT), Output(LOCAL))
    w.flow(t.UPLINK, t.LOW, match("ip", in_port=WIRE_PORT, nw_dst=node.ip), Output(LOCAL))
    w.flow(t.UPLINK, t.LOW, match(in_port=LOCAL), Output(WIRE_PORT))
    return w.fragment()
