"""What switches that are routers do to packets, through the simulator."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest
from views import routed_fabric

from controllers.compile import fabric_switch
from controllers.flow.fields import LOCAL, ip_number
from controllers.simulate import Switch
from controllers.state import FabricView
from scenarios.lab.assemble import Choices, parts
from topo.cluster.errors import InputError
from topo.config import FabricConfig
from topo.fabric import rack_subnets
from topo.labfile import default_config
from topo.routers import link_addresses

VIEWS = routed_fabric()
NODES = {node.name: node for node in VIEWS["leaf-1"].nodes}
SMALL = IPv4Network("172.18.0.0/25")
Down = frozenset[tuple[str, int]]


def carry(views: dict[str, FabricView], at: tuple[str, int], packet: dict[str, int], bucket: int = 0) -> list[Any]:
    """The switches that a packet passes from a port of one, then whom it comes to and how it looks, if to anybody."""
    passed: list[Any] = []
    name, port = at
    while True:
        passed.append(name)
        assert len(passed) < 6, f"a loop: {passed}"
        outputs = Switch(fabric_switch(views[name])).run({**packet, "in_port": port}, lambda *_: bucket).outputs
        if not outputs:
            return passed
        ((out, changed),) = outputs
        packet = dict(changed)
        peer = views[name].switch.ports[out]
        if peer not in views:
            return [*passed, peer, packet]
        port = next(number for number, who in views[peer].switch.ports.items() if who == name)
        name = peer


def routed(source: str, address: str, **changed: int) -> dict[str, int]:
    """From a node to its router."""
    leaf = next(view for view in VIEWS.values() if source in view.switch.ports.values())
    assert leaf.switch.router is not None
    one = NODES[source]
    packet = {"dl_src": one.mac, "dl_dst": leaf.switch.router.mac, "dl_type": 0x800, "nw_src": one.ip}
    return {**packet, "nw_dst": ip_number(address), "nw_proto": 17, "nw_ttl": 64, "tp_src": 1, "tp_dst": 2, **changed}


@pytest.mark.parametrize("bucket", [0, 1])
def test_a_packet_for_another_rack_is_routed_by_three_switches_over_either_spine(bucket: int) -> None:
    *passed, end, packet = carry(VIEWS, ("leaf-1", 101), routed("node-1", "172.18.64.3"), bucket)
    assert [*passed, end] == ["leaf-1", f"spine-{bucket + 1}", "leaf-2", "node-2"]
    router = VIEWS["leaf-2"].switch.router
    assert router is not None
    assert (packet["nw_ttl"], packet["dl_src"], packet["dl_dst"]) == (61, router.mac, NODES["node-2"].mac)


def test_inside_a_rack_frames_are_switched_and_spend_no_ttl() -> None:
    packet = routed("node-1", "172.18.0.4", dl_dst=NODES["node-3"].mac)
    *passed, end, seen = carry(VIEWS, ("leaf-1", 101), packet)
    assert ([*passed, end], seen["nw_ttl"], seen["dl_src"]) == (["leaf-1", "node-3"], 64, NODES["node-1"].mac)


def test_a_dead_link_is_routed_round() -> None:
    down: Down = frozenset({("leaf-1", 1), ("spine-1", 1)})
    for source, at, address in (("node-1", ("leaf-1", 101), "172.18.64.3"), ("node-2", ("leaf-2", 101), "172.18.0.2")):
        passed = carry(routed_fabric(down), at, routed(source, address))
        assert passed[1] == "spine-2" and len(passed) == 5


def test_addresses_of_nobody_are_dropped_where_they_would_be_and_the_world_is_behind_the_machine_outside() -> None:
    assert carry(VIEWS, ("leaf-2", 101), routed("node-2", "172.18.0.77")) == ["leaf-2", "spine-1", "leaf-1"]
    assert carry(VIEWS, ("leaf-2", 101), routed("node-2", "198.51.100.1"))[3] == "client"


def test_a_services_address_leads_to_its_announcer_from_every_rack() -> None:
    for source, at in (("node-2", ("leaf-2", 101)), ("node-3", ("leaf-1", 102))):
        assert carry(VIEWS, at, routed(source, "172.18.63.200"))[-2] == "node-1"


def test_a_router_answers_arp_for_its_rack_alone() -> None:
    asked = {
        "dl_type": 0x806,
        "arp_op": 1,
        "arp_spa": NODES["node-2"].ip,
        "arp_sha": NODES["node-2"].mac,
        "in_port": 101,
    }
    asked |= {"dl_src": NODES["node-2"].mac, "dl_dst": 0xFFFFFFFFFFFF, "arp_tha": 0}
    leaf, router = Switch(fabric_switch(VIEWS["leaf-2"])), VIEWS["leaf-2"].switch.router
    assert router is not None
    ((_, answer),) = leaf.run({**asked, "arp_tpa": ip_number("172.18.64.1")}).outputs
    assert (answer["arp_op"], answer["arp_sha"]) == (2, router.mac)
    assert leaf.run({**asked, "arp_tpa": NODES["node-1"].ip}).outputs == []
    assert leaf.run({**asked, "arp_tpa": ip_number("172.18.63.200")}).outputs == []


@pytest.mark.parametrize(
    ("cni", "options"), [("calico", {}), ("flannel", {"backend": "host-gw"}), ("kube-router", {}), ("ovs", {})]
)
def test_pods_without_an_overlay_need_one_subnet(cni: str, options: dict[str, object]) -> None:
    config = replace(default_config(), cni=cni, cni_options=options, fabric=FabricConfig(shape="two-racks"))
    with pytest.raises(InputError, match="does not wrap pods' packets"):
        parts(config, Choices())


def test_nodes_peer_with_switches_only_where_those_are_routers() -> None:
    options = {"speaker": "bird", "peering": "tor"}
    config = replace(default_config(), cni="calico", cni_options=options)
    with pytest.raises(InputError, match="the fabric's switches are no routers"):
        parts(config, Choices())
    full = replace(config, fabric=FabricConfig(leaves=3, spines=32, routing="l3"), node_subnet=SMALL)
    with pytest.raises(InputError, match="too few addresses for the links"):
        parts(full, Choices())


@pytest.mark.parametrize("shape", ["leaf-spine", "two-racks", "two-sites"])
def test_links_between_routers_have_addresses_of_their_own(shape: Any) -> None:
    config = replace(default_config(), fabric=FabricConfig(shape=shape, routing="l3"))
    ends = link_addresses(config)
    every = [end.address for one in ends.values() for end in one]
    assert len(set(every)) == len(every)
    assert not any(address in subnet for address in every for subnet in rack_subnets(config))
    for name, one in ends.items():
        for end in one:
            back = next(e for e in ends[end.peer] if e.peer == name and e.address == end.peer_address)
            assert back.peer_address == end.address and int(end.address) ^ int(back.address) == 1


def test_a_router_by_its_kernel_gets_what_is_for_it_and_answers_for_what_is_behind_it() -> None:
    view = VIEWS["leaf-1"]
    router = view.switch.router
    assert router is not None
    switch = replace(view.switch, router=replace(router, forwarding="kernel"))
    leaf = Switch(fabric_switch(replace(view, switch=switch)))
    ((port, packet),) = leaf.run({**routed("node-1", "172.18.64.3"), "in_port": 101}).outputs
    assert (port, packet["nw_ttl"]) == (LOCAL, 64)
    asked = {"dl_type": 0x806, "arp_op": 1, "arp_spa": 1, "arp_sha": 2, "in_port": 100, "dl_src": 2}
    asked |= {"dl_dst": 0xFFFFFFFFFFFF, "arp_tha": 0, "arp_tpa": ip_number("172.18.63.200")}
    ((_, answer),) = leaf.run(asked).outputs
    assert answer["arp_sha"] == router.mac
