"""Ways to other nodes' pods: which one a CNI takes, the MTU that its real counterpart picks, what nodes announce."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from views import CNIS, OVS, A, C, cluster, cni_of

from controllers.agent.several import Several
from controllers.bgp.bird import node_config
from controllers.cni import flannel
from controllers.cni.blocks import announced
from controllers.cni.ways import Way
from controllers.compile import pod_bridge, uplink_bridge
from controllers.flow import fields as f
from controllers.flow.fields import ip_number
from controllers.flow.program import check
from controllers.kernel import docker
from controllers.simulate import Switch
from controllers.state import ClusterState, NodeView, Outside, Published
from controllers.stores import leases
from controllers.transports import wireguard
from scenarios.lab import assemble
from topo import labfile, platform
from topo.cluster.errors import InputError, PlatformError
from topo.cluster.wiring import GATEWAY_PORT, TUNNEL_PORT, UPLINK_PORT

TCP = 6


def views(cni: str, options: Mapping[str, object], far: str = "") -> dict[str, NodeView]:
    """The usual cluster with the CNI's options; node `far` is in another subnet than the others."""
    found = {}
    for name, view in cluster(cni).items():
        lab = replace(view.lab, options={"cni": options})
        nodes = [
            replace(n, subnet="172.19.0.0/16" if n.name == far else "172.18.0.0/16") for n in (view.node, *view.peers)
        ]
        found[name] = replace(view, lab=lab, node=nodes[0], peers=tuple(nodes[1:]))
    return found


# What the real one gives a pod's interface: calico: "Configure MTU to maximize network performance" (the table of
# common sizes, and how the MTU is detected: the smallest of what is on). flannel: the backends' own arithmetic, which
# the pages on them leave out: 50 for vxlan, 28 for udp, 80 for wireguard (an outer IPv6 header's worth). canal: "the
# flannel network's". kube-router: --auto-mtu takes the node's interface's. docker: dockerd(8), --mtu: 1500, and it
# looks at no interface (moby gave that up). weave and cilium have tests of their own.
MTUS = [
    ("flannel", {"backend": "vxlan"}, 1500, 1450),
    ("flannel", {"backend": "vxlan"}, 9000, 8950),
    ("flannel", {"backend": "host-gw"}, 1500, 1500),
    ("flannel", {"backend": "host-gw"}, 9000, 9000),
    ("flannel", {"backend": "udp"}, 1500, 1472),
    ("flannel", {"backend": "udp"}, 9000, 8972),
    ("flannel", {"backend": "wireguard"}, 1500, 1420),
    ("flannel", {"backend": "wireguard"}, 9000, 8920),
    ("calico", {"mode": "bgp"}, 1500, 1500),
    ("calico", {"mode": "bgp"}, 9000, 9000),
    ("calico", {"mode": "ipip"}, 1500, 1480),
    ("calico", {"mode": "ipip"}, 9000, 8980),
    ("calico", {"mode": "crosssubnet"}, 1500, 1480),
    ("calico", {"mode": "vxlan"}, 1500, 1450),
    ("calico", {"mode": "vxlan"}, 9000, 8950),
    ("calico", {"mode": "vxlan-crosssubnet"}, 1500, 1450),
    ("calico", {"wireguard": True}, 1500, 1440),
    ("calico", {"wireguard": True}, 9000, 8940),
    ("calico", {"mode": "ipip", "wireguard": True}, 1500, 1440),
    ("canal", {}, 1500, 1450),
    ("canal", {}, 9000, 8950),
    ("kube-router", {}, 1500, 1500),
    ("kube-router", {}, 9000, 9000),
    ("docker", {}, 1400, 1500),
    ("docker", {}, 1500, 1500),
    ("docker", {}, 9000, 1500),
]


@pytest.mark.parametrize(("cni", "options", "fabric", "pods"), MTUS)
def test_pods_get_the_mtu_that_the_real_one_picks(
    cni: str, options: Mapping[str, object], fabric: int, pods: int
) -> None:
    assert CNIS[cni].plan(fabric, options).mtu == pods
    assert CNIS[cni].plan(fabric, {**options, "mtu": 1300}).mtu == 1300


