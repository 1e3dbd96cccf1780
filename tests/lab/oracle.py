"""What every bridge of a lab should hold, compiled here from the lab's objects, against what its switch holds."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from conftest import RunningLab

from controllers import cni as cnis
from controllers import compile as compiler
from controllers import proxy as proxies
from controllers.flow.program import Program
from controllers.registry import discover
from controllers.state import ClusterState
from scenarios.lab.socket import ask

Bridge = tuple[str, str]
# Cookie and table of each flow: a cookie stands for priority, match and actions.
Flows = Counter[tuple[str, int]]

_KINDS = ("Lab", "FabricSwitch", "Node", "Pod", "Service", "EndpointSlice")


def wanted(lab: RunningLab) -> dict[Bridge, Program]:
    """Every bridge's program, from nothing but the objects the lab has now and all its links up."""
    state = ClusterState()
    for kind in _KINDS:
        for thing in ask(lab.name, {"verb": "get", "kind": kind}):
            state.apply(kind, "ADDED", thing)
    assert state.lab is not None
    cni, proxy = discover(cnis, "CNI")[state.lab.cni], discover(proxies, "PROXY")[state.lab.proxy_mode]
    programs: dict[Bridge, Program] = {}
    for name in state.nodes:
        view = state.node_view(name)
        assert view is not None
        programs[name, "br-int"] = compiler.pod_bridge(view, cni, proxy)
        programs[name, "br-ex"] = compiler.uplink_bridge(view, cni)
    for name in state.switches:
        fabric = state.fabric_view(name)
        assert fabric is not None
        programs[name, "br-fabric"] = compiler.fabric_switch(fabric)
    return programs


def bridges(lab: RunningLab) -> list[Bridge]:
    """(machine, bridge) of every bridge."""
    status = lab.status()
    nodes = [(node["name"], bridge) for node in status["nodes"] for bridge in ("br-int", "br-ex")]
    return nodes + [(name, "br-fabric") for name in status["fabric"]["switches"]]


def listing(lab: RunningLab, bridge: Bridge) -> list[dict[str, Any]]:
    """The flows of a bridge as `mininetes flows` shows them; asked without the command line, for there are many."""
    request = {"verb": "flows", "node": bridge[0], "bridge": bridge[1], "table": None}
    return list(ask(lab.name, request))


def last_change(lab: RunningLab, bridge: Bridge) -> dict[str, Any]:
    """What the controller sent last, as `mininetes flows --diff` shows it."""
    return dict(ask(lab.name, {"verb": "flow-diff", "node": bridge[0], "bridge": bridge[1]}))


def installed(lab: RunningLab) -> dict[Bridge, Flows]:
    """The flows of every bridge."""
    return {b: Counter((flow["cookie"], flow["number"]) for flow in listing(lab, b)) for b in bridges(lab)}


def _groups(lab: RunningLab, bridge: Bridge) -> dict[int, int]:
    """Buckets of each group that the switch holds."""
    target = f"unix:/run/mininetes/{bridge[0]}/{bridge[1]}.mgmt"
    shown = lab.exec(bridge[0], "ovs-ofctl", "-O", "OpenFlow14", "dump-groups", target)
    return {
        int(line.partition("group_id=")[2].partition(",")[0]): len(re.findall(r"bucket=", line))
        for line in shown.splitlines()
        if "group_id=" in line
    }


def check(lab: RunningLab) -> None:
    """Fail unless every switch holds exactly its program, flow by flow and group by group, and nothing else."""
    programs = wanted(lab)
    assert set(programs) == set(bridges(lab))
    for bridge, program in programs.items():
        shown = listing(lab, bridge)
        assert [flow["flow"] for flow in shown if flow["owner"] == "not ours"] == [], bridge
        found = Counter((flow["cookie"], flow["number"]) for flow in shown)
        flows = Counter((f"{x.cookie:#x}", x.table.number) for part in program.values() for x in part.flows)
        assert found == flows, bridge
        groups = {group.id: len(group.buckets) for part in program.values() for group in part.groups}
        assert _groups(lab, bridge) == groups, bridge
