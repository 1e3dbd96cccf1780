"""A real Open vSwitch takes the flows of policies, gives them back unchanged, and decides as the evaluator does."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import policy_switches
import policy_world

from controllers.flow.fields import ip_number, ip_text, mac_text
from controllers.policy.evaluate import judge
from scenarios.netpol.cases import Probe, World, load

DATA = Path(__file__).parents[1] / "data" / "policy"
Bridge = Callable[..., Any]
PORTS = range(10, 19)
EVERYBODY = {"namespaces": {}}
TO_Y = {"namespaces": {"matchLabels": {"ns": "y"}}}
ADMIN = [
    policy_world.policy(
        "AdminNetworkPolicy",
        "late",
        priority=9,
        subject=EVERYBODY,
        egress=[
            {"action": "Deny", "to": [TO_Y], "ports": [{"portRange": {"protocol": "TCP", "start": 70, "end": 90}}]}
        ],
    ),
    policy_world.policy(
        "AdminNetworkPolicy",
        "early",
        priority=2,
        subject=EVERYBODY,
        egress=[
            {"action": "Pass", "to": [TO_Y], "ports": [{"namedPort": "serve-81-tcp"}]},
            {"action": "Allow", "to": [{"networks": ["10.244.2.0/24"]}]},
        ],
    ),
    policy_world.policy(
        "BaselineAdminNetworkPolicy", "default", subject=EVERYBODY, ingress=[{"action": "Deny", "from": [TO_Y]}]
    ),
]
CALICO = [
    policy_world.policy(
        "NetworkPolicy.projectcalico.org",
        order=1,
        selector="pod in {'a', 'b'}",
        ingress=[
            {"action": "Log", "source": {"notNets": ["10.244.2.0/24"]}},
            {"action": "Log"},
            {"action": "Deny", "protocol": "ICMP", "icmp": {"type": 8}, "source": {"selector": "pod == 'c'"}},
            {
                "action": "Deny",
                "protocol": "TCP",
                "source": {"ports": ["1:1000", 40000]},
                "destination": {"ports": [81]},
            },
            {"action": "Allow", "notProtocol": "UDP", "source": {"namespaceSelector": "ns != 'z'"}},
        ],
    ),
    policy_world.policy(
        "GlobalNetworkPolicy",
        selector="!has(nothing)",
        types=["Ingress", "Egress"],
        ingress=[{"action": "Pass", "destination": {"selector": "pod == 'c'"}}],
        egress=[{"action": "Allow", "destination": {"notSelector": "pod == 'b'", "notNets": ["10.244.3.101"]}}],
    ),
]


def worlds() -> dict[str, World]:
    found = {}
    for file, names in (("named.json", None), ("random.json", ("random 36", "random 50"))):
        for case in load(DATA / file)[: None if names else 4]:
            if names is None or case.name in names:
                found[case.name] = world = World.of(case.cluster)
                world.change(case.steps[0].raw)
    found["admin"] = world = World.of(load(DATA / "named.json")[0].cluster)
    world.policies = {p["metadata"]["name"]: p for p in ADMIN}
    found["calico"] = world = World.of(load(DATA / "named.json")[0].cluster)
    world.policies = {p["kind"]: p for p in CALICO}
    return found


WORLDS = worlds()


@pytest.mark.parametrize("name", WORLDS)
def test_policies_are_accepted_and_read_back_as_nothing_to_do(bridge: Bridge, name: str) -> None:
    nodes = policy_switches.Nodes()
    nodes.hold(WORLDS[name])
    program = nodes.programs["node-1"]
    switch = bridge(1, 2, 3, *PORTS)
    assert switch.load(program) == []
    after = switch.resync(program)
    assert not after.change and not after.stale_cookies


@pytest.mark.parametrize("name", WORLDS)
def test_the_switch_decides_as_the_evaluator_does(bridge: Bridge, name: str) -> None:
    """Egress of node-1's pods to pods of the other nodes, ingress from them, and both between its own."""
    nodes = policy_switches.Nodes()
    nodes.hold(WORLDS[name])
    switch = bridge(1, 2, 3, *PORTS)
    assert switch.load(nodes.programs["node-1"]) == []
    cluster = policy_world.cluster(WORLDS[name], nodes.addresses)
    outcomes = set()
    every = list(policy_switches.probes(WORLDS[name]))
    here = [p for p in every if "node-1" in (nodes.home.get(p.source), nodes.home.get(p.target))]
    for probe in here[:: len(here) // 80]:
        verdict = judge(
            cluster, *(policy_world.end(cluster, e) for e in (probe.source, probe.target)), probe.protocol, probe.port
        )
        wanted = all(
            decision.allowed
            for end, decision in ((probe.source, verdict.egress), (probe.target, verdict.ingress))
            if nodes.home.get(end) == "node-1"
        )
        traced = switch.trace(trace_text(nodes, probe))
        actions = re.findall(r"Datapath actions: (.*)", traced)[-1]
        assert (actions != "drop") == wanted, (str(probe), verdict, traced)
        outcomes.add(wanted)
    assert outcomes == {True, False}


def trace_text(nodes: policy_switches.Nodes, probe: Probe) -> str:
    source, target = (ip_number(nodes.addresses.get(e, "203.0.113.7")) for e in (probe.source, probe.target))
    home = nodes.home.get(probe.source)
    port = nodes._port_of(probe.source) if home == "node-1" else 3
    mac = policy_switches.mac_of(ip_text(source)) if home == "node-1" else 1
    text = f"in_port={port},dl_src={mac_text(mac)},dl_dst=ee:ee:ee:ee:ee:ee,nw_ttl=64"
    text = f"{probe.protocol.lower()},{text},nw_src={ip_text(source)},nw_dst={ip_text(target)}"
    kind = probe.protocol.lower()
    return text + (",icmp_type=8,icmp_code=0" if kind == "icmp" else f",{kind}_src=40000,{kind}_dst={probe.port}")


def test_a_bundle_is_one_change_or_none(bridge: Bridge) -> None:
    """What is refused takes the rest with it."""
    from controllers import wire
    from controllers.flow import tables as t
    from controllers.flow.actions import ToGroup
    from controllers.flow.program import Writer, match

    nodes = policy_switches.Nodes()
    nodes.hold(WORLDS["admin"])
    program = nodes.programs["node-1"]
    messages = [wire.set_flow(x) for fragment in program.values() for x in fragment.flows]
    w = Writer("test", "no such group")
    w.flow(t.SERVICE_LB, t.NORMAL, match("ip"), ToGroup(999))
    refused = [wire.set_flow(x) for x in w.fragment().flows]
    switch = bridge(1, 2, 3, *PORTS)
    assert switch.send(wire.bundle(1, [*messages, *refused])) and not switch.held().cookies
    assert switch.send(wire.bundle(2, messages)) == []
    assert not switch.resync(program).change
