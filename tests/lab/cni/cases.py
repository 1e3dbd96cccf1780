"""What packets between pods, nodes and the world outside must meet, as the CNI's traits say."""

from __future__ import annotations

import pytest

from cni.world import NODE_PORT, NODES, OUTSIDE, OUTSIDE_PORT, POD_PORT, World, pod
from scenarios.measure import wire
from topo.cluster.wiring import HAIRPIN_IP

HERE, THERE = NODES["worker"], NODES["worker2"]


def test_pods_of_one_node_see_each_other_as_they_are(lab: World) -> None:
    answer = lab.ask_from("asking", lab.ips["beside"], POD_PORT)
    assert (answer.get("pod"), answer.get("client")) == ("beside", lab.ips["asking"]), answer


def test_pods_of_two_nodes_see_each_other_as_they_are_or_not_at_all(lab: World) -> None:
    for client, server in (("asking", "across"), ("across", "asking")):
        answer = lab.ask_from(client, lab.ips[server], POD_PORT)
        if lab.says.crosses:
            hidden = HERE if client == "asking" else THERE
            seen = hidden if "pods" in lab.says.masquerades else lab.ips[client]
            assert (answer.get("pod"), answer.get("client")) == (server, seen), answer
        else:
            assert answer.get("error") in ("timeout", "refused", "No route to host"), answer


def test_a_pods_own_node_sees_it_as_it_is(lab: World) -> None:
    answer = lab.ask_from("asking", HERE, NODE_PORT)
    assert (answer.get("pod"), answer.get("client")) == ("at-worker", lab.ips["asking"]), answer


def test_another_node_sees_a_pod_behind_its_node_if_the_cni_hides_it(lab: World) -> None:
    answer = lab.ask_from("asking", THERE, NODE_PORT)
    seen = HERE if "nodes" in lab.says.masquerades else lab.ips["asking"]
    assert (answer.get("pod"), answer.get("client")) == ("at-worker2", seen), answer


def test_pods_and_nodes_ping_each_other(lab: World) -> None:
    for address in (HERE, THERE):
        assert lab.ping("asking", address, 100) == "answered"
    assert lab.ping("worker", lab.ips["beside"], 100) == "answered"
    if "others" in lab.says.nodes_reach:
        assert lab.ping("worker", lab.ips["across"], 100) == "answered"


@pytest.mark.parametrize("address", OUTSIDE)
def test_the_world_sees_a_pod_behind_its_node_if_the_cni_hides_it(lab: World, address: str) -> None:
    lab.at("client").do("serve", port=OUTSIDE_PORT)
    answer = lab.ask_from("asking", address, OUTSIDE_PORT)
    assert answer.get("client") == (HERE if "outside" in lab.says.masquerades else lab.ips["asking"]), answer


def test_nodes_reach_pods_and_are_seen_as_themselves(lab: World) -> None:
    for server, whose in (("beside", "own"), ("across", "others")):
        answer = lab.ask_from("worker", lab.ips[server], POD_PORT)
        if whose in lab.says.nodes_reach:
            assert answer.get("pod") == server and answer["client"] in lab.own_addresses("worker"), answer
        else:
            assert "error" in answer, answer


def test_a_pod_reaches_itself_through_its_service_and_does_not_see_itself(lab: World) -> None:
    answer = lab.ask_from("beside", "10.96.1.1", 80)
    if not lab.says.crosses:  # docker has its pods on a bridge, past the switch, and no Services: status says so
        assert "error" in answer, answer
        return
    assert (answer.get("pod"), answer.get("client")) == ("beside", HAIRPIN_IP), answer


@pytest.mark.crossing
def test_packets_on_the_fabric_have_the_headers_and_the_size_that_the_traits_say(lab: World) -> None:
    size = lab.says.mtu(lab.fabric_mtu)
    with lab.captured("worker", size, 4) as packets:
        assert lab.ping("asking", lab.ips["across"], size) == "answered"
    assert lab.unlike(packets) == []
    costs = {packet.size - size for packet in packets}
    assert costs and all(wire.is_added(lab.says, cost) for cost in costs), costs


def test_the_largest_packet_is_exactly_what_the_pods_mtu_says(lab: World) -> None:
    size = lab.says.mtu(lab.fabric_mtu)
    targets = ["beside", "across"] if lab.says.crosses else ["beside"]
    for target in targets:
        assert lab.ping("asking", lab.ips[target], size) == "answered"
        assert lab.ping("asking", lab.ips[target], size + 1) == "Message too long"


@pytest.mark.crossing
def test_the_path_takes_no_byte_more_than_the_fabric_has_room_for(lab: World) -> None:
    """With interfaces that would take more, so that the path itself decides."""
    size = lab.says.mtu(lab.fabric_mtu)
    for name in ("asking", "across"):
        lab.widen(name, lab.fabric_mtu + 100)
    try:
        # Of what a CNI leaves unused its devices may let pass some or nothing.
        most = lab.fabric_mtu - wire.added(lab.says)[1]
        assert lab.ping("asking", lab.ips["across"], size) == "answered"
        assert lab.ping("asking", lab.ips["across"], most + 1) != "answered"
    finally:
        for name in ("asking", "across"):
            lab.widen(name, size)
    assert lab.ping("asking", lab.ips["across"], size) == "answered"


def test_a_node_joins_and_leaves_while_the_others_go_on(lab: World) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "joined"}}
    lab.apply(node)
    lab.apply(pod("guest", "joined"))
    there = lab.get("Pod", "guest")
    assert there is not None
    address = there["status"]["podIP"]
    reaches = lab.says.crosses
    answers = lab.ask_from("asking", address, POD_PORT), lab.ask_from("guest", lab.ips["across"], POD_PORT)
    assert [a.get("pod") for a in answers] == (["guest", "across"] if reaches else [None, None]), answers
    assert lab.ask_from("guest", HERE, NODE_PORT).get("pod") == "at-worker"
    lab.forget("guest")
    lab.ask("delete", keys=[["Node", "", "joined"]])
    lab.eventually(lambda: lab.get("Pod", "guest") is None)
    lab.ask("wait", timeout=30)
    assert "error" in lab.ask_from("asking", address, POD_PORT)
    answer = lab.ask_from("asking", lab.ips["across"], POD_PORT)
    assert ("pod" in answer) == reaches, answer
