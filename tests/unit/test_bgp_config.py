"""Options of BGP, and what routers' configurations say, against the files kept of them and BIRD's own parser."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import replace
from difflib import unified_diff
from pathlib import Path
from typing import Any

import pytest
from views import OVS, A, cluster, fabric

from controllers.bgp import bird, control, frr, outside, ryu, tor
from controllers.bgp.options import Bgp, Peer, of, of_cni
from controllers.cni.calico import CNI
from controllers.compile import fabric_switch, pod_bridge, uplink_bridge
from controllers.fabric import fragments as fabric_fragments
from controllers.flow.fields import ip_number
from controllers.flow.program import check, listing
from controllers.services import Endpoint, ServicePort
from controllers.simulate import Switch
from controllers.state import NodeView, Outside
from topo.cluster.errors import InputError
from topo.cluster.network import Daemon

pytestmark = pytest.mark.as_root  # FRR runs as root, with groups of its own
GOLDEN = Path(__file__).parent / "golden-bgp"
NETWORKS = ("203.0.113.0/24", "198.51.100.0/24")
BIRD = {"speaker": "bird"}
POOL = "172.18.255.192/26"


def balancer(name: str, address: str, local: bool, *nodes: str) -> ServicePort:
    """A LoadBalancer port with one ready endpoint on each of the nodes."""
    ends = tuple(Endpoint(ip_number(f"10.244.{i}.9"), 80, node) for i, node in enumerate(nodes))
    number = ip_number(address)
    return ServicePort(
        f"default/{name}:80/tcp",
        "tcp",
        number & 0xFF,
        80,
        ends,
        number & 0xFF,
        load_balancer_ips=(number,),
        external_local=local,
    )


SERVICES = {
    port.key: port
    for port in (
        balancer("anywhere", "172.18.255.193", False, "node-2"),
        balancer("here", "172.18.255.194", True, "node-1", "node-2"),
        balancer("elsewhere", "172.18.255.195", True, "node-2"),
        balancer("nowhere", "172.18.255.196", True),
    )
}


def view(name: str = "node-1", cni: Mapping[str, Any] = BIRD, section: Mapping[str, Any] | None = None) -> NodeView:
    """A node of the small cluster whose nodes speak BGP."""
    one = cluster("calico")[name]
    lab = replace(one.lab, options={"cni": dict(cni), "bgp": dict(section or {})}, load_balancer_pool=POOL)
    machine = Outside("client", ip_number("172.18.0.1"), 0x0A58AC120001)
    return replace(one, lab=lab, services=SERVICES, outside=(machine,))


def outside_of(name: str, **options: Any) -> tuple[Daemon, ...]:
    return outside.daemons("172.18.0.1", "172.18.0.0/16", NETWORKS, of_cni(BIRD | options, {"outsideRouter": name}))


ALL = BIRD | {"bfd": True, "gracefulRestart": False, "holdTime": 9, "asn": 64600}
SECTION = {"outsideRouter": "frr", "peers": [{"address": "172.18.0.9", "asn": 65001}], "serviceSubnet": True}
TOR = {"peering": "tor"}
LEAF = tor.RouterPlan(
    "leaf-1",
    4200000001,
    "172.18.0.1",
    "172.18.0.0/18",
    (tor.Session("spine-1", 4200000000, "172.18.192.0", "172.18.192.1"),),
    world="172.18.0.2",
)
SPINE = tor.RouterPlan(
    "spine-1",
    4200000000,
    "172.18.192.1",
    "",
    (tor.Session("leaf-1", 4200000001, "172.18.192.1", "172.18.192.0"),),
)


def in_rack() -> NodeView:
    """A node that peers with its rack's router, and a router outside that is no business of its."""
    one = view("node-1", BIRD | TOR, {"outsideRouter": "bird"})
    return replace(one, node=replace(one.node, subnet="172.18.0.0/18"))