@pytest.mark.parametrize(
    ("cni", "options", "near", "far"),
    [
        ("flannel", {"backend": "vxlan"}, Way.TUNNEL, Way.TUNNEL),
        ("flannel", {"backend": "host-gw"}, Way.NEIGHBOUR, Way.NEIGHBOUR),
        ("flannel", {"backend": "udp"}, Way.DEVICE, Way.DEVICE),
        ("calico", {"mode": "ipip"}, Way.DEVICE, Way.DEVICE),
        ("calico", {"mode": "vxlan"}, Way.TUNNEL, Way.TUNNEL),
        ("calico", {"mode": "crosssubnet"}, Way.NEIGHBOUR, Way.DEVICE),
        ("calico", {"mode": "vxlan-crosssubnet"}, Way.NEIGHBOUR, Way.TUNNEL),
        ("calico", {"mode": "crosssubnet", "wireguard": True}, Way.DEVICE, Way.DEVICE),
    ],
)
def test_the_way_depends_on_the_subnet_only_where_it_should(
    cni: str, options: Mapping[str, object], near: Way, far: Way
) -> None:
    ports = {Way.NEIGHBOUR: UPLINK_PORT, Way.TUNNEL: TUNNEL_PORT, Way.DEVICE: GATEWAY_PORT}
    for where, way in (("", near), ("node-2", far)):
        view = views(cni, options, where)["node-1"]
        assert [cni_of(view).way(view, peer) for peer in view.peers if peer.name == "node-2"] == [way]
        program = pod_bridge(view, cni_of(view), OVS)
        check(program)
        ((port, _),) = Switch(program).run(from_a(view)).outputs
        assert port == ports[way]
        # Whoever may send to this node's pods as they are must find the way in.
        takes = any(
            "nw_dst=10.244.1.0/24" in x.text() for y in uplink_bridge(view, cni_of(view)).values() for x in y.flows
        )
        assert takes == (near is Way.NEIGHBOUR)


def from_a(view: NodeView) -> dict[str, int]:
    """Pod A's packet to pod C of node-2."""
    packet = {"in_port": A.port, "dl_src": A.mac, "dl_dst": view.node.gateway_mac, "dl_type": 0x800}
    return packet | {"nw_src": A.ip, "nw_dst": C.ip, "nw_proto": TCP, "nw_ttl": 64, "tp_src": 40000, "tp_dst": 80}


def test_the_kernel_takes_the_ttl_of_what_goes_through_its_device_and_the_switch_none() -> None:
    here, there = (views("calico", {"mode": "ipip"})[name] for name in ("node-1", "node-2"))
    ((port, out),) = Switch(pod_bridge(here, cni_of(here), OVS)).run(from_a(here)).outputs
    assert (port, out["dl_dst"], out["nw_ttl"]) == (GATEWAY_PORT, here.node.gateway_mac, 64)
    arrived = {**out, "in_port": GATEWAY_PORT, "dl_dst": there.node.gateway_mac, "nw_ttl": 62}
    trace = Switch(pod_bridge(there, cni_of(there), OVS)).run(arrived)
    ((port, out),) = trace.outputs
    assert (port, out["dl_dst"], out["nw_ttl"]) == (C.port, C.mac, 62)


@pytest.mark.parametrize(("source", "wanted"), [("10.244.1.2", f.FROM_TUNNEL), ("10.244.2.1", f.FROM_GATEWAY)])
def test_what_a_tunnel_brought_is_not_the_nodes_own_though_the_kernel_hands_it_over(source: str, wanted: int) -> None:
    view = views("calico", {"mode": "ipip"})["node-2"]
    packet = {"in_port": GATEWAY_PORT, "dl_src": 1, "dl_dst": view.node.gateway_mac, "dl_type": 0x800, "nw_ttl": 62}
    packet |= {"nw_src": ip_number(source), "nw_dst": C.ip, "nw_proto": TCP, "tp_src": 40000, "tp_dst": 80}
    (flow, _), *_ = Switch(pod_bridge(view, cni_of(view), OVS)).run(packet).steps
    assert f"PktSource={wanted}" in flow.action_text() or f.PKT_SOURCE.show(wanted) in flow.action_text()


def test_blocks_in_use_are_announced_and_addresses_or_the_whole_on_request() -> None:
    used = [ip_number(a) for a in ("10.244.1.200", "10.244.1.2", "10.244.1.3")]
    assert announced("node", "10.244.1.0/24", used) == ("10.244.1.0/24",)
    assert announced("block", "10.244.1.0/24", used) == ["10.244.1.0/26", "10.244.1.192/26"]
    assert announced("pod", "10.244.1.0/24", used) == ["10.244.1.2/32", "10.244.1.3/32", "10.244.1.200/32"]
    assert announced("block", "10.244.1.0/28", [ip_number("10.244.1.2")]) == ["10.244.1.0/28"]
    assert announced("block", "10.244.1.0/24", []) == []


