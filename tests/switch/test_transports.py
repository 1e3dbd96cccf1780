"""What carries packets between nodes outside the switch, between two namespaces: the userspace tunnel, WireGuard."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from controllers.proxy import NodePart
from controllers.state import Lab, Node, NodeView
from controllers.transports.ipip import ipip
from controllers.transports.userspace import UserspaceTunnel, tell
from controllers.transports.wireguard import WireGuard
from topo import links
from topo.hosts import Host
from topo.system import has_device, inside

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from views import node

NODES = (node(1), node(2))
POD = "10.244.{}.7"
MTU = 1400
ETH_P_ALL = 3
pytestmark = pytest.mark.as_root
Make = Callable[[int, Path], NodePart]


def tunnel(*framing: str) -> Make:
    return lambda pid, run: UserspaceTunnel(pid, run, "tun0", MTU, framing)


def view(number: int, *peers: Node) -> NodeView:
    """Node `number` (from 0) with these peers."""
    return NodeView(Lab("10.244.0.0/16", "10.96.0.0/16", "", "ovs", 1500), NODES[number], (), peers, {})


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two nodes with a wire between them, each with the address of a pod."""
    made = [Host("one", inNamespace=True), Host("two", inNamespace=True)]
    links.veth("eth0", made[0].pid, "eth0", made[1].pid, 1500)
    for number, host in enumerate(made, start=1):
        links.configure(host.pid, "eth0", f"172.18.0.{number + 1}/24", loopback=True)
        links.configure(host.pid, "lo", f"{POD.format(number)}/32")
    yield made
    for host in made:
        host.end()


@pytest.fixture
def connect(hosts: list[Host], tmp_path: Path) -> Iterator[Callable[[Make], list[NodePart]]]:
    """Runs a part on both nodes."""
    made: list[NodePart] = []

    def start(make: Make) -> list[NodePart]:
        found = [make(host.pid, tmp_path / f"node-{number}") for number, host in enumerate(hosts, start=1)]
        made.extend(found)
        for number, part in enumerate(found):
            part.sync(view(number, NODES[1 - number]))
        return found

    yield start
    for part in made:
        part.close()


def ping(host: Host, size: int = 56, target: str = POD.format(2)) -> bool:
    """From the first node's pod to the second's. The bytes inside are "mn" over and over."""
    command = ["ping", "-c", "1", "-W", "2", "-M", "do", "-s", str(size), "-p", "6d6e", "-I", POD.format(1), target]
    return subprocess.run(["mnexec", "-a", str(host.pid), *command], capture_output=True).returncode == 0


def daemons(host: Host) -> list[int]:
    """Processes in the node's network beside the one that holds it."""
    net = Path(f"/proc/{host.pid}/ns/net").stat().st_ino
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_there = (process / "ns" / "net").stat().st_ino == net
        except OSError:
            continue
        if is_there and int(process.name) != host.pid:
            found.append(int(process.name))
    return found


WAYS = {
    "udp": (tunnel("udp", "8285"), False),
    "sealed": (tunnel("udp", "8285", "00" * 32), True),
    "ipip": (lambda pid, run: ipip(pid, run, MTU), False),
    "wireguard": (lambda pid, run: WireGuard(pid, run, "wg0", MTU), True),
}


@pytest.mark.parametrize("way", WAYS)
def test_packets_of_every_size_cross_and_are_wrapped(
    way: str, hosts: list[Host], connect: Callable[[Make], list[NodePart]]
) -> None:
    make, is_sealed = WAYS[way]
    if way == "wireguard" and not (shutil.which("wg") and shutil.which("wireguard-go")):
        pytest.skip("wireguard-tools and wireguard-go are not installed: make install")
    connect(make)
    # Not by tcpdump, which would become another user: as root of a capsule it cannot, and ends.
    with inside(hosts[1].pid), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) as wire:
        wire.bind(("eth0", ETH_P_ALL))
        for size in (0, 56, MTU - 28):
            assert ping(hosts[0], size), size
        assert not ping(hosts[0], MTU - 27)
        wire.setblocking(False)
        # 20 bytes of "mn": visible unless sealed.
        assert any(b"mn" * 10 in frame for frame in waiting(wire)) != is_sealed


def waiting(wire: socket.socket) -> Iterator[bytes]:
    """The frames that a socket holds; at least one."""
    yield wire.recv(2048)
    with suppress(BlockingIOError):
        while True:
            yield wire.recv(2048)


@pytest.mark.parametrize("way", ["udp", "wireguard"])
def test_the_next_agent_goes_on_with_what_runs_and_starts_what_died(
    way: str, hosts: list[Host], connect: Callable[[Make], list[NodePart]], tmp_path: Path
) -> None:
    if way == "wireguard" and has_device("wireguard"):
        pytest.skip("the kernel has WireGuard itself: no program runs")
    if way == "wireguard" and not (shutil.which("wg") and shutil.which("wireguard-go")):
        pytest.skip("wireguard-tools and wireguard-go are not installed: make install")
    make, _ = WAYS[way]
    for number, host in enumerate(hosts):
        as_an_agent_that_dies(make(host.pid, tmp_path / f"node-{number + 1}"), view(number, NODES[1 - number]))
    assert ping(hosts[0])
    before = daemons(hosts[0]), daemons(hosts[1])
    parts = connect(make)
    assert (daemons(hosts[0]), daemons(hosts[1])) == before and ping(hosts[0])
    (number,) = before[0]
    os.kill(number, 9)
    deadline = time.monotonic() + 30
    while len(found := daemons(hosts[0])) != 1 or number in found or not ping(hosts[0]):
        assert time.monotonic() < deadline, f"{len(found)} programs run, of which one should"
    for part in parts:
        part.close()
    assert all(not daemons(host) for host in hosts)


def as_an_agent_that_dies(part: NodePart, wanted: NodeView) -> None:
    """Do what the view asks in a process that ends then, and closes nothing."""
    child = os.fork()
    if child == 0:
        try:
            part.sync(wanted)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def test_a_peer_that_left_is_reached_no_more_and_cannot_send(
    hosts: list[Host], connect: Callable[[Make], list[NodePart]], tmp_path: Path
) -> None:
    parts = connect(tunnel("udp", "8285"))
    assert ping(hosts[0])
    parts[0].sync(view(0))
    assert "tun0" not in hosts[0].run("ip", "route")
    parts[0].sync(view(0, NODES[1]))
    assert ping(hosts[0])
    # The other program has no route to this node any more: it takes nothing from it.
    assert tell(tmp_path / "node-2" / "tun0.sock", {})
    assert not ping(hosts[0])
