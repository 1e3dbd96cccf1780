"""What the agent decides, without a namespace: health checks' answers, node ports, announcements, the proxy's sets."""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest
import views

from controllers.agent.health import checks, reply
from controllers.agent.neighbours import gratuitous
from controllers.agent.nodeports import EXTERNALS, NODEPORTS, elements, transaction
from controllers.announce import announcers
from controllers.flow.fields import ip_number, ip_text
from controllers.proxy import userspace
from controllers.services import Endpoint, ServicePort
from controllers.state import NodeView

HERE, THERE = "node-1", "node-2"


def endpoint(last: int, node: str = HERE, port: int = 8080, **more: Any) -> Endpoint:
    return Endpoint(ip_number(f"10.244.1.{last}"), port, node, **more)


def local(*endpoints: Endpoint, **more: Any) -> ServicePort:
    """A port of a Service with a health check port."""
    base = replace(views.WEB, endpoints=endpoints, external_local=True, health_port=32000, node_port=30080)
    return replace(base, **more)


class TestHealthChecks:
    def test_ready_endpoints_of_this_node_are_counted(self) -> None:
        port = local(endpoint(2), endpoint(3), endpoint(4, THERE))
        assert checks([port], HERE) == {32000: ("default/web", 2)}
        assert checks([port], THERE) == {32000: ("default/web", 1)}
        assert checks([port], "node-3") == {32000: ("default/web", 0)}

    def test_one_that_is_not_ready_or_terminates_is_not(self) -> None:
        ending = endpoint(2, ready=False, serving=True, terminating=True)
        # publishNotReadyAddresses calls an endpoint ready that terminates.
        published = endpoint(3, ready=True, terminating=True)
        assert checks([local(ending, published, endpoint(4, ready=False))], HERE) == {32000: ("default/web", 0)}

    def test_an_endpoint_of_several_ports_is_one(self) -> None:
        http = local(endpoint(2), endpoint(3))
        https = local(endpoint(2, port=8443), key="default/web:https/tcp", group=9)
        assert checks([http, https], HERE) == {32000: ("default/web", 2)}

    def test_ports_of_one_service_with_different_endpoints_are_added(self) -> None:
        https = local(endpoint(7, port=8443), key="default/web:https/tcp", group=9)
        assert checks([local(endpoint(2)), https], HERE) == {32000: ("default/web", 2)}

    def test_a_service_without_policy_local_has_none(self) -> None:
        assert checks([local(endpoint(2), external_local=False), local(endpoint(2), health_port=0)], HERE) == {}

    @pytest.mark.parametrize(("here", "status"), [(0, "503 Service Unavailable"), (1, "200 OK"), (7, "200 OK")])
    def test_the_answer_is_kube_proxys(self, here: int, status: str) -> None:
        head, _, body = reply("shop/web", here).partition(b"\r\n\r\n")
        line, *lines = head.decode().split("\r\n")
        headers = dict(h.split(": ") for h in lines)
        assert line == f"HTTP/1.1 {status}"
        assert headers["X-Load-Balancing-Endpoint-Weight"] == str(here)
        assert headers["Content-Type"] == "application/json" and headers["Content-Length"] == str(len(body))
        assert json.loads(body) == {"service": {"namespace": "shop", "name": "web"}, "localEndpoints": here}


class TestNodePorts:
    def test_every_port_and_every_external_address_is_an_element_once(self) -> None:
        udp = replace(views.DNS, node_port=30053)
        https = replace(views.WEB_TLS, node_port=0, external_ips=(ip_number("192.0.2.1"),))
        assert elements([local(), udp, https, local()]) == {
            NODEPORTS: ("tcp . 30080", "udp . 30053"),
            EXTERNALS: (f"192.0.2.1 . tcp . 443 : {ip_text(https.cluster_ip)} . 443",),
        }

    def test_the_change_is_one_transaction_and_what_is_empty_is_only_flushed(self) -> None:
        assert transaction({NODEPORTS: ("tcp . 1", "udp . 2"), EXTERNALS: ()}) == (
            "flush set ip mininetes nodeports\nadd element ip mininetes nodeports { tcp . 1, udp . 2 }\n"
            "flush map ip mininetes externals\n"
        )


NODES = [views.node(number) for number in range(1, 6)]
ADDRESSES = [ip_number("192.0.2.0") + n for n in range(100)]


def balanced(address: int, number: int = 1, **more: Any) -> ServicePort:
    return replace(views.WEB, key=f"default/s{number}:80/tcp", load_balancer_ips=(address,), **more)


def by_key(*ports: ServicePort) -> dict[str, ServicePort]:
    return {port.key: port for port in ports}