def pod_event(name: str, node: str, ip: str) -> dict[str, Any]:
    notes = {"mininetes.dev/mac": "0a:58:0a:f4:01:02", "mininetes.dev/ofport": "10"}
    meta = {"namespace": "default", "name": name, "annotations": notes}
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": node}, "status": {"podIP": ip, "phase": "Running"}}


LAB = {"pod_subnet": "10.244.0.0/16", "service_subnet": "10.96.0.0/16", "cni": "docker", "proxy_mode": "ovs"}
LAB |= {"fabric_mtu": 1500}


def node_event(name: str) -> dict[str, Any]:
    notes = {"mininetes.dev/mac": "0a:58:ac:12:00:02", "mininetes.dev/gateway-mac": "0a:58:0a:f4:01:01"}
    addresses = [{"type": "InternalIP", "address": "172.18.0.2"}]
    spec, status = {"podCIDR": "10.244.1.0/24"}, {"addresses": addresses}
    return {"kind": "Node", "metadata": {"name": name, "annotations": notes}, "spec": spec, "status": status}


def test_every_view_knows_the_addresses_of_all_nodes_pods() -> None:
    state = ClusterState()
    state.apply("Pod", "ADDED", pod_event("b", "node-1", "10.244.1.3"))
    state.apply("Pod", "ADDED", pod_event("a", "node-1", "10.244.1.2"))
    before, _ = state._owned()
    assert before == {"node-1": (ip_number("10.244.1.2"), ip_number("10.244.1.3"))}
    state.apply("Pod", "MODIFIED", pod_event("a", "node-1", "10.244.1.2"))
    assert state._owned()[0] is before
    state.apply("Pod", "DELETED", pod_event("b", "node-1", "10.244.1.3"))
    state.apply("Pod", "MODIFIED", pod_event("a", "node-2", "10.244.2.2"))
    assert state._owned()[0] == {"node-2": (ip_number("10.244.2.2"),)}


@pytest.mark.parametrize(("routes", "prefixes"), [("block", {"10.244.2.0/26"}), ("pod", {"10.244.2.2", "10.244.2.3"})])
def test_calico_has_a_route_for_what_is_announced_and_none_for_the_rest(routes: str, prefixes: set[str]) -> None:
    addresses = {"node-2": (ip_number("10.244.2.2"), ip_number("10.244.2.3"))}
    view = replace(views("calico", {"routes": routes})["node-1"], addresses=addresses)
    flows = [x.match_text() for y in pod_bridge(view, cni_of(view), OVS).values() for x in y.flows]
    assert {text.partition("nw_dst=")[2] for text in flows if "nw_dst=10.244.2." in text} == prefixes


def test_bird_announces_blocks_of_its_own_pods() -> None:
    view = views("calico", {"routes": "block", "speaker": "bird"})["node-1"]
    text = node_config(replace(view, addresses={"node-1": (A.ip,)}))
    assert "route 10.244.1.0/26 blackhole;" in text and "10.244.1.0/24" not in text


@pytest.mark.parametrize(
    ("cni", "options", "place"),
    [
        ("flannel", {"backend": "ipsec"}, "backend"),
        ("flannel", {"wireguard": True}, "wireguard"),
        ("calico", {"wireguard": "yes"}, "wireguard"),
        ("calico", {"wireguard": True, "speaker": "bird"}, "speaker"),
        ("calico", {"mode": "ipip", "speaker": "bird"}, "speaker"),
        ("calico", {"mode": "vxlan", "routes": "block"}, "routes"),
        ("calico", {"routes": "all"}, "routes"),
        ("kube-router", {"routes": "block"}, "routes"),
        ("docker", {"driver": "overlay"}, "driver"),
    ],
)
def test_options_that_make_no_sense_are_refused_by_their_name(
    cni: str, options: Mapping[str, object], place: str
) -> None:
    with pytest.raises(InputError, match=f"mininetes.cni.{place}"):
        CNIS[cni].plan(1500, options)


def test_every_node_knows_every_others_key_and_lets_each_send_only_from_its_pods() -> None:
    one, two = (views("calico", {"wireguard": True})[name] for name in ("node-1", "node-2"))
    secret = b"s" * 32
    texts = {v.node.name: wireguard.configuration(secret, v.node, v.peers, 51820) for v in (one, two)}
    assert wireguard.public_key(secret, "node-2") in texts["node-1"]
    assert wireguard.public_key(secret, "node-1") not in texts["node-1"]
    assert "Endpoint = 172.18.0.3:51820\nAllowedIPs = 10.244.2.0/24" in texts["node-1"]
    private = [line for text in texts.values() for line in text.splitlines() if line.startswith("PrivateKey")]
    assert len(set(private)) == 2
    assert wireguard.public_key(b"t" * 32, "node-2") not in texts["node-1"]


