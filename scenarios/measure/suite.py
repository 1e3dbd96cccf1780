"""Measure one path with everything there is, and the baseline: one plain veth pair, measured in the same way."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from scenarios.measure.iperf import DATAGRAM, Protocol, throughput
from scenarios.measure.place import Place, ProgramError, end, run, script, serving
from scenarios.measure.stats import median, percentile, repeat_summary, summary
from scenarios.report.results import Measurement, Samples
from scenarios.report.tables import BASELINE, label
from topo.cluster.errors import PlatformError

COUNT = 5000  # transactions of one run at most: 50 of them above its p99
IPERF_SECONDS = 1  # the shortest iperf3 can
NO_ICMP = "not measured: a ClusterIP answers no ICMP"
DEVICE, ADDRESSES = "eth0", ("192.0.2.1", "192.0.2.2")  # RFC 5737, for documentation: on no real network


@dataclass(frozen=True, slots=True)
class Ports:
    """Where servers listen; a Service must have both, TCP and UDP, with port equal to targetPort."""

    iperf: int = 5201
    rr: int = 7001


@dataclass(frozen=True, slots=True)
class Run:
    """One repeat of one measurement. problem: why there are no values, or the last loss's reason."""

    values: tuple[float, ...] = ()
    lost: int = 0
    details: Mapping[str, float] = field(default_factory=dict)
    problem: str = ""


def ping(
    place: Place,
    address: str,
    *,
    seconds: float,
    count: int = COUNT,
    timeout: float = 1.0,
    size: int = 56,
    dont_fragment: bool = False,
) -> Run:
    """ICMP round-trip times in µs; details has the path's "mtu". size: as ping -s, the packet has 28 bytes more."""
    argv = script("ping.py", address, seconds, count, timeout, size, int(dont_fragment))
    document = json.loads(run(place, argv, timeout=_patience(seconds, timeout)))
    return Run(tuple(document["samples_us"]), document["lost"], {"mtu": document["mtu"]}, document["error"])


def request_response(
    client: Place,
    server: Place,
    kind: str,
    *,
    seconds: float,
    address: str | None = None,
    port: int = 7001,
    count: int = COUNT,
    timeout: float = 1.0,
) -> Run:
    """Times in µs of transactions of kind "tcp", "crr" or "udp" (rr.py) with a server that is started for them."""
    with serving(server, script("rr.py", "server", kind, server.address, port), "ready") as ready:
        argv = script("rr.py", "client", kind, address or server.address, ready.split()[1], seconds, count, timeout)
        document = json.loads(run(client, argv, timeout=_patience(seconds, timeout)))
    return Run(tuple(document["samples_us"]), document["lost"], problem=document["error"])


def paced(
    asking: Place, address: str, *, period: float, seconds: float, port: int = 7001, patience: float = 2.0
) -> Run:
    """Round trips in us of UDP questions that leave on time (paced.py), whose server (rr.py, "udp") runs already.

    details: "late_us", by how much the 99th percentile of them left late.
    """
    command = script("paced.py", address, port, period, seconds, patience)
    document = json.loads(run(asking, command, timeout=_patience(seconds, patience) + patience))
    late = percentile(document["late_us"], 99)
    return Run(tuple(document["samples_us"]), document["lost"], {"late_us": late})


def iperf3(
    client: Place,
    server: Place,
    protocol: Protocol,
    *,
    seconds: int = IPERF_SECONDS,
    address: str | None = None,
    port: int = 5201,
    rate: int = 0,
    length: int = DATAGRAM,
) -> Run:
    """One throughput in bit/s."""
    seen = throughput(client, server, seconds, protocol, address=address, port=port, rate=rate, length=length)
    details = {"cpu_client_percent": seen.cpu_client, "cpu_server_percent": seen.cpu_server}
    if seen.retransmits is not None:
        details["retransmits"] = seen.retransmits
    if seen.packets:
        details["loss_percent"] = 100 * (seen.lost or 0) / seen.packets
        details["jitter_ms"] = seen.jitter_ms or 0.0
    return Run((seen.bits_per_second,), seen.lost or 0, details)


def combine(name: str, path: str, unit: str, runs: Sequence[Run]) -> tuple[Measurement, list[Samples]]:
    """Make one measurement of its repeats."""
    summaries = tuple(summary(one.values) for one in runs if one.values)
    keys = dict.fromkeys(key for one in runs for key in one.details)
    note = ""
    if not summaries:
        note = "not measured: " + next((one.problem for one in runs if one.problem), "no transaction succeeded")
    measurement = Measurement(
        name=name,
        path=path,
        unit=unit,
        repeats=summaries,
        summary=repeat_summary(summaries) if summaries else None,
        lost=sum(one.lost for one in runs),
        details={key: median(one.details[key] for one in runs if key in one.details) for key in keys},
        note=note,
    )
    samples = [Samples(name, path, number, unit, one.values) for number, one in enumerate(runs, start=1) if one.values]
    return measurement, samples


