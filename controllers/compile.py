"""From a view to a program: asks every feature in a fixed order; pure, and the oracle of every shorter way."""

from __future__ import annotations

from collections.abc import Iterable

from controllers import fabric, fabric_routes, uplink
from controllers.cni import Cni
from controllers.features import base, external, pods, policies
from controllers.flow.program import BadFlow, Fragment, Program
from controllers.proxy import Proxy
from controllers.state import ClusterState, FabricView, NodeView

# A machine and one of its bridges.
Bridge = tuple[str, str]


def everything(state: ClusterState, cni: Cni, proxy: Proxy) -> dict[Bridge, Program]:
    """What every bridge of the lab should hold that is known well enough."""
    found: dict[Bridge, Program] = {}
    for name in state.nodes:
        view = state.node_view(name)
        if view is not None:
            found[name, "br-int"] = pod_bridge(view, cni, proxy)
            found[name, "br-ex"] = uplink_bridge(view, cni)
    for name in state.switches:
        fabric_view = state.fabric_view(name)
        if fabric_view is not None:
            found[name, "br-fabric"] = fabric_switch(fabric_view)
    return found


def pod_bridge(view: NodeView, cni: Cni, proxy: Proxy) -> Program:
    """What br-int of the node should hold."""
    features = base.fragments(view), external.fragments(view), pods.fragments(view)
    return _program(*features, cni.fragments(view), proxy.fragments(view), policies.fragments(view))


def uplink_bridge(view: NodeView, cni: Cni) -> Program:
    """What br-ex of the node should hold."""
    return _program(uplink.fragments(view), cni.uplink(view))


def fabric_switch(view: FabricView) -> Program:
    """What a fabric switch should hold."""
    return _program((fabric if view.switch.router is None else fabric_routes).fragments(view))


def _program(*features: Iterable[Fragment]) -> Program:
    program: dict[str, Fragment] = {}
    for fragment in (x for feature in features for x in feature):
        if fragment.key in program:
            raise BadFlow(f"two fragments are called {fragment.key!r}: a Writer's feature and owner must be its own")
        program[fragment.key] = fragment
    return program