def test_private_key_has_the_form_that_curve25519_wants() -> None:
    key = wireguard.private_key(b"s" * 32, "node-1")
    assert key[0] % 8 == 0 and key[31] >> 6 == 1


def test_the_labs_secret_is_made_once_and_nobody_elses_to_read(tmp_path: Path) -> None:
    file = tmp_path / "run" / "wireguard.secret"
    secret = wireguard.lab_secret(file)
    assert len(secret) == 32 and wireguard.lab_secret(file) == secret
    assert file.stat().st_mode & 0o77 == 0 and [file] == list(file.parent.iterdir())


def test_what_stands_in_for_a_device_is_said_and_refused_where_nothing_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "has_device", lambda kind: False)
    monkeypatch.setattr(platform.shutil, "which", lambda name: name)
    assert platform.substitutes(()) == ()
    (said,) = platform.substitutes(CNIS["calico"].devices({"mode": "ipip"}))
    assert "no ipip" in said and "TUN" in said
    (said,) = platform.substitutes(CNIS["calico"].devices({"wireguard": True}))
    assert "no wireguard" in said and "wireguard-go" in said
    monkeypatch.setattr(platform.shutil, "which", lambda name: None)
    with pytest.raises(PlatformError, match="WireGuard needs wireguard-tools, wireguard-go"):
        platform.substitutes(("wireguard",))
    monkeypatch.setattr(platform, "has_device", lambda kind: True)
    assert platform.substitutes(("ipip",)) == ()


def test_each_part_of_several_does_its_work_whatever_becomes_of_the_others() -> None:
    done: list[str] = []

    class Part:
        def __init__(self, name: str) -> None:
            self.name = name

        def sync(self, view: NodeView) -> None:
            done.append(self.name)
            raise OSError(f"{self.name} failed")

        def close(self) -> None:
            done.append(f"{self.name} closed")

    both = Several(Part("one"), Part("two"))
    with pytest.raises(RuntimeError, match="one failed; two failed"):
        both.sync(cluster("calico")["node-1"])
    both.close()
    assert done == ["one", "two", "one closed", "two closed"]


PUBLISHED = (
    Published("default/a", A.ip, "tcp", "", 80, 8080),
    Published("default/a", A.ip, "udp", "172.18.0.2", 443, 5353),
)


def test_docker_publishes_ports_masquerades_what_leaves_and_lets_nothing_else_in() -> None:
    view = views("docker", {})["node-1"]
    found = docker.rules(replace(view, published=PUBLISHED[::-1]))
    assert found["nat"]["DOCKER"] == [
        "-p tcp -m tcp --dport 80 -j DNAT --to-destination 10.244.1.2:8080",
        "-d 172.18.0.2 -p udp -m udp --dport 443 -j DNAT --to-destination 10.244.1.2:5353",
    ]
    assert found["nat"]["DOCKER-MASQUERADING"] == [
        "-s 10.244.1.0/24 ! -o docker0 -j MASQUERADE",
        "-s 10.244.1.2 -d 10.244.1.2 -p tcp -m tcp --dport 8080 -j MASQUERADE",
        "-s 10.244.1.2 -d 10.244.1.2 -p udp -m udp --dport 5353 -j MASQUERADE",
    ]
    assert found["filter"]["DOCKER"] == [
        "-d 10.244.1.2 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8080 -j ACCEPT",
        "-d 10.244.1.2 ! -i docker0 -o docker0 -p udp -m udp --dport 5353 -j ACCEPT",
    ]


def test_a_pods_host_ports_are_in_the_view_whether_it_is_on_the_switch_or_not() -> None:
    state, event = ClusterState(), pod_event("a", "node-1", "10.244.1.2")
    ports = [{"containerPort": 8080, "hostPort": 80}, {"containerPort": 1}]
    ports.append({"containerPort": 5353, "hostPort": 443, "protocol": "UDP", "hostIP": "172.18.0.2"})
    event["spec"]["containers"] = [{"name": "c", "ports": ports}]
    del event["metadata"]["annotations"]
    state.apply("Pod", "ADDED", event)
    assert state._owned() == ({"node-1": (A.ip,)}, {"node-1": PUBLISHED})
    state.apply("Lab", "ADDED", {"kind": "Lab", "metadata": {"name": "x"}, "spec": LAB})
    state.apply("Node", "ADDED", node_event("node-1"))
    view = state.node_view("node-1")
    assert view is not None and view.published == PUBLISHED and view.addresses == {"node-1": (A.ip,)}
    event["spec"]["hostNetwork"] = True
    state.apply("Pod", "MODIFIED", event)
    assert state._owned() == ({}, {})


