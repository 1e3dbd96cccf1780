"""mtu: what the pods' MTU does between nodes, right, too large and too small, and on a fabric of jumbo frames."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from scenarios import Context, Outcome, Variant
from scenarios.lab import idle, networks, options
from scenarios.measure import bulk, devices, suite, wire
from scenarios.measure.place import Place, run, script, serving
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Samples, TextTable
from topo import fabric, manifests
from topo.cluster.errors import InputError
from topo.config import FabricConfig, LabConfig

# IP 20 and ICMP 8 of an echo. Bytes by which the wrong MTUs are wrong, and the jumbo fabric's MTU.
HEADERS, TOO_MUCH, TOO_SMALL, JUMBO = 28, 100, 700, 9000
# Seconds that a TCP connection sends, also one that first has to find out, and until an echo is lost.
SENDING, FINDING, PATIENCE = 1.0, 8.0, 0.3
PORT = 7070
RIGHT, LARGE, SMALL, ON_JUMBO = CASES = ("right", "too large", "too small", "jumbo")
# What a sender does about packets that are too large for the path: wait for ICMP, which no switch sends; or find out by
# itself (RFC 4821; net.ipv4.tcp_mtu_probing 1: once it suspects a black hole).
DISCOVERY = {"ICMP only": "0", "probing": "1"}
COLUMNS = (
    *("CNI", "MTU is", "fabric", "pods", "room", "largest echo", "path MTU discovery", "small messages"),
    *("TCP Mbit/s", "stalled (s)", "bytes on the wire per byte"),
)


@dataclass(frozen=True, slots=True)
class Bulk:
    """What one way of sending came to. wire: bytes on the sending node's wire for each that TCP sent."""

    discovery: str
    small: bool
    arrived: int
    rate: float
    stalled: float
    wire: float