ROUTES = {
    "announce": [{"prefix": "192.0.2.0/24", "nodes": ["node-2"], "med": 5, "communities": ["64512:7"]}],
    "import": [
        {"action": "accept", "prefix": "192.0.2.0/24", "longest": 32, "localPreference": 200},
        {"action": "reject", "community": "64512:9", "shortest": 25},
    ],
}
CONFIGS: dict[str, Callable[[], str]] = {
    "mesh.conf": lambda: bird.node_config(view()),
    "everything.conf": lambda: bird.node_config(view("node-2", ALL, SECTION)),
    "announces-and-filters.conf": lambda: bird.node_config(view("node-2", BIRD, ROUTES)),
    "reflector.conf": lambda: bird.node_config(view("node-1", BIRD | {"peering": "reflector", "reflectors": 1})),
    "client-of-reflectors.conf": lambda: bird.node_config(view("node-3", BIRD | {"peering": "reflector"})),
    "node-of-a-rack.conf": lambda: bird.node_config(in_rack()),
    "leaf.conf": lambda: tor.config(LEAF, of_cni(BIRD | TOR | {"bfd": True}, {"outsideRouter": "frr"})),
    "spine.conf": lambda: tor.config(SPINE, of_cni(BIRD | TOR)),
    "outside-bird.conf": lambda: outside_of("bird")[0].files["bird.conf"],
    "outside-bgpd.conf": lambda: outside_of("frr", bfd=True)[1].files["bgpd.conf"],
    "outside-bfdd.conf": lambda: outside_of("frr", bfd=True)[2].files["bfdd.conf"],
}


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration_is_as_it_was_reviewed(name: str) -> None:
    file, got = GOLDEN / name, CONFIGS[name]()
    had = file.read_text() if file.exists() else ""
    changes = "".join(unified_diff(had.splitlines(True), got.splitlines(True), f"{name} as kept", "as generated"))
    if os.environ.get("MININETES_GOLDEN") == "write" and changes:
        print(changes)
        file.parent.mkdir(exist_ok=True)
        file.write_text(got)
    else:
        assert not changes, f"\n{changes}\nIf this is what you want: MININETES_GOLDEN=write"


def test_every_kept_configuration_is_compared() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == set(CONFIGS)


@pytest.mark.skipif(shutil.which("bird") is None, reason="bird2 is not installed")
@pytest.mark.parametrize("name", [name for name in CONFIGS if "bgpd" not in name and "bfdd" not in name])
def test_bird_understands_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(CONFIGS[name]())
    done = subprocess.run(["bird", "-p", "-c", str(file)], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not Path("/usr/lib/frr/bgpd").exists(), reason="frr is not installed")
