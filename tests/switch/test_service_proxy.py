"""The userspace proxy: whose turn it is, what happens to dead endpoints, half-closed connections, datagrams."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from topo import links
from topo.hosts import Host

PROGRAM = Path(__file__).parents[2] / "controllers" / "programs" / "service_proxy.py"
pytestmark = pytest.mark.as_root

# Endpoints on loopback addresses: each says its own, and upper-cases what it heard once the client said that was all.
BACKENDS = """
import asyncio, sys
async def serve(reader, writer):
    heard = await reader.read()
    writer.write(writer.get_extra_info("sockname")[0].encode() + b" " + heard.upper())
    writer.write_eof()
class Udp(asyncio.DatagramProtocol):
    def connection_made(self, transport): self.transport = transport
    def datagram_received(self, data, client):
        self.transport.sendto(self.transport.get_extra_info("sockname")[0].encode() + b" " + data, client)
async def main():
    for n in (1, 2, 3):
        await asyncio.start_server(serve, f"127.0.1.{n}", 8080)
        await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=(f"127.0.1.{n}", 8080))
    print("ready", flush=True)
    await asyncio.sleep(3600)
asyncio.run(main())
"""
CLIENT = """
import json, socket, sys, time
kind, times, pause, *sources = sys.argv[1:]
answers = []
for i in range(int(times)):
    source = (sources[i % len(sources)], 0) if sources else ("127.0.0.1", 0)
    try:
        if kind == "udp":
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); sock.bind(source); sock.settimeout(2)
            for text in (b"a", b"b"):
                sock.sendto(text, ("198.18.0.1", 1024)); answers.append(sock.recv(100).decode())
        else:
            with socket.create_connection(("198.18.0.1", 1024), timeout=5, source_address=source) as sock:
                sock.sendall(b"hello"); sock.shutdown(socket.SHUT_WR)
                heard = b""
                while data := sock.recv(100): heard += data
                answers.append(heard.decode())
    except OSError as error:
        answers.append(type(error).__name__)
    time.sleep(float(pause))
print(json.dumps(answers))
"""


class Node:
    """A namespace with the proxy and its endpoints."""

    def __init__(self) -> None:
        self.host = Host("node")
        links.configure(self.host.pid, "lo", "127.0.0.1/8", loopback=True)
        links.own(self.host.pid, "198.18.0.0/15")
        self.backends = self.run("-c", BACKENDS)
        assert self.backends.stdout is not None and self.backends.stdout.readline() == "ready\n"
        self.proxy = self.run(str(PROGRAM))

    def run(self, *arguments: str) -> subprocess.Popen[str]:
        command = ["mnexec", "-a", str(self.host.pid), sys.executable, *arguments]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def tell(self, *endpoints: str, protocol: str = "tcp", affinity: int = 0, listen: str = "198.18.0.1") -> Any:
        assert self.proxy.stdin is not None and self.proxy.stdout is not None
        pairs = [[e, 8080] for e in endpoints]
        one = {"listen": [listen, 1024], "protocol": protocol, "endpoints": pairs, "affinity": affinity}
        self.proxy.stdin.write(json.dumps({"sets": [one]}) + "\n")
        self.proxy.stdin.flush()
        return json.loads(self.proxy.stdout.readline())["failed"]

    def ask(self, times: int, *sources: str, kind: str = "tcp", pause: float = 0) -> list[str]:
        client = self.run("-c", CLIENT, kind, str(times), str(pause), *sources)
        return list(json.loads(client.communicate(timeout=30)[0]))

    def end(self) -> None:
        for process in (self.proxy, self.backends):
            process.kill()
            process.communicate()
        self.host.end()


@pytest.fixture
def node() -> Iterator[Node]:
    made = Node()
    yield made
    made.end()


ONE, TWO, THREE = (f"127.0.1.{n}" for n in (1, 2, 3))


def test_connections_go_to_the_endpoints_exactly_in_turn_and_may_be_half_closed(node: Node) -> None:
    assert node.tell(ONE, TWO, THREE) == []
    assert node.ask(7) == [f"{e} HELLO" for e in (ONE, TWO, THREE, ONE, TWO, THREE, ONE)]


def test_an_endpoint_that_refuses_is_passed_over_and_none_at_all_refuses_the_client(node: Node) -> None:
    node.tell(ONE, "127.0.1.9", THREE)
    assert node.ask(4) == [f"{e} HELLO" for e in (ONE, THREE, ONE, THREE)]
    node.tell("127.0.1.9")
    assert set(node.ask(1)) == {"ConnectionResetError"}


def test_a_client_stays_with_its_endpoint_until_it_was_away_too_long_or_the_endpoint_goes(node: Node) -> None:
    node.tell(ONE, TWO, THREE, affinity=1)
    found = node.ask(6, "127.0.2.1", "127.0.2.2")
    assert len(set(found[::2])) == len(set(found[1::2])) == 1 and set(found[::2]) != set(found[1::2])
    assert len(set(node.ask(3, "127.0.2.1", pause=1.2))) > 1
    mine = node.ask(1, "127.0.2.1")[0].split()[0]
    node.tell(*({ONE, TWO, THREE} - {mine}), affinity=1)
    assert node.ask(1, "127.0.2.1")[0].split()[0] != mine


def test_datagrams_of_one_client_go_to_one_endpoint_and_clients_in_turn(node: Node) -> None:
    node.tell(ONE, TWO, protocol="udp")
    assert node.ask(2, kind="udp") == [f"{ONE} a", f"{ONE} b", f"{TWO} a", f"{TWO} b"]


def test_what_cannot_be_listened_on_is_said_and_the_rest_works(node: Node) -> None:
    assert node.tell(ONE, listen="192.0.2.1")[0][:3] == ["tcp", "192.0.2.1", 1024]
    assert node.tell(TWO) == [] and node.ask(1) == [f"{TWO} HELLO"]
