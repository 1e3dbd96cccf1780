"""What a benchmark of pod networks puts on a route: streams, downloads, requests, each as one Run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from scenarios.measure import downloads, suite
from scenarios.measure.fileservers import Folder
from scenarios.measure.place import Place
from scenarios.measure.suite import Run

PORTS = suite.Ports()
# A shaped wire is offered so much more UDP than it carries: all of it would only busy the sender's CPU.
OFFERED = 1.1
UDP_HEADERS = 28  # IPv4 and UDP


@dataclass(frozen=True, slots=True)
class Route:
    """Two ends. address: what the client asks, the server's own or a Service's. mtu: of packets between them."""

    name: str
    client: Place
    server: Place
    address: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Setting:
    """The same for all. rate: bit/s that links carry, 0 where they are not limited; seconds: of latency runs."""

    rate: int
    seconds: float
    folder: Folder


@dataclass(frozen=True, slots=True)
class Kind:
    """One load. scale: from its unit to the one that is shown. service: whether it is also put on a Service; server: of
    fileservers, that must be there.
    """

    name: str
    option: str
    unit: str
    title: str
    once: Callable[[Route, Setting], Run]
    scale: float = 1
    service: bool = False
    server: str = ""


def _tcp(path: Route, setting: Setting) -> Run:
    del setting
    return suite.iperf3(path.client, path.server, "tcp", address=path.address, port=PORTS.iperf)


def _sctp(path: Route, setting: Setting) -> Run:
    del setting
    return suite.iperf3(path.client, path.server, "sctp", address=path.address, port=PORTS.iperf)


def _udp(path: Route, setting: Setting) -> Run:
    """Datagrams that fill the path's packets, as iperf3 itself would have them."""
    rate, length = int(setting.rate * OFFERED), path.mtu - UDP_HEADERS
    ends = path.client, path.server
    return suite.iperf3(*ends, "udp", address=path.address, port=PORTS.iperf, rate=rate, length=length)


def _rr(kind: str) -> Callable[[Route, Setting], Run]:
    def once(path: Route, setting: Setting) -> Run:
        ends = path.client, path.server
        return suite.request_response(*ends, kind, seconds=setting.seconds, address=path.address, port=PORTS.rr)

    return once


def _curl(kind: str) -> Callable[[Route, Setting], Run]:
    return lambda path, setting: downloads.by_curl(path.client, path.address, kind)


def _wrk(keep: bool) -> Callable[[Route, Setting], Run]:
    return lambda path, setting: downloads.by_wrk(path.client, path.address, keep=keep)


def _scp(path: Route, setting: Setting) -> Run:
    return downloads.by_scp(path.client, path.address, setting.folder)


TCP = Kind("tcp_throughput", "tcp", "bit/s", "TCP", _tcp, 1e6, service=True)
STREAMS = (
    TCP,
    Kind("udp_throughput", "udp", "bit/s", "UDP", _udp, 1e6, service=True),
    Kind("sctp_throughput", "sctp", "bit/s", "SCTP", _sctp, 1e6, service=True),
    Kind("http_download", "http", "bit/s", "HTTP", _curl("http"), 1e6, server="http"),
    Kind("ftp_download", "ftp", "bit/s", "FTP", _curl("ftp"), 1e6, server="ftp"),
    Kind("scp_download", "scp", "bit/s", "SCP", _scp, 1e6, server="scp"),
)
REQUESTS = (
    Kind("tcp_rr", "rr", "us", "RR (us)", _rr("tcp"), service=True),
    Kind("tcp_crr", "crr", "us", "CRR (us)", _rr("crr"), service=True),
    Kind("http_requests", "requests", "requests/s", "HTTP requests/s", _wrk(True), server="http"),
    Kind("http_connections", "connections", "connections/s", "connections/s", _wrk(False), server="http"),
)
KINDS = (*STREAMS, *REQUESTS)
