"""What the compiled programs of fabric switches do to packets, through the simulator, and that nothing floods."""

from __future__ import annotations

import pytest
from views import OVS, SWITCHES, cluster, cni_of, fabric

from controllers.compile import fabric_switch, pod_bridge, uplink_bridge
from controllers.flow import fields as f
from controllers.flow.actions import IN_PORT_NUMBER, LOCAL, Output, OutputField, Set
from controllers.simulate import Packet, Switch
from topo.cluster.wiring import PATCH_PORT, UPLINK_PORT

BROADCAST = 0xFFFFFFFFFFFF
NODES = {name: view.node for name, view in cluster("flannel").items()}
HOME = {peer: (name, port) for name, s in SWITCHES.items() for port, peer in s.ports.items() if peer in NODES}
LINKS = {
    (name, port): (peer, next(back for back, who in SWITCHES[peer].ports.items() if who == name))
    for name, switch in SWITCHES.items()
    for port, peer in switch.ports.items()
    if peer in SWITCHES
}
Down = frozenset[tuple[str, int]]


def machines(known: Down = frozenset(), dead: Down = frozenset()) -> dict[str, Switch]:
    """The switches of the fabric. known: dead links the controller heard of; dead: those the switches see."""
    switches = {name: Switch(fabric_switch(view)) for name, view in fabric(known).items()}
    for name, port in dead:
        switches[name].down.add(port)
    return switches


def both_ends(name: str, port: int) -> Down:
    return frozenset({(name, port), LINKS[name, port]})


def frame(source: str, target: str, **changed: int) -> dict[str, int]:
    one, two = NODES[source], NODES[target]
    sent = {"dl_src": one.mac, "dl_dst": two.mac, "dl_type": 0x800, "nw_src": one.ip, "nw_dst": two.ip, "nw_proto": 17}
    return {**sent, "nw_ttl": 64, "tp_src": 1, "tp_dst": 8472, **changed}


def carry(switches: dict[str, Switch], source: str, packet: Packet, bucket: int = 0) -> tuple[list[str], str]:
    """The switches that a node's packet passes, and the node it comes to, "" for none."""
    (name, port), passed = HOME[source], []
    while True:
        passed.append(name)
        assert len(passed) <= len(switches), f"a loop: {passed}"
        outputs = switches[name].run({**packet, "in_port": port}, lambda *_: bucket).outputs
        if not outputs:
            return passed, ""
        ((out, packet),) = outputs
        if (name, out) not in LINKS:
            return passed, SWITCHES[name].ports[out]
        name, port = LINKS[name, out]


@pytest.mark.parametrize("bucket", [0, 1])
@pytest.mark.parametrize(("source", "target"), [("node-1", "node-2"), ("node-2", "node-1"), ("node-2", "node-3")])
def test_packet_crosses_from_leaf_to_leaf_over_either_spine(source: str, target: str, bucket: int) -> None:
    passed, end = carry(machines(), source, frame(source, target), bucket)
    assert passed == [HOME[source][0], f"spine-{bucket + 1}", HOME[target][0]]
    assert end == target


def test_packet_for_a_node_of_the_same_leaf_stays_there() -> None:
    assert carry(machines(), "node-1", frame("node-1", "node-3")) == (["leaf-1"], "node-3")


@pytest.mark.parametrize("link", [("leaf-1", 1), ("leaf-2", 1)])
def test_dead_link_is_avoided_once_the_controller_knows(link: tuple[str, int]) -> None:
    down = both_ends(*link)
    passed, end = carry(machines(known=down, dead=down), "node-1", frame("node-1", "node-2"))
    assert (passed, end) == (["leaf-1", "spine-2", "leaf-2"], "node-2")


def test_leaf_avoids_its_own_dead_link_before_the_controller_knows() -> None:
    dead = both_ends("leaf-1", 1)
    passed, end = carry(machines(dead=dead), "node-1", frame("node-1", "node-2"))
    assert (passed, end) == (["leaf-1", "spine-2", "leaf-2"], "node-2")


def test_link_that_only_one_end_reports_dead_is_used_by_neither() -> None:
    for end in both_ends("leaf-2", 1):
        assert carry(machines(known=frozenset({end})), "node-1", frame("node-1", "node-2"))[0][1] == "spine-2"


def test_packet_with_no_path_is_dropped_by_the_first_switch() -> None:
    down = both_ends("leaf-1", 1) | both_ends("leaf-1", 2)
    assert carry(machines(known=down, dead=down), "node-1", frame("node-1", "node-2")) == (["leaf-1"], "")
    # Each leaf still serves its own nodes.
    assert carry(machines(known=down, dead=down), "node-1", frame("node-1", "node-3")) == (["leaf-1"], "node-3")


