"""proxy-scaling: what 10 to 10,000 Services of 10 endpoints cost every proxy mode, to program and to connect through.

The Services are synthetic but for PROBES, whose endpoint is a real server; these come in the middle by name, so that a
mode that looks through its rules one by one looks through half of them. Ten endpoints each, as in the published figures
("Comparing kube-proxy modes: iptables or IPVS?", 2019).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Network

from scenarios import Context, Outcome, Variant
from scenarios.lab.options import names, numbers
from scenarios.measure import suite, usage
from scenarios.measure.costs import groups
from scenarios.measure.place import Place, ProgramError, run, script
from scenarios.proxy_modes import MODES
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.config import LabConfig
from topo.lab import Lab

PORTS = suite.Ports()
ENDPOINTS, PROBES, CHANGES, WEB = 10, 10, 5, 8080
# Where in the service subnet the addresses begin of Services that are added, that are asked, and that are only there.
_ADDED, _PROBE, _SYNTHETIC = 256, 512, 1024
# Seconds that a mode may take to program all of a size.
PATIENCE = 600.0
# Response time of a new connection, ms, at so many Services (the figures named above, read off a chart).
PUBLISHED = {10: 1.37, 100: 1.37, 500: 1.42, 1000: 1.47, 5000: 2.40, 10000: 4.30}
_PODS = """
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{nodeName: {here}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec: {{nodeName: {there}, containers: [{{name: web, image: none, ports: [{{containerPort: 8080}}]}}]}}
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure that is taken at each size. scale: from its unit to the one that is shown."""

    name: str
    unit: str
    title: str
    scale: float = 1


COLUMNS = (
    Column("program_all", "s", "all programmed (s)"),
    Column("add_service", "s", "one Service more (ms)", 1e-3),
    Column("change_endpoint", "s", "one endpoint more or less (ms)", 1e-3),
    Column("first_connection", "us", "first connection (us)"),
    Column("tcp_crr", "us", "new connection (us)"),
    Column("tcp_rr", "us", "RR on a connection (us)"),
    Column("programming_cpu", "CPU s", "CPU to program all (s)"),
    Column("memory", "MiB", "memory (MiB)"),
)


class ProxyScaling:
    """The scenario object."""

    name = "proxy-scaling"
    description = "every proxy mode with 10 to 10,000 Services: time to program, to change one, to connect; CPU, memory"
    options = {"sizes": "10,100,500,1000,5000,10000", "modes": "all"}

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """One lab a mode; everything else is the same."""
        nodes = [node.name for node in config.nodes]
        if len(nodes) < 2:
            raise InputError("--nodes", f"{self.name} measures between two nodes", "2 or more")
        sizes, room = numbers(config.scenario, "sizes", PROBES), config.service_subnet.num_addresses - _SYNTHETIC
        if max(sizes) + PROBES > room:
            raise InputError("networking.serviceSubnet", f"has no room for {max(sizes)} Services", "a /16, say")
        objects = manifests.load_text(_PODS.format(here=nodes[-2], there=nodes[-1]), self.name).objects
        chosen = {mode: MODES[mode] for mode in names(config.scenario, "modes", MODES)}
        return [
            Variant(name, replace(config, proxy_mode=mode, proxy_options=options, dns=False), objects)
            for name, (mode, options) in chosen.items()
        ]

    def run(self, context: Context) -> Outcome:
        """Each size from nothing, so that none profits from the one before."""
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for size in numbers(context.lab.config.scenario, "sizes", PROBES):
            for column, one in _at_size(context, size):
                measurement, rows = suite.combine(column.name, str(size), column.unit, one)
                measurements.append(measurement)
                samples += rows
        return Outcome(measurements, samples)

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """A table and a picture for each figure, modes side by side."""
        found = {mode: {(m.name, m.path): m for m in outcome.measurements} for mode, outcome in outcomes.items()}
        sizes = list(dict.fromkeys(m.path for o in outcomes.values() for m in o.measurements))
        shown = []
        for column in COLUMNS:
            rows = [(size, *(_cell(of.get((column.name, size)), column) for of in found.values())) for size in sizes]
            shown.append(TextTable(column.title, ("Services", *found), tuple(rows)))
        shown.append(_against_published(found, sizes))
        notes = [f"{mode} was not measured: {why}" for mode, why in missing.items()]
        notes.append(
            f"{ENDPOINTS} endpoints each. Programmed: from the first object's creation, in a lab without Services, "
            "until every node has confirmed them. A first connection goes through a Service that nobody asked before."
        )
        measurements = [
            replace(m, path=f"{mode}: {m.path}") for mode, outcome in outcomes.items() for m in outcome.measurements
        ]
        samples = [replace(s, path=f"{mode}: {s.path}") for mode, outcome in outcomes.items() for s in outcome.samples]
        return Outcome(measurements, samples, notes, shown, curves=[_curves(column, found) for column in COLUMNS])


SCENARIO = ProxyScaling()


def _at_size(context: Context, size: int) -> Iterator[tuple[Column, list[suite.Run]]]:
    """Every column's runs with so many Services. Whatever a mode cannot do in time is noted, not measured."""
    lab, client, server = context.lab, context.place("default/client"), context.place("default/server")
    _clear(lab)
    context.progress(f"{size} Services: programming")
    before, begun = usage.read(groups(lab)), time.monotonic()
    for thing in services(size, lab.config.service_subnet, server.address):
        lab.store.create(thing)
    lab.confirm(PATIENCE)
    took = {"program_all": [time.monotonic() - begun]}
    spent = usage.difference(before, usage.read(groups(lab)))
    took["programming_cpu"] = [sum(cost.cpu_seconds for cost in spent.groups.values())]
    took["memory"] = [sum(cost.memory for cost in spent.groups.values()) / (1 << 20)]
    subnet = lab.config.service_subnet
    context.progress(f"{size} Services: connecting")
    first = [_first(client, _probe(subnet, number)) for number in range(1, PROBES)]
    context.progress(f"{size} Services: changing one")
    took["add_service"] = [_timed(lab, _add, number) for number in range(CHANGES)]
    took["change_endpoint"] = [_timed(lab, _change, number) for number in range(CHANGES)]
    runs = {name: [suite.Run((value,)) for value in values] for name, values in took.items()}
    runs["first_connection"] = first
    context.progress(f"{size} Services: latency")
    for kind, name in (("crr", "tcp_crr"), ("tcp", "tcp_rr")):
        runs[name] = [_latency(context, client, server, kind, _probe(subnet, 0)) for _ in range(context.repeats)]
    for column in COLUMNS:
        yield column, runs[column.name]


def services(size: int, subnet: IPv4Network, server: str) -> Iterator[Object]:
    """So many Services with their slices; PROBES of them, in the middle by name and address, lead to the server.

    The first probe has the port of the request and response server, the others that of the pod's own.
    """
    before = (size - PROBES) // 2
    for number in range(size):
        probe = number - before
        if 0 <= probe < PROBES:
            yield from _service(f"probe-{probe}", _probe(subnet, probe), PORTS.rr if probe == 0 else WEB, [server])
        else:
            ends = [f"10.243.{number % 250}.{n + 1}" for n in range(ENDPOINTS)]
            name = f"{'a' if probe < 0 else 'z'}-{number:05}"
            yield from _service(name, str(subnet[_SYNTHETIC + number + (PROBES if probe >= 0 else 0)]), WEB, ends)


def _probe(subnet: IPv4Network, number: int) -> str:
    return str(subnet[_PROBE + number])


def _service(name: str, address: str, port: int, ends: Sequence[str]) -> Iterator[Object]:
    meta = {"namespace": "default"}
    ports = [{"port": port, "targetPort": port, "protocol": "TCP"}]
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**meta, "name": name},
        "spec": {"type": "ClusterIP", "clusterIP": address, "ports": ports},
    }
    yield {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**meta, "name": f"{name}-x", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"port": port, "protocol": "TCP"}],
        "endpoints": [_endpoint(end) for end in ends],
    }


