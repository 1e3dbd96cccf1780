"""What a running lab says of its BGP routes: the controller's RIB of a node, or the words of its BIRD."""

from __future__ import annotations

from typing import Any

from controllers import cni as cnis
from controllers.bgp import control, rib_routes, ryu, show
from controllers.bgp import options as bgp
from controllers.registry import discover
from controllers.state import ClusterState, NodeView
from topo.cluster.errors import InputError
from topo.lab import Lab


def routes(lab: Lab, name: str) -> dict[str, Any]:
    """Every path of the node's table. Raises InputError where there is none."""
    view = _view(lab, name)
    if view is not None and bgp.of(view.lab).speaker == "ryu":
        known = show.ryu(ryu.state(lab.run / name / "ryu")["routes"])
        return {"text": show.text(known), "data": known}
    if view is None or bgp.of(view.lab).on_the_wire:
        lines = _birdc(lab, name, "show route all")
        return {"text": "\n".join(_birdc(lab, name, "show route")), "data": show.bird(control.routes(lines))}
    paths = show.rib(view, rib_routes.held(view, discover(cnis, "CNI")[lab.config.cni].announced_prefixes))
    return {"text": show.text(paths), "data": paths}


def sessions(lab: Lab, name: str) -> dict[str, Any]:
    """The node's BGP sessions; of the controller's RIB, whose nodes need none, who is heard there."""
    view = _view(lab, name)
    if view is not None and not bgp.of(view.lab).on_the_wire:
        found = [{"name": n.name, "state": "heard" if n.ready else "withdrawn", "note": ""} for n in view.peers]
        return {"text": "\n".join(f"{one['name']:<20} RIB  {one['state']}" for one in found), "data": found}
    if view is not None and bgp.of(view.lab).speaker == "ryu":
        up = ryu.state(lab.run / name / "ryu")["sessions"]
        found = [{"name": address, "state": "Established", "note": f"AS{asn}"} for address, asn in sorted(up.items())]
        return {"text": "\n".join(f"{one['name']:<16} BGP  up  {one['state']}" for one in found), "data": found}
    lines = _birdc(lab, name, "show protocols")
    found = [{"name": s.name, "state": s.state, "note": s.note} for s in control.sessions(lines).values()]
    return {"text": "\n".join(lines), "data": found}


def _view(lab: Lab, name: str) -> NodeView | None:
    """The node as its compiler sees it; None for a fabric switch, which has no RIB here."""
    if "speaker" not in discover(cnis, "CNI")[lab.config.cni].options:
        expected = "calico, kube-router; `mininetes flows NODE --table L3Forwarding` shows the routes of others"
        raise InputError(f"routes {name}", f"CNI {lab.config.cni} speaks no BGP", expected)
    if name in lab.switches:
        return None
    if name not in lab.nodes:
        raise InputError(f"routes {name}", "there is no such node", f"one of: {', '.join(lab.nodes)}")
    state = ClusterState()
    for thing in lab.store:
        state.apply(thing["kind"], "ADDED", thing)
    return state.node_view(name)


def _birdc(lab: Lab, name: str, command: str) -> list[str]:
    folder = lab.run / name / "bird" if name in lab.nodes else lab.run / name
    if not (folder / "bird.ctl").exists():
        raise InputError(f"routes {name}", "no BIRD runs there", "a node, or with peering tor a switch")
    return control.ask(folder / "bird.ctl", command)