def test_packets_for_a_node_whose_own_link_is_dead_end_at_its_leaf() -> None:
    down = frozenset({("leaf-2", 101)})
    for dead in (down, frozenset[tuple[str, int]]()):  # the switch knows, too, or only the controller does
        passed, end = carry(machines(known=down, dead=dead), "node-1", frame("node-1", "node-2"))
        assert (passed[-1], end) == ("leaf-2", "")


@pytest.mark.parametrize("links", [[("leaf-1", 1), ("leaf-2", 2)], [("leaf-1", 2), ("leaf-2", 2)]])
def test_two_dead_links_leave_a_path_or_none_but_never_a_loop(links: list[tuple[str, int]]) -> None:
    down = frozenset().union(*(both_ends(*link) for link in links))
    for bucket in (0, -1):
        _, end = carry(machines(known=down, dead=down), "node-1", frame("node-1", "node-2"), bucket)
        assert end == ("node-2" if {port for _, port in links} == {2} else "")


@pytest.mark.parametrize("target", NODES)
def test_arp_is_answered_by_the_first_switch(target: str) -> None:
    one, two = NODES["node-1"], NODES[target]
    ethernet = {"dl_src": one.mac, "dl_dst": BROADCAST, "dl_type": 0x806, "arp_op": 1, "arp_tha": 0}
    request = {**ethernet, "arp_spa": one.ip, "arp_sha": one.mac, "arp_tpa": two.ip}
    trace = machines()["leaf-1"].run({**request, "in_port": 101})
    reply = {"dl_src": two.mac, "dl_dst": one.mac, "dl_type": 0x806, "arp_op": 2, "arp_spa": two.ip}
    assert trace.outputs == [(101, {**reply, "arp_sha": two.mac, "arp_tha": one.mac, "arp_tpa": one.ip})]


@pytest.mark.parametrize("name", SWITCHES)
def test_broadcast_and_arp_for_no_node_go_nowhere(name: str) -> None:
    switch = machines()[name]
    for port in SWITCHES[name].ports:
        assert not switch.run(frame("node-1", "node-2", dl_dst=BROADCAST, in_port=port)).outputs
        arp = {"dl_src": 1, "dl_dst": BROADCAST, "dl_type": 0x806, "arp_op": 1, "arp_spa": 1, "arp_tpa": 2}
        assert not switch.run({**arp, "arp_sha": 1, "arp_tha": 0, "in_port": port}).outputs


def test_no_flow_of_any_bridge_floods_and_only_answers_return_to_where_they_came_from() -> None:
    programs = [fabric_switch(view) for view in fabric().values()]
    for view in [*cluster("flannel").values(), *cluster("calico").values()]:
        programs += [pod_bridge(view, cni_of(view), OVS), uplink_bridge(view, cni_of(view))]
    for program in programs:
        flows = [flow for fragment in program.values() for flow in fragment.flows]
        buckets = [bucket for fragment in program.values() for group in fragment.groups for bucket in group.buckets]
        for actions in [x.actions for x in flows] + [x.actions for x in buckets]:
            outputs = [x for x in actions if isinstance(x, Output | OutputField)]
            assert len(outputs) <= 1
            for action in (x for x in outputs if isinstance(x, Output)):
                answer = action.port == IN_PORT_NUMBER and Set(f.ARP_OP, 2) in actions
                assert action.port < 0xFFFFFF00 or action.port == LOCAL or answer, actions


@pytest.mark.parametrize("cni", ["flannel", "calico"])
def test_broadcast_of_a_pod_stays_in_its_bridge(cni: str) -> None:
    view = cluster(cni)["node-1"]
    bridge, (pod, _) = Switch(pod_bridge(view, cni_of(view), OVS)), view.pods
    packet = {"in_port": pod.port, "dl_src": pod.mac, "dl_dst": BROADCAST, "dl_type": 0x800, "nw_src": pod.ip}
    packet |= {"nw_dst": f.ip_number("10.244.1.255"), "nw_proto": 17, "nw_ttl": 64, "tp_src": 68, "tp_dst": 67}
    assert not bridge.run(packet).outputs
    assert UPLINK_PORT not in [port for port, _ in bridge.run({**packet, "nw_dst": 0xFFFFFFFF}).outputs]
    assert (
        not Switch(uplink_bridge(view, cni_of(view))).run({**packet, "dl_type": 0x86DD, "in_port": PATCH_PORT}).outputs
    )