def _endpoint(address: str) -> Object:
    return {"addresses": [address], "conditions": {"ready": True}}


def _clear(lab: Lab) -> None:
    for kind in ("Service", "EndpointSlice"):
        for thing in lab.store.list(kind, "default"):
            lab.store.delete(kind, "default", thing["metadata"]["name"])
    lab.confirm(PATIENCE)


def _add(lab: Lab, number: int) -> None:
    address = str(lab.config.service_subnet[_ADDED + number])
    for thing in _service(f"b-added-{number}", address, WEB, ["10.243.250.1"]):
        lab.store.create(thing)


def _change(lab: Lab, number: int) -> None:
    """One endpoint comes, the next time it goes."""

    def change(part: Object) -> None:
        part["endpoints"] = (
            [*part["endpoints"], _endpoint("10.243.251.1")] if number % 2 == 0 else part["endpoints"][:-1]
        )

    lab.store.update("EndpointSlice", "default", "probe-1-x", change)


def _timed(lab: Lab, act: Callable[[Lab, int], None], number: int) -> float:
    begun = time.monotonic()
    act(lab, number)
    lab.confirm(PATIENCE)
    return time.monotonic() - begun


def _first(client: Place, address: str) -> suite.Run:
    """One connection, request and answer, in microseconds."""
    asked = json.loads(run(client, script("callers.py", 1, "-", address, WEB), 30))
    return suite.Run(tuple(asked["us"]), lost=sum(asked["errors"].values()))


