"""Where a Service port is reached, by whom, and what becomes of it: flows of every type, judged by packets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from views import BALANCED, EVERY_TYPE, NODE_PORT, OVER, PROXIES, STICKY, A, cluster, cni_of, proxy_of, served, typed

from controllers.compile import pod_bridge
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import SNAT_ZONE, ZONE, Learn, Multipath, Resubmit
from controllers.flow.fields import ip_number
from controllers.flow.program import check
from controllers.proxy.frontends import REJECT, Options, frontends
from controllers.services import Endpoint, ServicePort
from controllers.simulate import Switch
from controllers.state import NodeView
from topo.cluster.errors import InputError
from topo.cluster.wiring import GATEWAY_PORT, NODEPORT_IP, UPLINK_PORT

MODES = ("ovs", "iptables", "ipvs")
VIEW = cluster("flannel")["node-1"]
NODE = VIEW.node
RULES = Options()
LB = BALANCED.load_balancer_ips[0]


def program_of(view: NodeView) -> Any:
    return pod_bridge(view, cni_of(view), proxy_of(view))


def packet(to: int, port: int, source: str, in_port: int = UPLINK_PORT, **more: int) -> dict[str, int]:
    head = {"in_port": in_port, "dl_src": 1, "dl_dst": NODE.gateway_mac, "dl_type": 0x800, "nw_ttl": 64, "nw_proto": 6}
    return {**head, "nw_src": ip_number(source), "nw_dst": to, "tp_src": 40000, "tp_dst": port, **more}


def from_a(to: int, port: int) -> dict[str, int]:
    return packet(to, port, f.ip_text(A.ip), A.port, dl_src=A.mac)


def from_node(to: int, port: int) -> dict[str, int]:
    return packet(to, port, f.ip_text(NODE.gateway_ip), GATEWAY_PORT)


def reached(view: NodeView, asked: dict[str, int]) -> set[int]:
    """Addresses that the packet may be translated to; empty if it is dropped."""
    found: set[int] = set()
    switch = Switch(program_of(view))
    for turn in range(4):
        again = {**asked, "tp_src": asked["tp_src"] + turn}
        trace = switch.run(again, lambda many, _, turn=turn: turn % many)  # type: ignore[misc]
        found |= {sent["nw_dst"] for _, sent in trace.outputs}
    return found


@pytest.mark.parametrize("mode", MODES)
def test_a_program_of_every_type_contradicts_itself_nowhere(mode: str) -> None:
    check(program_of(served(mode, {**EVERY_TYPE, STICKY.key: STICKY})))


@pytest.mark.parametrize("is_local", [False, True])
@pytest.mark.parametrize("ranges", [("172.18.0.0/16",), ("203.0.113.0/24",), ("0.0.0.0/0",), ("10.244.0.0/16",)])
def test_source_ranges_agree_with_either_policy_on_who_the_node_is(is_local: bool, ranges: tuple[str, ...]) -> None:
    port = replace(BALANCED, source_ranges=ranges, external_local=is_local)
    view = served("ovs", {port.key: port})
    check(program_of(view))
    # The node counts by its own address, not by the one among its pods that its packets bear.
    is_meant = ranges[0] in ("172.18.0.0/16", "0.0.0.0/0")
    assert bool(reached(view, from_node(LB, 80))) == is_meant
    if is_meant:  # and reaches every endpoint
        assert len(reached(view, from_node(LB, 80))) == 2
    outside = reached(view, packet(LB, 80, "203.0.113.9"))
    assert len(outside) == (0 if ranges[0] in ("172.18.0.0/16", "10.244.0.0/16") else 1 if is_local else 2)


def test_ranges_that_overlap_are_one() -> None:
    port = replace(BALANCED, source_ranges=("203.0.113.0/25", "203.0.113.128/25", "203.0.113.0/24"))
    found = [x for x in frontends(port, NODE, RULES) if ("nw_src", "203.0.113.0/24") in x.fields]
    assert {x.address for x in found} == {LB} and len({x.fields for x in found}) == len(found)


@pytest.mark.parametrize("mode", MODES)
def test_ways_in_of_a_node_port(mode: str) -> None:
    view = served(mode, {NODE_PORT.key: NODE_PORT})
    both = {e.ip for e in NODE_PORT.endpoints}
    assert reached(view, packet(NODE.ip, 30080, "203.0.113.9")) == both
    assert reached(view, from_a(NODE.ip, 30080)) == both
    assert reached(view, from_node(ip_number(NODEPORT_IP), 30080)) == both
    assert reached(view, from_a(NODE_PORT.cluster_ip, 80)) == both


@pytest.mark.parametrize("mode", MODES)
def test_policy_local_keeps_clients_outside_to_the_node(mode: str) -> None:
    view = served(mode, {BALANCED.key: BALANCED})
    assert reached(view, packet(NODE.ip, 30050, "203.0.113.9")) == {ip_number("10.244.1.3")}
    assert len(reached(view, from_a(NODE.ip, 30050))) == 2
    elsewhere = replace(BALANCED, endpoints=BALANCED.endpoints[1:])
    assert reached(served(mode, {BALANCED.key: elsewhere}), packet(NODE.ip, 30050, "203.0.113.9")) == set()


def test_without_endpoints_every_way_in_refuses() -> None:
    port = replace(BALANCED, endpoints=(), source_ranges=())
    assert {x.otherwise for x in frontends(port, NODE, RULES)} == {REJECT}


def test_local_policies_without_a_local_endpoint_are_silent() -> None:
    away = (Endpoint(ip_number("10.244.2.2"), 8080, "node-2"),)
    port = replace(BALANCED, endpoints=away, internal_local=True, source_ranges=())
    silent = [x for x in frontends(port, NODE, RULES) if x.otherwise == f.DROP_NO_LOCAL]
    assert {(x.address, x.fields) for x in silent} == {(port.cluster_ip, ()), (LB, ()), (NODE.ip, ())}


@pytest.mark.parametrize("mode", MODES)
def test_an_endpoint_that_ends_serves_alone(mode: str) -> None:
    assert reached(served(mode, {OVER.key: OVER}), from_a(OVER.cluster_ip, 80)) == {OVER.endpoints[0].ip}


def test_options_are_refused_by_name_and_type() -> None:
    for mode in MODES:
        proxy = PROXIES[mode]
        proxy.check({"masqueradeAll": True, "detectLocal": False})
        for wrong in ({"masquerade": True}, {"masqueradeAll": "yes"}, {"scheduler": "fifo"}):
            with pytest.raises(InputError):
                proxy.check(wrong)
    PROXIES["ipvs"].check({"scheduler": "wrr"})


@pytest.mark.parametrize("mode", MODES)
def test_every_connection_of_a_service_with_affinity_is_a_decision_of_its_own(mode: str) -> None:
    """Else the switch goes on with a decision it cached before the client was remembered."""
    view = served(mode, {STICKY.key: STICKY})
    flows = [x for fragment in proxy_of(view).fragments(view) for x in fragment.flows]
    asks = [x for x in flows if Resubmit(t.SERVICE_MEMORY) in x.actions]
    learns = [x for x in flows if any(isinstance(a, Learn) and a.target is f.ENDPOINT for a in x.actions)]
    assert len(asks) == 1 and len(learns) == 2
    for flow in asks + learns:
        places = [i for i, a in enumerate(flow.actions) if isinstance(a, Multipath) and a.fields != "nw_src"]
        last = next(i for i, a in enumerate(flow.actions) if isinstance(a, Resubmit | Learn))
        assert places and places[0] < last, flow.text()


def test_clients_behind_a_node_get_ports_that_its_own_connections_never_have() -> None:
    """Else two of the same port number meet at their server, and the answers of one go to the other."""
    view = served("ovs", {BALANCED.key: replace(BALANCED, source_ranges=(), external_local=False)})
    switch = Switch(program_of(view))
    assert switch.run(from_node(LB, 80)).outputs
    assert {zone for zone, key in switch.connections if key[1] == NODE.gateway_ip and key[2] == 40000} == {ZONE}
    assert switch.run(packet(LB, 80, "203.0.113.9")).outputs
    hidden = [key for zone, key in switch.connections if zone == SNAT_ZONE and key[3] == NODE.gateway_ip]
    assert hidden and all(1024 <= key[4] <= 32767 for key in hidden)


def test_services_without_node_dependent_parts_share_one_fragment_among_nodes() -> None:
    plain: ServicePort = typed(20, "shared:80/tcp", 20)
    found = []
    for name in ("node-1", "node-2"):
        view = replace(cluster("flannel")[name], services={plain.key: plain})
        found.append(next(x for x in PROXIES["ovs"].fragments(view) if "shared" in x.key))
    assert found[0] is found[1]