class TestAnnouncers:
    services = by_key(*(balanced(a, n) for n, a in enumerate(ADDRESSES)))

    def test_addresses_spread_over_the_nodes_whatever_their_order(self) -> None:
        found = announcers(self.services, NODES)
        counts = [list(found.values()).count(node.name) for node in NODES]
        assert sum(counts) == 100 and min(counts) >= 8 and max(counts) <= 36
        assert announcers(dict(reversed(self.services.items())), NODES[::-1]) == found

    def test_a_node_that_goes_moves_only_its_own(self) -> None:
        before = announcers(self.services, NODES)
        for gone in NODES:
            rest = [replace(n, ready=False) if n is gone else n for n in NODES]
            after = announcers(self.services, rest)
            assert {a for a in before if before[a] != after[a]} == {a for a, n in before.items() if n == gone.name}
            assert gone.name not in after.values()
            assert announcers(self.services, [n for n in NODES if n is not gone]) == after

    def test_with_policy_local_only_nodes_with_a_ready_endpoint(self) -> None:
        ending = endpoint(3, "node-4", ready=False, serving=True, terminating=True)
        for address in ADDRESSES:
            one = balanced(address, external_local=True, endpoints=(endpoint(2, "node-3"), ending))
            assert announcers(by_key(one), NODES) == {address: "node-3"}
        nobody = balanced(ADDRESSES[0], external_local=True, endpoints=(ending,))
        assert announcers(by_key(nobody), NODES) == {}

    def test_ports_that_share_an_address_have_one_announcer(self) -> None:
        one = balanced(ADDRESSES[0], 1, external_local=True, endpoints=(endpoint(2, "node-2"),))
        two = balanced(ADDRESSES[0], 2, external_local=True, endpoints=(endpoint(3, "node-5"),))
        assert announcers(by_key(one, two), NODES)[ADDRESSES[0]] in ("node-2", "node-5")

    def test_without_a_ready_node_nobody_announces(self) -> None:
        assert announcers(self.services, [replace(n, ready=False) for n in NODES]) == {}


def test_an_announcement_asks_everybody_for_the_senders_own_address() -> None:
    frame = gratuitous(0x0A58AC120002, ip_number("192.0.2.7"))
    mac, address = bytes.fromhex("0a58ac120002"), socket.inet_aton("192.0.2.7")
    assert frame[:14] == b"\xff" * 6 + mac + b"\x08\x06"
    kind, protocol, sizes, operation = struct.unpack("!HHHH", frame[14:22])
    assert (kind, protocol, sizes, operation) == (1, 0x0800, 0x0604, 1)
    # RFC 5227, section 3: sender and target protocol address are both the announced one.
    assert frame[22:] == mac + address + bytes(6) + address


class TestProxySets:
    def test_every_number_has_a_listener_of_its_own_in_the_proxys_network(self) -> None:
        numbers = [1, 2, 0x7FFF, 0x8000, 0x8001, (1 << 30) - 1, 1 << 30, (1 << 31) - 1]
        found = [userspace.listener(n) for n in numbers]
        assert len(set(found)) == len(numbers)
        network = IPv4Network(userspace.NETWORK)
        for address, port in found:
            assert IPv4Address(address) in network and 1024 <= port < 1 << 16

    def view(self, *ports: ServicePort) -> NodeView:
        return replace(views.cluster("flannel")[HERE], services=by_key(*ports))

    def test_a_set_is_told_once_with_all_its_endpoints(self) -> None:
        port = replace(views.WEB, affinity=7, node_port=30080, external_ips=(1,))
        address, number = userspace.listener(port.group)
        assert userspace.endpoint_sets(self.view(port)) == [
            {
                "listen": [ip_text(address), number],
                "protocol": "tcp",
                "endpoints": [[ip_text(e.ip), e.port] for e in port.endpoints],
                "affinity": 7,
            }
        ]

    def test_a_local_policy_has_a_set_of_the_nodes_own_endpoints_beside_all(self) -> None:
        here, there = endpoint(2), endpoint(3, THERE)
        both, own = userspace.endpoint_sets(self.view(local(here, there)))
        assert both["endpoints"] == [["10.244.1.2", 8080], ["10.244.1.3", 8080]]
        assert own["endpoints"] == [["10.244.1.2", 8080]]
        assert both["listen"] != own["listen"]

    def test_nobody_listens_for_a_service_without_endpoints(self) -> None:
        assert userspace.endpoint_sets(self.view(views.NONE)) == []

    def test_sctp_and_udp_are_told_too(self) -> None:
        sctp = replace(views.SELF, protocol="sctp")
        assert [s["protocol"] for s in userspace.endpoint_sets(self.view(views.DNS, sctp))] == ["udp", "sctp"]