def test_there_is_no_way_to_other_nodes_pods_for_docker_nor_routes() -> None:
    view = views("docker", {})["node-1"]
    assert {cni_of(view).way(view, peer) for peer in view.peers} == {Way.NONE}
    flows = [x.text() for y in pod_bridge(view, cni_of(view), OVS).values() for x in y.flows]
    assert not any("10.244.2." in text for text in flows)


@pytest.mark.parametrize(("mode", "says"), [("ovs", True), ("kernel-iptables", False)])
def test_it_is_said_where_a_proxy_mode_cannot_serve_pods_on_a_bridge(mode: str, says: bool) -> None:
    config = replace(labfile.default_config(), cni="docker", proxy_mode=mode)
    parts = assemble.parts(config, assemble.Choices(datapath="netdev"))
    assert parts.network.bridge == "docker0" and parts.enforces == ()
    assert any("no Service" in text for text in parts.caveats) == says


class Memory:
    """An etcd's keys, without its network."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.granted = 0
        self.is_down = False

    def __call__(self, pid: int, address: str) -> Memory:
        return self

    def put(self, key: str, value: str, lease: str = "0") -> None:
        if self.is_down:
            raise OSError("etcd does not answer")
        self.held[key] = value

    def keys(self, prefix: str) -> list[str]:
        return sorted(key for key in self.held if key.startswith(prefix))

    def delete(self, key: str) -> None:
        self.held.pop(key, None)

    def grant(self, seconds: int) -> str:
        if self.is_down:
            raise OSError("etcd does not answer")
        self.granted += 1
        return str(self.granted)


def test_leases_are_written_once_ended_with_their_nodes_and_anew_after_the_etcd_was_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    etcd = Memory()
    monkeypatch.setattr(leases, "Etcd", etcd)
    given = {name: with_router(view) for name, view in views("flannel", {"backend": "vxlan"}).items()}
    parts = {name: leases.SubnetLeases(0, {"Type": "vxlan"}, lambda node: {"VNI": 1}) for name in given}
    for name, view in given.items():
        parts[name].sync(view)
        parts[name].sync(view)
    assert etcd.granted == 3
    assert json.loads(etcd.held["/coreos.com/network/config"])["Network"] == "10.244.0.0/16"
    assert etcd.held["/coreos.com/network/subnets/10.244.2.0-24"] == (
        '{"PublicIP":"172.18.0.3","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1}}'
    )
    left = replace(given["node-1"], peers=tuple(p for p in given["node-1"].peers if p.name != "node-2"))
    etcd.is_down = True
    with pytest.raises(OSError, match="does not answer"):
        parts["node-1"].sync(left)
    etcd.is_down = False
    parts["node-1"].sync(left)
    assert etcd.granted == 4
    assert [key[-13:] for key in etcd.keys("/coreos.com/network/subnets/")] == ["10.244.1.0-24", "10.244.3.0-24"]
    for part in parts.values():
        part.close()


def with_router(view: NodeView) -> NodeView:
    return replace(view, outside=(Outside("client", ip_number("172.18.0.1"), 1),))


@pytest.mark.parametrize(
    ("backend", "data"),
    [("vxlan", {"VNI": 1, "VtepMAC": "0a:58:0a:f4:01:01"}), ("host-gw", None), ("udp", None)],
)
def test_a_lease_says_what_others_must_know(backend: str, data: Mapping[str, object] | None) -> None:
    assert flannel.backend_data(backend, cluster("flannel")["node-1"].node, b"") == data


def test_an_etcd_is_only_where_it_is_asked_for() -> None:
    assert CNIS["flannel"].outside("172.18.0.1", {}) == ()
    (daemon,) = CNIS["flannel"].outside("172.18.0.1", {"store": "etcd"})
    assert daemon.name == "etcd" and "http://172.18.0.1:2379" in daemon.command
    with pytest.raises(InputError, match="store"):
        CNIS["flannel"].plan(1500, {"store": "consul"})
