"""TCP, UDP and SCTP throughput by iperf3, and the parsing of its JSON output."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from scenarios.measure.place import Place, ProgramError, end, run, serving, start
from topo.cluster.errors import PlatformError

Protocol = Literal["tcp", "udp", "sctp"]
# UDP payload. iperf3 would take what the client's device holds, so paths would differ by their datagrams' size (32 KiB
# on loopback); this fits an overlay's MTU (VXLAN leaves 1450 of 1500, less 28 bytes of headers).
DATAGRAM = 1400
CONNECT_MS = 3000  # An unreachable server is told soon, not after the kernel's two minutes of SYNs.


@dataclass(frozen=True, slots=True)
class Throughput:
    """One iperf3 run.

    bits_per_second: payload that arrived, by the receiver's clock. retransmits: TCP only. lost, packets, jitter_ms:
    UDP only. cpu_client, cpu_server: percent of one CPU, of iperf3's own two processes.
    """

    bits_per_second: float
    cpu_client: float
    cpu_server: float
    retransmits: int | None = None
    lost: int | None = None
    packets: int | None = None
    jitter_ms: float | None = None


def parse(text: str) -> Throughput:
    """Read what `iperf3 --json` printed at the client; ProgramError with iperf3's own words if it failed."""
    try:
        document = json.loads(text)
    except ValueError:
        raise ProgramError(f"iperf3: no JSON but {text.strip()[-200:]!r}") from None
    if "error" in document:
        raise ProgramError(f"iperf3: {document['error']}")
    try:
        ending = document["end"]
        received, cpu = ending["sum_received"], ending["cpu_utilization_percent"]
        udp = document["start"]["test_start"]["protocol"] == "UDP"
        return Throughput(
            bits_per_second=float(received["bits_per_second"]),
            cpu_client=float(cpu["host_total"]),
            cpu_server=float(cpu["remote_total"]),
            retransmits=None if udp else ending["sum_sent"].get("retransmits"),
            lost=received["lost_packets"] if udp else None,
            packets=received["packets"] if udp else None,
            jitter_ms=received["jitter_ms"] if udp else None,
        )
    except KeyError as missing:
        raise ProgramError(f"iperf3: its JSON has no {missing}; this reads the format of 3.12") from None


def throughput(
    client: Place,
    server: Place,
    seconds: int,
    protocol: Protocol,
    *,
    address: str | None = None,
    port: int = 5201,
    rate: int = 0,
    length: int = DATAGRAM,
) -> Throughput:
    """Send from client to server for so many whole seconds (iperf3 takes no fractions).

    address: where the client connects to, if not the server's own (a ClusterIP with this one endpoint).
    rate: bits/s to send; 0: as fast as it goes, which for UDP means loss wherever the path is slower than the sender.
    length: UDP payload bytes of a datagram.
    """
    listen, send = _commands(server, seconds, protocol, address=address, port=port)
    send += ["--bitrate", str(rate), *(["--length", str(length)] if protocol == "udp" else [])]
    with serving(server, listen, "Server listening"):
        # check=False: on failure the JSON has the reason.
        return parse(run(client, send, timeout=seconds + CONNECT_MS / 1000 + 5, check=False))


@contextlib.contextmanager
def beside(
    client: Place, server: Place, seconds: int, protocol: Protocol, *, port: int, rate: int = 0, streams: int = 1
) -> Iterator[Callable[[], Throughput]]:
    """Send for so many whole seconds while the block runs; what is yielded waits for the end of it.

    rate: bit/s of each stream; 0: as fast as it goes. streams: that many connections.
    """
    listen, send = _commands(server, seconds, protocol, address=None, port=port)
    send += ["--bitrate", str(rate), "--parallel", str(streams)]
    send += ["--length", str(DATAGRAM)] if protocol == "udp" else []
    with serving(server, listen, "Server listening"):
        sender = start(client, send)

        def ended() -> Throughput:
            try:
                said = sender.communicate(timeout=seconds + CONNECT_MS / 1000 + 10)[0].decode()
                return parse(said[said.find("{") :])  # after warnings, which share its pipe
            except subprocess.TimeoutExpired:
                raise ProgramError(f"iperf3 in {client.name}: no end long after its {seconds} s") from None

        try:
            yield ended
        finally:
            end(sender)


def _commands(
    server: Place, seconds: int, protocol: Protocol, *, address: str | None, port: int
) -> tuple[list[str], list[str]]:
    """The server's and the client's, the latter without its rate."""
    if shutil.which("iperf3") is None:
        raise PlatformError("iperf3 is not installed", "apt-get install iperf3")
    # One test, then the server ends by itself; so it does when no client comes.
    listen = ["iperf3", "--server", "--one-off", "--bind", server.address, "--port", str(port)]
    listen += ["--forceflush", "--idle-timeout", str(seconds + 10)]
    send = ["iperf3", "--client", address or server.address, "--port", str(port), "--time", str(seconds), "--json"]
    protocols: dict[Protocol, list[str]] = {"tcp": [], "udp": ["--udp"], "sctp": ["--sctp"]}
    send += ["--connect-timeout", str(CONNECT_MS), *protocols[protocol]]
    return listen, send