class Mtu:
    """The scenario object."""

    name = "mtu"
    description = "the pods' MTU right, too large, too small and on jumbo frames: what crosses, stalls and costs"
    options: Mapping[str, str] = {"cnis": "flannel vxlan,flannel host-gw", "cases": "all"}

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """A lab for each case of each CNI."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", "mtu measures between two nodes", "2 or more")
        text = "".join(idle.pod(name, node) for name, node in zip(("one", "two"), names[-2:], strict=True))
        objects = manifests.load_text(text, self.name).objects
        found = []
        for name, lab in networks.chosen(config, "cnis").items():
            says = networks.traits(lab)
            if not says.crosses:
                problem = f"pods of {name} do not reach those of other nodes"
                raise InputError(f"--option cnis={config.scenario['cnis']}", problem, "CNIs whose pods do")
            # More than the fabric has room for, whatever the CNI leaves unused.
            large = fabric.mtu(lab.fabric) - says.overhead + TOO_MUCH
            cases = {
                RIGHT: lab,
                LARGE: replace(lab, cni_options={**lab.cni_options, "mtu": large}),
                SMALL: replace(lab, cni_options={**lab.cni_options, "mtu": TOO_SMALL}),
                ON_JUMBO: replace(lab, fabric=_jumbo(lab.fabric)),
            }
            wanted = options.names(config.scenario, "cases", CASES)
            found += [Variant(f"{name}: {case}", cases[case], objects) for case in wanted]
        return found

    def run(self, context: Context) -> Outcome:
        """The largest packet that crosses, and what TCP makes of it."""
        lab, one, two = context.lab, context.place("default/one"), context.place("default/two")
        here, there = (lab.kubelet.sandboxes[f"default/{name}"].node for name in ("one", "two"))
        says = networks.traits(lab.config)
        size, pods = fabric.mtu(lab.config.fabric), lab.parts.network.mtu
        room = size - wire.added(says, here.subnet == there.subnet)[1]
        context.progress("the largest packet")
        largest = _largest(one, two, pods)
        failed = [] if largest == min(pods, room) else [f"the largest echo has {largest} bytes, not {min(pods, room)}"]
        rows, measurements, samples = [], list[Measurement](), list[Samples]()
        too_large = pods > room
        for discovery, setting in DISCOVERY.items():
            if setting != "0" and not too_large:
                continue  # there is nothing to discover
            for place in (one, two):
                run(place, ["sysctl", "-qw", f"net.ipv4.tcp_mtu_probing={setting}"], 5)
            seconds = FINDING if too_large else SENDING
            taken = []
            for repeat in range(1, context.repeats + 1):
                context.progress(f"TCP, {discovery} {repeat}/{context.repeats}")
                taken.append(_bulk(context, discovery, one, two, seconds))
            failed += _unlike(taken, stalls=too_large and setting == "0")
            path = discovery if too_large else "tcp"
            runs = [suite.Run((each.rate,)) for each in taken]
            measurement, values = suite.combine("tcp_throughput", path, "bit/s", runs)
            measurements.append(measurement)
            samples += values
            median = sorted(taken, key=lambda each: each.rate)[len(taken) // 2]
            shown = discovery if too_large else "-"
            figures = (
                f"{median.rate / 1e6:.1f}",
                f"{median.stalled:.2f}",
                f"{median.wire:.3f}" if median.wire else "-",
            )
            words = ("yes" if median.small else "no", *figures)
            rows.append((str(size), str(pods), str(room), str(largest), shown, *words))
        return Outcome(measurements, samples, tables=(TextTable("", COLUMNS[2:], tuple(rows)),), failed=failed)

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """All rows, throughput and cost by MTU, and whether smaller packets cost more."""
        rows: list[tuple[str, ...]] = []
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        costs: dict[str, dict[int, float]] = {}
        rates: dict[str, dict[int, float]] = {}
        for name, outcome in outcomes.items():
            cni, _, case = name.partition(": ")
            for row in outcome.tables[0].rows:
                rows.append((cni, case, *row))
                if case != LARGE:
                    costs.setdefault(cni, {})[int(row[1])] = float(row[8])
                    rates.setdefault(cni, {})[int(row[1])] = float(row[6])
            measurements += [replace(m, path=f"{name}, {m.path}") for m in outcome.measurements]
            samples += [replace(s, path=f"{name}, {s.path}") for s in outcome.samples]
        for name, why in missing.items():
            cni, _, case = name.partition(": ")
            rows.append((cni, case, f"left out: {why}", *[""] * (len(COLUMNS) - 3)))
        failed = [f"{name}: {text}" for name, outcome in outcomes.items() for text in outcome.failed]
        for cni, by_mtu in costs.items():
            found = [by_mtu[mtu] for mtu in sorted(by_mtu)]
            if found != sorted(found, reverse=True):
                failed.append(f"{cni}: larger packets cost more bytes on the wire: {by_mtu}")
        notes = [
            "room: the fabric's MTU less what the CNI adds. largest echo: with Don't Fragment, in bytes of IP packet.",
            "ICMP only: the sender waits to be told that a packet is too large, and no switch tells it. "
            "probing: it tries smaller ones once it suspects a black hole (RFC 4821).",
            "bytes on the wire: with all headers, at the sending node, for each byte that TCP sent or sent again.",
            f"stalled: until the first {bulk.STARTED >> 10} KiB of a connection had arrived.",
            *(f"{name} is left out: {why}" for name, why in missing.items()),
        ]
        title = "What the pods' MTU does between two nodes"
        curves = tuple(
            Curves(text, "MTU of the pods (bytes)", y, {cni: tuple(sorted(of.items())) for cni, of in found.items()})
            for text, y, found in (
                ("TCP throughput by MTU", "Mbit/s", rates),
                ("Bytes on the wire by MTU", "bytes for each that TCP sends", costs),
            )
            if found
        )
        return Outcome(measurements, samples, notes, (TextTable(title, COLUMNS, tuple(rows)),), failed, curves)


SCENARIO = Mtu()


def _jumbo(config: FabricConfig) -> FabricConfig:
    links = {name: replace(link, mtu=JUMBO) for name, link in config.links.items()}
    return replace(config, link=replace(config.link, mtu=JUMBO), links=links)


def _largest(one: Place, two: Place, most: int) -> int:
    """Bytes of the largest packet up to `most` that crosses with Don't Fragment; 0 if none does."""

    def crosses(size: int) -> bool:
        size -= HEADERS
        echo = suite.ping(one, two.address, seconds=1e-6, count=1, timeout=PATIENCE, size=size, dont_fragment=True)
        return bool(echo.values)

    if crosses(most):
        return most
    low, high = 0, most - 1
    while low < high:
        middle = (low + high + 1) // 2
        if middle >= HEADERS and not crosses(middle):
            high = middle - 1
        else:
            low = middle
    return low if low >= HEADERS else 0


def _bulk(context: Context, discovery: str, one: Place, two: Place, seconds: float) -> Bulk:
    machine = context.lab.kubelet.sandboxes["default/one"].node.machine
    with serving(two, script("bulk.py", "server", two.address, PORT), "ready"):
        before = devices.sent(machine, "eth0")
        command = script("bulk.py", "client", two.address, PORT, seconds)
        found = json.loads(run(one, command, seconds + 10))
        used = devices.sent(machine, "eth0") - before
    arrived = found["arrived"]
    small = found["small_ms"] is not None
    return Bulk(
        discovery, small, arrived, arrived * 8 / seconds, found["stalled"], used / found["sent"] if arrived else 0.0
    )


def _unlike(taken: Sequence[Bulk], stalls: bool) -> list[str]:
    """What is not as expected of these, which were one after the other."""
    found = set()
    for one in taken:
        if not one.small:
            found.add("not even small messages cross")
        if stalls and one.arrived >= bulk.STARTED:
            found.add(f"TCP gets through a black hole without finding out ({one.arrived} bytes)")
        if not stalls and one.arrived < bulk.STARTED:
            found.add(f"TCP with {one.discovery} stalls: {one.arrived} bytes arrived")
    return sorted(found)
