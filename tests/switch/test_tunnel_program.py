"""The userspace tunnel carries packets between two namespaces: in UDP, sealed, and in IP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from topo import links
from topo.hosts import Host

PROGRAM = Path(__file__).parents[2] / "controllers" / "programs" / "tunnel.py"
KEY = "00" * 32
pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="not root: namespaces and TUN devices cannot be made")


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Two namespaces with a wire between them."""
    made = [Host("one", inNamespace=True), Host("two", inNamespace=True)]
    links.veth("eth0", made[0].pid, "eth0", made[1].pid, 1500)
    for number, host in enumerate(made, start=1):
        links.configure(host.pid, "eth0", f"172.18.0.{number}/24", loopback=True)
    yield made
    for host in made:
        host.end()


def start(host: Host, number: int, *kind: str) -> subprocess.Popen[str]:
    """The program on host `number`, whose pods are 10.244.NUMBER.0/24; the other's pods behind it."""
    other = 3 - number
    command = ["mnexec", "-a", str(host.pid), sys.executable, str(PROGRAM), "tun0", f"172.18.0.{number}", *kind]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None and process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.stdin.write(json.dumps({"routes": {f"10.244.{other}.0/24": f"172.18.0.{other}"}}) + "\n")
    process.stdin.flush()
    routes = [(f"10.244.{other}.0/24", "", "")]
    links.configure(host.pid, "tun0", f"10.244.{number}.1/32", routes, mtu=1400)
    return process


@pytest.mark.parametrize("kind", [("udp", "8285"), ("udp", "8285", KEY), ("ipip",)], ids=["udp", "sealed", "ipip"])
def test_packets_of_every_size_cross_and_are_wrapped(hosts: list[Host], kind: tuple[str, ...]) -> None:
    programs = [start(host, number, *kind) for number, host in enumerate(hosts, start=1)]
    capture = subprocess.Popen(
        ["mnexec", "-a", str(hosts[1].pid), "tcpdump", "-ni", "eth0", "--immediate-mode", "-w", "-", "-U"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert capture.stderr is not None and capture.stdout is not None
        while b"listening" not in capture.stderr.readline():
            pass
        for size in (0, 56, 1372):
            pattern = "6d6e" if size else "00"
            said = hosts[0].run(
                "ping", "-c", "2", "-i", "0.01", "-W", "2", "-s", str(size), "-p", pattern, "10.244.2.1"
            )
            assert "2 received" in said
        time.sleep(0.2)
        capture.terminate()
        seen = capture.stdout.read()
        # 20 bytes of "mn": visible unless sealed.
        assert (b"mn" * 10 in seen) == (len(kind) < 3)
    finally:
        for process in (*programs, capture):
            process.kill()
            process.communicate()


def test_what_the_other_side_has_no_route_for_is_dropped(hosts: list[Host]) -> None:
    programs = [start(host, number, "udp", "8285") for number, host in enumerate(hosts, start=1)]
    try:
        assert programs[1].stdin is not None
        programs[1].stdin.write(json.dumps({"routes": {}}) + "\n")
        programs[1].stdin.flush()
        time.sleep(0.1)
        done = subprocess.run(
            ["mnexec", "-a", str(hosts[0].pid), "ping", "-c", "1", "-W", "1", "10.244.2.1"],
            capture_output=True,
            text=True,
        )
        assert "0 received" in done.stdout
    finally:
        for process in programs:
            process.kill()
            process.communicate()
