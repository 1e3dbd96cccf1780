"""Weave's mesh: who hears whom spreads, and ways round broken links follow; frames go where their peers are."""

from __future__ import annotations

from dataclasses import replace

import pytest
from views import OVS, A, C, cluster, cni_of

from controllers.compile import pod_bridge
from controllers.programs.weave import MISSED, Forwarding, Mesh, hello, read_hello, seal
from controllers.simulate import Packet, Switch, Trace
from controllers.state import NodeView
from topo.cluster.errors import InputError

NAMES = ("a", "b", "c", "d")


class Peers:
    """Peers of these names that beat together; cut: pairs of which the first does not hear the second."""

    def __init__(self, *names: str) -> None:
        self.meshes = {name: Mesh(name, 1) for name in names}
        self.cut: set[tuple[str, str]] = set()
        self.now = 0.0
        for mesh in self.meshes.values():
            mesh.peers = frozenset(names) - {mesh.me}

    def beat(self, times: int = 1) -> None:
        for _ in range(times):
            said = {name: hello(mesh) for name, mesh in self.meshes.items()}
            for receiver, mesh in self.meshes.items():
                for sender, message in said.items():
                    if sender != receiver and (receiver, sender) not in self.cut:
                        mesh.hear(*read_hello(message), self.now)
                mesh.look(self.now)
            self.now += self.meshes["a"].period

    def via(self, name: str) -> dict[str, str]:
        return self.meshes[name].via()


def test_whoever_hears_all_needs_nobody_on_the_way() -> None:
    peers = Peers(*NAMES)
    peers.beat(3)
    assert [peers.via(name) for name in NAMES] == [{}] * 4


@pytest.mark.parametrize("cut", [{("a", "b"), ("b", "a")}, {("a", "b")}])
def test_a_link_that_breaks_even_in_one_direction_is_gone_round_by_both(cut: set[tuple[str, str]]) -> None:
    peers = Peers(*NAMES)
    peers.beat(3)
    peers.cut = cut
    peers.beat(MISSED + 3)
    assert (peers.via("a"), peers.via("b"), peers.via("c")) == ({"b": "c"}, {"a": "c"}, {})
    peers.cut = set()
    peers.beat(3)
    assert (peers.via("a"), peers.via("b")) == ({}, {})


def test_a_way_may_lead_through_several() -> None:
    peers = Peers(*NAMES)
    line = {("a", "b"), ("b", "c"), ("c", "d")}
    every = {(x, y) for x in NAMES for y in NAMES if x != y}
    peers.cut = every - line - {(y, x) for x, y in line}
    peers.beat(6)
    assert peers.via("a") == {"c": "b", "d": "b"} and peers.via("b") == {"d": "c"}


def test_a_peer_that_starts_again_is_believed_and_one_that_is_no_peer_any_more_is_no_way() -> None:
    peers = Peers("a", "b", "c")
    peers.cut = {("a", "b"), ("b", "a")}
    peers.beat(4)
    assert peers.via("a") == {"b": "c"}
    peers.meshes["c"] = Mesh("c", 1000)
    peers.meshes["c"].peers = frozenset("ab")
    peers.beat(1)
    assert peers.via("a") == {}
    peers.beat(3)
    assert peers.via("a") == {"b": "c"}
    peers.meshes["a"].peers = frozenset("b")
    assert peers.via("a") == {}


def test_frames_go_to_all_until_their_receiver_has_spoken_and_broadcasts_always() -> None:
    at, everyone = Forwarding(), (b"1", b"2")
    there, here = b"\x0a\x58aaaa", b"\x0a\x58bbbb"
    assert tuple(at.to(there + here, everyone)) == everyone
    at.learn(here + there, b"2")
    assert tuple(at.to(there + here, everyone)) == (b"2",)
    assert tuple(at.to(b"\xff" * 6 + here, everyone)) == everyone


def test_what_was_sealed_with_another_key_is_no_message() -> None:
    wrap, _ = seal(b"1" * 32)
    assert seal(b"1" * 32)[1](wrap(b"hello")) == b"hello"
    assert seal(b"2" * 32)[1](wrap(b"hello")) is None and b"hello" not in wrap(b"hello")


def run(view: NodeView, **packet: int) -> Trace:
    return Switch(pod_bridge(view, cni_of(view), OVS)).run(packet)


def frame(view: NodeView, dl_dst: int) -> Packet:
    packet = {"in_port": A.port, "dl_src": A.mac, "dl_dst": dl_dst, "dl_type": 0x800, "nw_src": A.ip, "nw_dst": C.ip}
    return packet | {"nw_proto": 6, "nw_ttl": 64, "tp_src": 1000, "tp_dst": 80}


def test_a_frame_crosses_as_it_is_and_a_routed_packet_gets_the_pods_mac() -> None:
    view = cluster("weave")["node-1"]
    [(port, sent)] = run(view, **frame(view, C.mac)).outputs
    assert (port, sent["dl_src"], sent["dl_dst"], sent["nw_ttl"]) == (1, A.mac, C.mac, 64)
    [(_, routed)] = run(view, **frame(view, view.node.gateway_mac)).outputs
    assert (routed["dl_src"], routed["dl_dst"], routed["nw_ttl"]) == (view.node.gateway_mac, C.mac, 63)
    there = cluster("weave")["node-2"]
    [(port, got)] = run(there, **{**sent, "in_port": 1}).outputs
    assert (port, got["dl_src"], got["nw_ttl"]) == (C.port, A.mac, 64)


def test_a_broken_link_is_gone_round_by_a_peer_that_passes_the_frame_on() -> None:
    every = cluster("weave")
    nodes = {name: replace(view.node, ready=True) for name, view in every.items()}
    views = {
        name: replace(view, node=nodes[name], peers=tuple(n for n in nodes.values() if n.name != name))
        for name, view in every.items()
    }
    first = replace(views["node-1"], relays={"node-2": "node-3"})
    [(_, sent)] = run(first, **frame(first, C.mac)).outputs
    assert sent["tun_dst"] == nodes["node-3"].ip
    [(port, passed)] = run(views["node-3"], **{**sent, "in_port": 1}).outputs
    assert (port, passed["tun_dst"], passed["tun_id"]) == (1, nodes["node-2"].ip, sent["tun_id"])
    assert {k: v for k, v in passed.items() if k != "tun_dst"} == {k: v for k, v in sent.items() if k != "tun_dst"}
    [(port, _)] = run(views["node-2"], **{**passed, "in_port": 1}).outputs
    assert port == C.port


def test_a_password_seals_either_mode_and_may_be_a_number() -> None:
    cni = cni_of(cluster("weave")["node-1"])
    for mode, wrapped in (("fastdp", "VXLAN in WireGuard"), ("sleeve", "UDP")):
        traits = cni.traits_of({"mode": mode, "password": 1234})
        assert traits.sealed and traits.encapsulation == wrapped
        assert not cni.traits_of({"mode": mode}).sealed
    assert cni.plan(1500, {"password": "x"}).sealed and "ESP" in cni.stand_ins({"password": "x"})[0]
    with pytest.raises(InputError, match="in quotes"):
        cni.plan(1500, {"password": ["x"]})


def test_an_mtu_that_does_not_fit_the_fabric_is_refused() -> None:
    cni = cni_of(cluster("weave")["node-1"])
    assert cni.plan(1500, {}).mtu == cni.plan(9000, {}).mtu == 1376
    with pytest.raises(InputError, match="do not fit"):
        cni.plan(1400, {})