def _latency(context: Context, client: Place, server: Place, kind: str, address: str) -> suite.Run:
    try:
        return suite.request_response(
            client, server, kind, seconds=context.seconds, address=address, port=PORTS.rr, timeout=5.0
        )
    except ProgramError as problem:
        return suite.Run(problem=str(problem))


def _cell(one: Measurement | None, column: Column) -> str:
    if one is None or one.summary is None:
        return "-"
    value = one.summary.p50 / column.scale
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _curves(column: Column, found: Mapping[str, Mapping[tuple[str, str], Measurement]]) -> Curves:
    of_modes = {
        mode: [(float(size), m.summary) for (name, size), m in of.items() if name == column.name and m.summary]
        for mode, of in found.items()
    }
    of_modes = {mode: of for mode, of in of_modes.items() if of}
    by = column.scale
    lines = {mode: tuple((size, s.p50 / by) for size, s in of) for mode, of in of_modes.items()}
    spread = {
        mode: tuple((size, s.spread.low / by, s.spread.high / by) for size, s in of) for mode, of in of_modes.items()
    }
    return Curves(f"proxy-scaling {column.name}", "Services", column.title, lines, spread)


def _against_published(found: Mapping[str, Mapping[tuple[str, str], Measurement]], sizes: Sequence[str]) -> TextTable:
    """A new connection's time at each size to that at the least, published beside measured."""
    rows = []
    for mode, kind in (("kernel-iptables", "tcp_crr"), ("kernel-iptables", "tcp_rr"), ("ovs", "tcp_crr")):
        times = {s: m.summary.p50 for s in sizes if (m := found.get(mode, {}).get((kind, s))) is not None and m.summary}
        if times:
            least = next(iter(times.values()))
            rows.append(
                (f"{mode}, {kind}, measured", *(f"{times[s] / least:.2f}" if s in times else "-" for s in sizes))
            )
    first = PUBLISHED.get(int(sizes[0])) if sizes else None
    published = [f"{PUBLISHED[int(s)] / first:.2f}" if first and int(s) in PUBLISHED else "-" for s in sizes]
    rows.append(("iptables, new connection, published", *published))
    return TextTable("Time of a connection to that with the fewest Services", ("", *sizes), tuple(rows))