@pytest.mark.parametrize("number", [1, 2])
def test_frr_understands_it(number: int, tmp_path: Path) -> None:
    zebra, daemon = outside_of("frr", bfd=True)[0], outside_of("frr", bfd=True)[number]
    for name, text in {**zebra.files, **daemon.files}.items():
        (tmp_path / name).write_text(text)
    ((covered, name),) = zebra.covered.items()
    words = [word.replace("{run}", str(tmp_path)) for word in daemon.command]
    script = f'mount --bind {tmp_path}/{name} {covered} && exec "$@"'
    command = ["unshare", "--mount", "sh", "-c", script, "sh", *words, "-C"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stdout + done.stderr


def announced(one: NodeView) -> set[str]:
    lines = bird.node_config(one).splitlines()
    return {line.split()[1] for line in lines if line.endswith("blackhole;")}


def test_a_node_announces_its_pods_and_the_addresses_that_it_may_take_traffic_for() -> None:
    assert announced(view("node-1")) == {"10.244.1.0/24", "172.18.255.193/32", "172.18.255.194/32"}
    assert announced(view("node-2")) == {"10.244.2.0/24"} | {f"172.18.255.{n}/32" for n in (193, 194, 195)}


def test_a_node_that_is_not_ready_keeps_its_pods_routes_and_takes_no_traffic_for_services() -> None:
    assert announced(view("node-3", section={"serviceSubnet": True})) == {"10.244.3.0/24"}


def test_the_service_subnet_is_announced_if_that_is_asked_for() -> None:
    assert "10.96.0.0/16" in announced(view(section={"serviceSubnet": True}))


def test_of_two_nodes_one_calls_and_the_other_waits() -> None:
    """For every pair exactly one side is passive."""
    text = {name: bird.node_config(view(name)) for name in ("node-1", "node-2", "node-3")}
    for one, other in (("node-1", "node-2"), ("node-1", "node-3"), ("node-2", "node-3")):
        lines = [
            next(line for line in text[a].splitlines() if f'description "{b}"' in line)
            for a, b in ((one, other), (other, one))
        ]
        assert ["passive on" in line for line in lines].count(True) == 1


def test_clients_of_reflectors_have_sessions_with_them_alone_and_reflectors_with_all() -> None:
    options = BIRD | {"peering": "reflector", "reflectors": 1}
    names = {name: [n.name for n in bird.sessions(view(name, options))] for name in ("node-1", "node-2", "node-3")}
    assert names == {"node-1": ["node-2", "node-3"], "node-2": ["node-1"], "node-3": ["node-1"]}


def test_a_peer_that_is_not_ready_stays_a_peer_for_bgp_itself_finds_out_but_is_not_waited_for() -> None:
    assert "node-3" in [n.name for n in bird.sessions(view())]
    assert set(bird.expected(view(section={"outsideRouter": "bird"})).values()) == {"node-2", "client"}
    assert bird.expected(view("node-3")) == {}


def test_ryus_speaker_is_told_of_peers_and_of_what_the_node_announces() -> None:
    said = ryu.wanted(view("node-1", {"speaker": "ryu", "peering": "reflector", "reflectors": 1}))
    assert said["prefixes"] == ["10.244.1.0/24", "172.18.255.193/32", "172.18.255.194/32"]
    assert said["neighbours"] == {
        "172.18.0.3": {"asn": 64512, "client": True, "calls": True},
        "172.18.0.4": {"asn": 64512, "client": True, "calls": True},
    }
    other = ryu.wanted(view("node-2", {"speaker": "ryu", "peering": "reflector", "reflectors": 1}))
    assert other["neighbours"] == {"172.18.0.2": {"asn": 64512, "client": False, "calls": False}}


def test_a_node_of_a_rack_speaks_to_its_router_alone_and_waits_for_it() -> None:
    assert bird.sessions(in_rack()) == ()
    assert list(bird.expected(in_rack())) == ["leaf"]
    assert "neighbor 172.18.0.1 external" in bird.node_config(in_rack())


@pytest.mark.parametrize(
    ("cni", "section", "where"),
    [
        ({"speaker": "gobgp"}, {}, "mininetes.cni.speaker"),
        ({"asn": 64512}, {}, "mininetes.cni.asn"),
        ({}, {"outsideRouter": "bird"}, "mininetes.bgp.outsideRouter"),
        (BIRD | {"holdTime": 2}, {}, "mininetes.cni.holdTime"),
        (BIRD | {"holdTime": True}, {}, "mininetes.cni.holdTime"),
        (BIRD | {"asn": 23456}, {}, "mininetes.cni.asn"),
        (BIRD | {"bfd": "yes"}, {}, "mininetes.cni.bfd"),
        (BIRD | {"peering": "tor", "asn": 4200000002}, {}, "mininetes.cni.asn"),
        ({"speaker": "ryu", "bfd": True}, {}, "mininetes.cni.bfd"),
        ({"speaker": "ryu", "peering": "tor"}, {}, "mininetes.cni.peering"),
        ({"speaker": "ryu"}, {"import": [{"action": "reject"}]}, "mininetes.bgp.import"),
        (
            {"speaker": "ryu"},
            {"announce": [{"prefix": "192.0.2.0/24", "nodes": ["a"], "med": 1}]},
            "mininetes.bgp.announce",
        ),
        (BIRD | {"peering": "star"}, {}, "mininetes.cni.peering"),
        (BIRD | {"reflectors": 3}, {}, "mininetes.cni.reflectors"),
        (BIRD, {"outsideRouter": "cisco"}, "mininetes.bgp.outsideRouter"),
        (BIRD, {"routers": []}, "mininetes.bgp.routers"),
        (BIRD, {"peers": "172.18.0.9"}, "mininetes.bgp.peers"),
        (BIRD, {"peers": [{"address": "172.18.0.9"}]}, "mininetes.bgp.peers[0]"),
        ({}, {"announce": [{"prefix": "192.0.2.1/24", "nodes": ["a"]}]}, "mininetes.bgp.announce[0].prefix"),
        ({}, {"announce": [{"prefix": "192.0.2.0/24"}]}, "mininetes.bgp.announce[0].nodes"),
        ({}, {"import": [{"prefix": "192.0.2.0/24"}]}, "mininetes.bgp.import[0].action"),
        ({}, {"import": [{"action": "accept", "comunity": "1:1"}]}, "mininetes.bgp.import[0].comunity"),
        ({}, {"import": [{"action": "accept", "community": "1"}]}, "mininetes.bgp.import[0].community"),
        (
            {},
            {"import": [{"action": "reject", "prefix": "192.0.2.0/24", "longest": 8}]},
            "mininetes.bgp.import[0].longest",
        ),
        (BIRD, {"peers": [{"address": "here", "asn": 1}]}, "mininetes.bgp.peers[0].address"),
    ],
)
def test_wrong_options_are_named_by_their_place(cni: dict[str, Any], section: dict[str, Any], where: str) -> None:
    with pytest.raises(InputError) as caught:
        of_cni(cni, section)
    assert caught.value.where == where


def test_options_are_read() -> None:
    found = of(view("node-1", ALL, SECTION).lab)
    expected = Bgp("bird", asn=64600, hold_time=9, graceful_restart=False, bfd=True, outside="frr")
    assert found == replace(expected, peers=(Peer("172.18.0.9", 65001),), service_subnet=True)


def test_vxlan_needs_no_bgp() -> None:
    with pytest.raises(InputError):
        CNI.plan(1500, {"mode": "vxlan", **BIRD})


def test_pods_packets_go_to_the_kernel_and_an_address_of_no_pod_does_not_come_back() -> None:
    program = pod_bridge(view(), CNI, OVS)
    check(program)
    pod: dict[str, int] = {"in_port": A.port, "dl_src": A.mac, "dl_dst": 1, "dl_type": 0x800, "nw_src": A.ip}
    pod |= {"nw_proto": 17, "nw_ttl": 64, "tp_src": 5, "tp_dst": 6}
    far = Switch(program).run(pod | {"nw_dst": ip_number("10.244.77.5")})
    assert [(port, packet["nw_ttl"]) for port, packet in far.outputs] == [(2, 64)]
    nobody = Switch(program).run({**pod, "in_port": 2, "dl_src": 7, "nw_dst": ip_number("10.244.1.200")})
    assert nobody.outputs == []


def test_addresses_are_announced_by_bgp_instead_of_arp() -> None:
    arp = "arp_tpa=172.18.255.193"
    one, leaf = view(), fabric()["leaf-1"]
    flows = replace(one, lab=replace(one.lab, options={}))
    by_arp = [listing(uplink_bridge(replace(flows, node=n), CNI)) for n in (flows.node, *flows.peers)]
    assert any(arp in text for text in by_arp)
    assert arp not in listing(uplink_bridge(one, CNI))
    for lab, there in ((one.lab, False), (flows.lab, True)):
        seen = replace(leaf, services=SERVICES, lab=lab)
        assert (arp in listing(fabric_switch(seen))) == there
        assert list(fabric_fragments(seen))


def test_what_bird_says_of_sessions_is_read() -> None:
    lines = [
        "Name       Proto      Table      State  Since         Info",
        "device1    Device     ---        up     18:31:42.210  ",
        "node_172_18_0_2 BGP        ---        up     18:31:45.562  Established   ",
        "node_172_18_0_4 BGP        ---        start  2026-11-23    Active        Socket: Connection refused",
    ]
    found = control.sessions(lines)
    assert [(s.name, s.state, s.note) for s in found.values()] == [
        ("node_172_18_0_2", "Established", ""),
        ("node_172_18_0_4", "Active", "Socket: Connection refused"),
    ]


def test_frr_hears_of_no_bfd_where_there_is_none() -> None:
    assert "bfd" not in frr.bgpd_config("172.18.0.1", "172.18.0.0/16", NETWORKS, Bgp("bird", outside="frr"))
    assert [daemon.name for daemon in outside_of("frr")] == ["zebra", "bgpd"]
