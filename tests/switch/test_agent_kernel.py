"""What the agent does in a node's namespace: health check ports, announcements, the set of node ports, its proxy."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from types import SimpleNamespace
from typing import Any, cast

import pytest

from controllers.agent.commands import run
from controllers.agent.health import HealthChecks
from controllers.agent.neighbours import Announcements, gratuitous
from controllers.agent.nodeports import NodePorts
from controllers.flow.fields import ip_number, mac_number
from controllers.proxy.userspace import ProxyProcess, listener
from controllers.services import Endpoint, ServicePort
from controllers.state import Lab, Node, NodeView
from topo import links, nodes
from topo.cluster.network import PodNetwork
from topo.hosts import Host
from topo.system import inside

pytestmark = pytest.mark.as_root

LAB = Lab("10.244.0.0/16", "10.96.0.0/16", "flannel", "userspace", 1500)
MAC = mac_number("0a:58:ac:12:00:02")
HERE = Node("here", ip_number("172.18.0.2"), MAC, MAC + 1, "10.244.0.0/24", True)
THERE = Node("there", ip_number("172.18.0.3"), MAC + 2, MAC + 3, "10.244.1.0/24", True)
BALANCED = ip_number("192.0.2.7")


def port(**more: Any) -> ServicePort:
    """A Service port with one endpoint, which is the node's own loopback address."""
    endpoints = more.pop("endpoints", (Endpoint(ip_number("127.0.1.1"), 8080, "here"),))
    return ServicePort("default/web:80/tcp", "tcp", ip_number("10.96.0.10"), 80, endpoints, 5, **more)


def view(*ports: ServicePort, peers: tuple[Node, ...] = ()) -> NodeView:
    return NodeView(LAB, HERE, (), peers, {p.key: p for p in ports})


