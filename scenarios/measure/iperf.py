"""TCP and UDP throughput by iperf3, and the parsing of its JSON output."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from typing import Literal

from scenarios.measure.place import Place, ProgramError, run, serving
from topo.cluster.errors import PlatformError

Protocol = Literal["tcp", "udp"]
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
        end = document["end"]
        received, cpu = end["sum_received"], end["cpu_utilization_percent"]
        udp = document["start"]["test_start"]["protocol"] == "UDP"
        return Throughput(
            bits_per_second=float(received["bits_per_second"]),
            cpu_client=float(cpu["host_total"]),
            cpu_server=float(cpu["remote_total"]),
            retransmits=None if udp else end["sum_sent"].get("retransmits"),
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
    if shutil.which("iperf3") is None:
        raise PlatformError("iperf3 is not installed", "apt-get install iperf3")
    # One test, then the server ends by itself; so it does when no client comes.
    listen = ["iperf3", "--server", "--one-off", "--bind", server.address, "--port", str(port)]
    listen += ["--forceflush", "--idle-timeout", str(seconds + 10)]
    send = ["iperf3", "--client", address or server.address, "--port", str(port), "--time", str(seconds), "--json"]
    send += ["--connect-timeout", str(CONNECT_MS), "--bitrate", str(rate)]
    if protocol == "udp":
        send += ["--udp", "--length", str(length)]
    with serving(server, listen, "Server listening"):
        # check=False: on failure the JSON has the reason.
        return parse(run(client, send, timeout=seconds + CONNECT_MS / 1000 + 5, check=False))
