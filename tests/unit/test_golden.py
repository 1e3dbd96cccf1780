"""Whole programs and their document as text, against the files kept of them, so that a change shows in review.

MININETES_GOLDEN=write rewrites those files, after printing what changes.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

import policy_switches
import pytest
from policy_world import policy
from views import (
    BALANCED,
    DATAGRAMS,
    EVERY_TYPE,
    OVS,
    STICKY,
    SWITCHES,
    WEB_TLS,
    A,
    cluster,
    cni_of,
    fabric,
    proxy_of,
    routed_fabric,
    served,
)

from controllers import cni as cnis
from controllers.compile import fabric_switch, pod_bridge, uplink_bridge
from controllers.flow import document
from controllers.flow.program import Program, check, listing
from controllers.registry import discover
from controllers.services import ServicePort
from controllers.simulate import Switch
from controllers.state import NodeView
from scenarios.report import traits

GOLDEN = Path(__file__).parent / "golden"
DOCUMENT = Path(__file__).parents[2] / "docs" / "pipeline.md"
CNIS = DOCUMENT.with_name("cni.md")
SEEDS = range(5)


def pods_only(view: NodeView) -> Program:
    """The pod bridge but for the Service ports, which are the same for every CNI and have a file of their own."""
    return pod_bridge(replace(view, services={}), cni_of(view), OVS)


def services(view: NodeView) -> Program:
    return {fragment.key: fragment for fragment in OVS.fragments(view)}


def of_mode(mode: str, ports: Mapping[str, ServicePort] = EVERY_TYPE, **options: object) -> Callable[[], Program]:
    """Flows of a Service of every type in a proxy mode."""
    view = served(mode, ports, **options)
    return lambda: {fragment.key: fragment for fragment in proxy_of(view).fragments(view)}


def dsr_view() -> NodeView:
    """node-1 of a lab with CNI cilium and direct server return."""
    view = cluster("cilium", mode="geneve", loadBalancer={"mode": "dsr"})["node-1"]
    return replace(view, services=EVERY_TYPE, lab=replace(view.lab, proxy_mode="cilium"))


def services_of(view: NodeView) -> Program:
    return {fragment.key: fragment for fragment in proxy_of(view).fragments(view)}


def uplink(view: NodeView) -> Program:
    return uplink_bridge(view, cni_of(view))


def policies() -> Program:
    """Of one node with a governed pod: Kubernetes' own, admin, baseline and Calico's policies, every kind of clause."""
    nodes = policy_switches.Nodes()
    nodes.hold(POLICIES)
    return {key: fragment for key, fragment in nodes.programs["node-1"].items() if key.startswith("policy ")}


POLICIES = policy_switches.random_world(
    [{"team": "one"}, {}],
    [("x", {"app": "web"}, 80), ("x", {"app": "a"}, 80), ("y", {"app": "b"}, 8080)],
    [("x", {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 80, "endPort": 83}]}]})],
    [{"subject": {"namespaces": {}}, "priority": 1, "egress": [{"action": "Pass", "to": [{"namespaces": {}}]}]}],
    [{"subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}],
    [
        policy(
            "NetworkPolicy.projectcalico.org",
            order=1,
            selector="app == 'web'",
            ingress=[
                {"action": "Log", "protocol": "ICMP", "icmp": {"type": 8}},
                {"action": "Log", "source": {"notNets": ["0.0.0.0/1"]}},
                {
                    "action": "Deny",
                    "protocol": "UDP",
                    "source": {"ports": [53]},
                    "destination": {"notPorts": ["2:65535"]},
                },
                {"action": "Allow", "source": {"selector": "has(app)", "namespaceSelector": "all()"}},
                {"action": "Pass", "protocol": 47},
            ],
            egress=[
                {"action": "Allow", "protocol": "TCP", "destination": {"ports": ["web"], "notSelector": "app == 'a'"}}
            ],
        )
    ],
)
PROGRAMS: dict[str, Callable[[], Program]] = {
    "policies": policies,
    "br-int-flannel": lambda: pods_only(cluster("flannel")["node-1"]),
    "br-int-calico": lambda: pods_only(cluster("calico")["node-1"]),
    "br-int-weave": lambda: pods_only(cluster("weave")["node-1"]),
    "br-int-weave-sleeve": lambda: pods_only(cluster("weave", mode="sleeve")["node-1"]),
    "br-int-cilium": lambda: pods_only(cluster("cilium")["node-1"]),
    "br-ex-cilium-native": lambda: uplink(cluster("cilium", mode="native")["node-1"]),
    "br-ex-cilium-sealed": lambda: uplink(cluster("cilium", encryption="wireguard")["node-1"]),
    "br-ex-cilium-native-sealed": lambda: uplink(cluster("cilium", mode="native", encryption="wireguard")["node-1"]),
    "br-ex-flannel": lambda: uplink(cluster("flannel")["node-1"]),
    "br-ex-calico": lambda: uplink(cluster("calico")["node-1"]),
    "service-ports": lambda: services(cluster("flannel")["node-1"]),
    "services-ovs": of_mode("ovs"),
    "services-iptables": of_mode("iptables"),
    "services-ipvs-rr": of_mode("ipvs"),
    "services-ipvs-mh": of_mode("ipvs", {BALANCED.key: BALANCED, DATAGRAMS.key: DATAGRAMS}, scheduler="mh"),
    "services-cilium": of_mode("cilium"),
    "services-cilium-dsr": lambda: services_of(dsr_view()),
    "services-affinity": of_mode("ovs", {STICKY.key: STICKY}),
    "fabric-leaf": lambda: fabric_switch(fabric()["leaf-1"]),
    "fabric-spine": lambda: fabric_switch(fabric()["spine-1"]),
    "fabric-routed-leaf": lambda: fabric_switch(routed_fabric()["leaf-1"]),
    "fabric-routed-spine": lambda: fabric_switch(routed_fabric()["spine-1"]),
}


def assert_kept(file: Path, got: str) -> None:
    """The file holds this text, or, where that was asked for, does from now on."""
    had = file.read_text() if file.exists() else ""
    changes = "".join(unified_diff(had.splitlines(True), got.splitlines(True), f"{file.name} as kept", "as compiled"))
    if os.environ.get("MININETES_GOLDEN") == "write" and changes:
        print(changes)
        file.parent.mkdir(exist_ok=True)
        file.write_text(got)
    else:
        assert not changes, f"\n{changes}\nIf this is what you want: MININETES_GOLDEN=write"


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_is_as_it_was_reviewed(name: str) -> None:
    program = PROGRAMS[name]()
    check(program)
    assert_kept(GOLDEN / f"{name}.txt", listing(program))


def test_document_says_what_the_code_does() -> None:
    assert_kept(DOCUMENT, document.text())


def test_document_of_cnis_has_their_traits() -> None:
    found = {name: traits.data(one) for name, one in traits.by_variant(discover(cnis, "CNI")).items()}
    table = "".join(f"{line}\n" for line in traits.markdown(found))
    before, begin, rest = CNIS.read_text().partition("<!-- traits: make golden writes this table -->\n")
    end = "<!-- end of traits -->"
    assert begin and end in rest
    assert_kept(CNIS, before + begin + table + end + rest.partition(end)[2])


def test_document_walks_a_packet_through_the_tables_that_it_passes() -> None:
    view = cluster("flannel")["node-1"]
    packet = {"in_port": A.port, "dl_src": A.mac, "dl_dst": view.node.gateway_mac, "dl_type": 0x800, "nw_src": A.ip}
    packet |= {"nw_dst": WEB_TLS.cluster_ip, "nw_proto": 6, "nw_ttl": 64, "tp_src": 1, "tp_dst": WEB_TLS.port}
    passed = [flow.table.name for flow, _ in Switch(pod_bridge(view, cni_of(view), OVS)).run(packet).steps]
    walk = re.findall(r"\*\*(\w+)\*\*", document.text())
    assert [name for name in walk if name not in ("Reject", "Uplink", "FabricForward")] == passed


def test_every_golden_file_is_compared() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {f"{name}.txt" for name in PROGRAMS}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("cni", ["flannel", "calico"])
@pytest.mark.parametrize("node", ["node-1", "node-2", "node-3"])
def test_listing_of_a_node_does_not_depend_on_the_order_of_what_it_is_made_of(node: str, cni: str, seed: int) -> None:
    view, mix = cluster(cni)[node], random.Random(seed)

    def shuffled(things: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(mix.sample(things, len(things)))

    other = replace(
        view,
        pods=shuffled(view.pods),
        peers=shuffled(view.peers),
        services=dict(shuffled(tuple(view.services.items()))),
    )
    for compiled in (lambda v: pod_bridge(v, cni_of(v), OVS), uplink):
        assert listing(compiled(other)) == listing(compiled(view))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", SWITCHES)
def test_listing_of_a_fabric_switch_does_not_depend_on_the_order_of_switches_and_ports(name: str, seed: int) -> None:
    mix = random.Random(seed)
    switches = {
        key: replace(switch, ports=dict(mix.sample(sorted(switch.ports.items()), len(switch.ports))))
        for key, switch in mix.sample(sorted(SWITCHES.items()), len(SWITCHES))
    }
    view = fabric()[name]
    other = replace(view, switch=switches[name], switches=switches)
    assert listing(fabric_switch(other)) == listing(fabric_switch(view))