def until(holds: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host("node")
    links.configure(made.pid, "lo", "127.0.0.1/8", loopback=True)
    yield made
    made.end()


class TestHealthChecks:
    @pytest.fixture
    def part(self, host: Host) -> Iterator[HealthChecks]:
        made = HealthChecks(host.pid)
        yield made
        made.close()

    def ask(self, host: Host, method: str = "GET", path: str = "/any/path") -> tuple[int, Any, str]:
        with inside(host.pid):
            connection = http.client.HTTPConnection("127.0.0.1", 32000, timeout=5)
            connection.request(method, path)
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, json.loads(body) if body else None, answer.headers["X-Load-Balancing-Endpoint-Weight"]

    def test_the_answer_follows_the_endpoints(self, host: Host, part: HealthChecks) -> None:
        service = port(external_local=True, health_port=32000, node_port=30080)
        who = {"namespace": "default", "name": "web"}
        part.sync(view(service))
        assert self.ask(host) == (200, {"service": who, "localEndpoints": 1}, "1")
        assert self.ask(host, "HEAD") == (200, None, "1")
        part.sync(view(replace(service, endpoints=())))
        assert self.ask(host, "POST") == (503, {"service": who, "localEndpoints": 0}, "0")
        part.sync(view())
        with pytest.raises(ConnectionRefusedError):
            self.ask(host)
        part.sync(view(service))
        assert self.ask(host)[0] == 200

    def test_a_client_that_says_nothing_keeps_no_other_waiting(self, host: Host, part: HealthChecks) -> None:
        part.sync(view(port(external_local=True, health_port=32000, node_port=30080)))
        with inside(host.pid):
            silent = [socket.create_connection(("127.0.0.1", 32000)) for _ in range(5)]
        began = time.monotonic()
        assert self.ask(host)[0] == 200 and time.monotonic() - began < 1
        for sock in silent:
            sock.close()

    def test_a_taken_port_is_said_the_others_are_served_and_it_is_taken_when_free(
        self, host: Host, part: HealthChecks
    ) -> None:
        with inside(host.pid):
            taken = socket.create_server(("0.0.0.0", 31999))
        first = port(external_local=True, health_port=31999, node_port=30081)
        second = replace(
            port(external_local=True, health_port=32000, node_port=30080), key="default/other:80/tcp", group=6
        )
        with pytest.raises(OSError, match="health check port 31999 of default/web: Address already in use"):
            part.sync(view(first, second))
        assert self.ask(host)[0] == 200
        taken.close()
        part.sync(view(first, second))


class TestAnnouncements:
    @pytest.fixture
    def wire(self, host: Host) -> Iterator[socket.socket]:
        """Everything that comes to the other end of the node's br-ex."""
        other = Host("other")
        links.veth("br-ex", host.pid, "far", other.pid, 1500)
        for pid, name in ((host.pid, "br-ex"), (other.pid, "far")):
            links.no_ipv6(pid)
            links.set_up(pid, name, True)
        # Frames are dropped until the kernel has seen to the carrier.
        until(lambda: "state UP" in run(host.pid, "ip", "link", "show", "br-ex"))
        with inside(other.pid):
            sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
        sock.settimeout(1)
        yield sock
        sock.close()
        other.end()

    def heard(self, wire: socket.socket, seconds: float) -> list[bytes]:
        frames, deadline = [], time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            wire.settimeout(left)
            try:
                frames.append(wire.recv(2048))
            except TimeoutError:
                break
        return [frame[:42] for frame in frames]

    def test_three_when_the_address_becomes_the_nodes_and_none_again(self, host: Host, wire: socket.socket) -> None:
        part = Announcements(host.pid, interval=0.05)
        service = port(load_balancer_ips=(BALANCED,))
        part.sync(view(service))
        assert self.heard(wire, 0.5) == [gratuitous(MAC, BALANCED)] * 3
        part.sync(view(service))
        assert self.heard(wire, 0.3) == []
        part.sync(view())  # it was another's for a while
        part.sync(view(service))
        assert len(self.heard(wire, 0.5)) == 3

    def test_another_nodes_address_is_not_announced(self, host: Host, wire: socket.socket) -> None:
        part = Announcements(host.pid, interval=0.05)
        elsewhere = port(load_balancer_ips=(BALANCED,), external_local=True, endpoints=(Endpoint(1, 80, "there"),))
        part.sync(view(elsewhere, peers=(THERE,)))
        assert self.heard(wire, 0.3) == []

    def test_it_stops_as_soon_as_the_address_is_anothers(self, host: Host, wire: socket.socket) -> None:
        part = Announcements(host.pid, interval=0.2)
        part.sync(view(port(load_balancer_ips=(BALANCED,))))
        part.sync(view())
        assert len(self.heard(wire, 0.7)) == 1

    def test_what_could_not_be_said_is_said_later(self, host: Host, wire: socket.socket) -> None:
        part = Announcements(host.pid, interval=0.05)
        links.set_up(host.pid, "br-ex", False)
        with pytest.raises(OSError, match="down"):
            part.sync(view(port(load_balancer_ips=(BALANCED,))))
        links.set_up(host.pid, "br-ex", True)
        until(lambda: "state UP" in run(host.pid, "ip", "link", "show", "br-ex"))
        part.sync(view(port(load_balancer_ips=(BALANCED,))))
        assert len(self.heard(wire, 0.5)) == 3


class TestNodePorts:
    @pytest.fixture
    def ruled(self, host: Host) -> Host:
        self.rules(host)
        return host

    def rules(self, host: Host) -> None:
        subnets = SimpleNamespace(
            pod_subnet=IPv4Network(LAB.pod_subnet), service_subnet=IPv4Network(LAB.service_subnet)
        )
        network = PodNetwork(1450, on_link=True)
        run(host.pid, "nft", "-f", "-", text=nodes._rules(cast("Any", subnets), network))

    def held(self, host: Host) -> set[str]:
        listed = json.loads(run(host.pid, "nft", "-j", "list", "set", "ip", "mininetes", "nodeports"))
        one = next(item["set"] for item in listed["nftables"] if "set" in item)
        return {f"{e['concat'][0]} {e['concat'][1]}" for e in one.get("elem", ())}

    def test_the_set_is_what_services_have(self, ruled: Host) -> None:
        part = NodePorts(ruled.pid)
        part.sync(view(port(node_port=30080)))
        assert self.held(ruled) == {"tcp 30080"}
        part.sync(view(port(node_port=30081)))
        assert self.held(ruled) == {"tcp 30081"}
        part.sync(view(port()))
        assert self.held(ruled) == set()

    def test_a_new_agent_clears_what_an_earlier_one_left(self, ruled: Host) -> None:
        NodePorts(ruled.pid).sync(view(port(node_port=30080)))
        NodePorts(ruled.pid).sync(view())
        assert self.held(ruled) == set()

    def test_rules_that_are_set_again_leave_the_set_alone(self, ruled: Host) -> None:
        NodePorts(ruled.pid).sync(view(port(node_port=30080)))
        before = run(ruled.pid, "nft", "list", "table", "ip", "mininetes")
        self.rules(ruled)
        assert run(ruled.pid, "nft", "list", "table", "ip", "mininetes") == before

    def test_without_the_nodes_table_it_says_so_and_tries_again(self, host: Host) -> None:
        part = NodePorts(host.pid)
        with pytest.raises(RuntimeError, match="nft"):
            part.sync(view(port(node_port=30080)))
        self.rules(host)
        part.sync(view(port(node_port=30080)))
        assert self.held(host) == {"tcp 30080"}


class TestProxyProcess:
    @pytest.fixture
    def gateway(self, host: Host) -> Host:
        self.make_gateway(host)
        return host

    def make_gateway(self, host: Host) -> None:
        links.veth("gw0", host.pid, "gw1", host.pid, 1500)
        links.set_up(host.pid, "gw0", True)

    @pytest.fixture
    def part(self, gateway: Host) -> Iterator[ProxyProcess]:
        made = ProxyProcess(gateway.pid)
        yield made
        made.close()

    @pytest.fixture
    def backend(self, gateway: Host) -> Iterator[socket.socket]:
        with inside(gateway.pid):
            made = socket.create_server(("127.0.1.1", 8080))
        made.settimeout(5)
        yield made
        made.close()

    def connects(self, host: Host, backend: socket.socket) -> bool:
        address, number = listener(5)
        with inside(host.pid):
            sock = socket.socket()
        sock.settimeout(2)
        with sock:
            try:
                sock.connect((str(IPv4Network(address).network_address), number))
            except ConnectionRefusedError:
                return False
            there, _ = backend.accept()
            with there:
                sock.sendall(b"x")
                return there.recv(10) == b"x"

    def pid(self, host: Host) -> int:
        """Of the proxy, by its listening socket."""
        text = run(host.pid, "ss", "-Hltnp")
        return int(text.partition("pid=")[2].partition(",")[0])

    def test_connections_are_taken_for_the_services_there_are(
        self, gateway: Host, part: ProxyProcess, backend: socket.socket
    ) -> None:
        part.sync(view(port()))
        assert self.connects(gateway, backend)
        part.sync(view())
        assert not self.connects(gateway, backend)

    def test_a_proxy_that_is_killed_comes_back_by_itself(
        self, gateway: Host, part: ProxyProcess, backend: socket.socket
    ) -> None:
        part.sync(view(port()))
        process = part._process
        assert process is not None
        time.sleep(1)  # it lives at least so long, in effect
        process.kill()
        until(lambda: part._process is not process and self.connects(gateway, backend))

    def test_it_ends_with_the_agent(self, gateway: Host, part: ProxyProcess) -> None:
        part.sync(view(port()))
        process = part._process
        assert process is not None and process.stdin is not None
        part._told = ""  # so that nobody starts it again
        process.stdin.close()
        assert process.wait(5) == 0

    def test_one_that_does_not_answer_is_killed_and_said(self, gateway: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("controllers.proxy.userspace._PATIENCE", 0.3)
        part = ProxyProcess(gateway.pid, ["sleep", "100"])
        with pytest.raises(RuntimeError, match="does not answer"):
            part.sync(view(port()))
        process = part._process
        assert process is not None and process.wait(5) == -signal.SIGKILL
        part.close()

    def test_what_it_cannot_listen_for_is_said_until_it_can(
        self, gateway: Host, part: ProxyProcess, backend: socket.socket
    ) -> None:
        part.sync(view())
        address, number = listener(5)
        text = str(IPv4Network(address).network_address)
        with inside(gateway.pid):
            taken = socket.create_server((text, number))
        with pytest.raises(RuntimeError, match=rf"1 of its ports: tcp {text}:{number}: Address already in use"):
            part.sync(view(port()))
        taken.close()
        part.sync(view(port()))
        assert self.connects(gateway, backend)

    def test_its_routes_are_set_again_when_the_gateway_is_new(self, gateway: Host, part: ProxyProcess) -> None:
        def routes() -> str:
            return run(gateway.pid, "ip", "route", "show", "table", "198")

        part.sync(view(port()))
        assert "default dev gw0" in routes()
        run(gateway.pid, "ip", "link", "del", "gw0")
        assert "default" not in run(gateway.pid, "ip", "route", "show", "table", "all")
        with pytest.raises(OSError, match="no interface"):
            part.sync(view(port()))
        self.make_gateway(gateway)
        part.sync(view(port()))
        assert "default dev gw0" in routes()
        assert run(gateway.pid, "ip", "rule").count("198.18.0.0/15") == 1