def measure_path(
    name: str,
    client: Place,
    server: Place,
    *,
    address: str | None = None,
    ports: Ports = Ports(),
    repeats: int = 3,
    throughput_repeats: int | None = None,
    seconds: float = 0.15,
    progress: Callable[[str], None] = lambda _: None,
) -> tuple[list[Measurement], list[Samples]]:
    """Measure a path in every way. `name` is the path's ("other node").

    address: a ClusterIP to connect to, whose one endpoint is the server. seconds: of each latency run; a throughput
    run takes one second (IPERF_SECONDS), whatever this is. That is 2.8 s for a repeat, 0.7 s without throughput.
    throughput_repeats: how many of the repeats measure throughput too; None: all.
    A measurement that fails is noted with its reason, and the next is taken.

    The repeats go round (all kinds, then all again), so that a machine that is slow for a while disturbs one repeat
    of each kind and shows as spread, instead of disturbing all the repeats of one kind.
    """

    def rr(kind: str) -> Run:
        return request_response(client, server, kind, seconds=seconds, address=address, port=ports.rr)

    def iperf(protocol: Protocol) -> Run:
        return iperf3(client, server, protocol, address=address, port=ports.iperf)

    plan: dict[str, tuple[str, Callable[[], Run]]] = {
        "icmp_rtt": ("us", lambda: ping(client, server.address, seconds=seconds)),
        "tcp_rr": ("us", lambda: rr("tcp")),
        "tcp_crr": ("us", lambda: rr("crr")),
        "udp_rr": ("us", lambda: rr("udp")),
        "tcp_throughput": ("bit/s", lambda: iperf("tcp")),
        "udp_throughput": ("bit/s", lambda: iperf("udp")),
    }
    taken: dict[str, list[Run]] = {kind: [] for kind in plan}
    for repeat in range(1, repeats + 1):
        for kind, (unit, once) in plan.items():
            if kind == "icmp_rtt" and address is not None:
                continue
            if unit == "bit/s" and throughput_repeats is not None and repeat > throughput_repeats:
                continue
            progress(f"{name}: {label(kind)} {repeat}/{repeats}")
            try:
                taken[kind].append(once())
            except ProgramError as problem:
                taken[kind].append(Run(problem=str(problem)))
    measurements, samples = [], []
    for kind, (unit, _) in plan.items():
        if not taken[kind]:
            note = NO_ICMP if kind == "icmp_rtt" else "not measured: not asked for"
            measurements.append(Measurement(kind, name, unit, note=note))
            continue
        measurement, rows = combine(kind, name, unit, taken[kind])
        measurements.append(measurement)
        samples += rows
    return measurements, samples


def baseline(
    *,
    ports: Ports = Ports(),
    repeats: int = 3,
    throughput_repeats: int | None = None,
    seconds: float = 0.15,
    progress: Callable[[str], None] = lambda _: None,
    tx_off: bool = False,
) -> tuple[list[Measurement], list[Samples], str]:
    """Measure a plain veth pair between two namespaces of its own. The text says how its offloads were set.

    tx_off: as baseline_places; set it as the lab has it, or the comparison is of offloads and not of paths.
    """
    with baseline_places(tx_off=tx_off) as (client, server):
        found, samples = measure_path(
            BASELINE,
            client,
            server,
            ports=ports,
            repeats=repeats,
            throughput_repeats=throughput_repeats,
            seconds=seconds,
            progress=progress,
        )
    state = "off, and with it segmentation offload" if tx_off else "on (the kernel's default)"
    return found, samples, f"Baseline: one veth pair between two namespaces, tx checksum offload {state}."


@contextlib.contextmanager
def baseline_places(*, tx_off: bool = False) -> Iterator[tuple[Place, Place]]:
    """Two places joined by one veth pair; gone after.

    tx_off: turn transmit checksum offload off at both ends, as userspace Open vSwitch needs it of its veths: it
    would get packets whose checksum nobody fills in.
    """
    with contextlib.ExitStack() as stack:
        client, server = (
            Place(f"{BASELINE}/{end_name}", stack.enter_context(namespace()), address)
            for end_name, address in zip(("client", "server"), ADDRESSES, strict=True)
        )
        # Made from inside the first namespace, straight into the second: nothing is seen outside of the two.
        _set_up(client, f"ip link add name {DEVICE} type veth peer name {DEVICE} netns {server.pid}")
        for place in (client, server):
            _set_up(place, f"ip address add {place.address}/30 dev {DEVICE}")
            if tx_off:
                if shutil.which("ethtool") is None:
                    raise PlatformError("ethtool is not installed", "apt-get install ethtool")
                _set_up(place, f"ethtool -K {DEVICE} tx off")
            _set_up(place, "ip link set dev lo up")
            _set_up(place, f"ip link set dev {DEVICE} up")
        yield client, server


@contextlib.contextmanager
def namespace() -> Iterator[int]:
    """A network namespace, held by the pid that is yielded.

    The holder is cat: it ends when its standard input does, so even if this process is killed outright. Its echo
    tells that unshare(1) has made the namespace and become cat.
    """
    holder = subprocess.Popen(
        ["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        assert holder.stdin is not None
        assert holder.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            holder.stdin.write(b"ready\n")
            holder.stdin.flush()
        if (said := holder.stdout.readline()) != b"ready\n":
            raise PlatformError(f"no network namespace can be made ({said.decode().strip()})", "run as root")
        yield holder.pid
    finally:
        end(holder)


def _set_up(place: Place, command: str) -> None:
    run(place, command.split(), timeout=10)


def _patience(seconds: float, timeout: float) -> float:
    """How long a client may take: its start, warm-up, duration, and time-outs at the end of each."""
    return 1.1 * seconds + 4 * timeout + 5
