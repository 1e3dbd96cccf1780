"""cni-traits: every CNI and variant in a lab of its own: what it says of itself, and whether packets say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from controllers import proxy as proxies
from controllers.cni import Traits
from controllers.registry import discover
from scenarios import Context, Outcome, Variant
from scenarios.lab import networks
from scenarios.measure import devices, suite, wire
from scenarios.measure.place import Place, run, script, serving
from scenarios.report import traits as shown
from scenarios.report.results import Measurement, Samples, TextTable
from topo import fabric, manifests
from topo.cluster.errors import InputError
from topo.cluster.wiring import HAIRPIN_IP
from topo.config import LabConfig
from topo.lab import Lab

# Where pods answer, nodes do, and somebody in the world behind the router.
POD_PORT, NODE_PORT, OUTSIDE_PORT, OUTSIDE = 8080, 7777, 9999, "198.51.100.7"
# IP 20 and ICMP 8 of an echo; echoes by which devices are found.
HEADERS, ECHOES = 28, 50
_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  nodeName: {node}
  hostNetwork: {host}
  containers: [{{name: c, image: none, ports: [{{containerPort: {port}}}]}}]
---
"""
_SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: own}}
spec: {{selector: {{app: asking}}, ports: [{{port: 80, targetPort: {port}}}]}}
"""
KEPT, HIDDEN, NOT = "kept", "hidden", "-"
_MEASURED = (
    *("CNI", "MTU said", "found", "largest that crosses", "headers said", "found", "overhead said", "found"),
    "devices of the sending node",
)


@dataclass(frozen=True, slots=True)
class Way:
    """One client and one server. own: the client's addresses; expected: KEPT, HIDDEN (seen as its node) or NOT."""

    name: str
    client: Place
    address: str
    port: int
    own: frozenset[str]
    expected: str


class CniTraits:
    """The scenario object."""

    name = "cni-traits"
    timed = False
    description = "every CNI in a lab of its own: traits, MTU, headers, devices, who reaches whom; said beside found"
    options: Mapping[str, str] = {"cnis": "all"}

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """One lab a CNI variant; everything else is the same."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", "cni-traits measures between two nodes", "2 or more")
        here, there = names[-2:]
        pods = [("asking", here), ("beside", here), ("across", there)]
        text = "".join(_POD.format(name=name, node=node, host="false", port=POD_PORT) for name, node in pods)
        for name, node in (("at-here", here), ("at-there", there)):
            text += _POD.format(name=name, node=node, host="true", port=NODE_PORT)
        objects = manifests.load_text(text + _SERVICE.format(port=POD_PORT), self.name).objects
        return [Variant(name, one, objects) for name, one in networks.chosen(config, "cnis").items()]

    def run(self, context: Context) -> Outcome:
        """Who reaches whom, then what a packet meets on its way."""
        says, lab = networks.traits(context.lab.config), context.lab
        failed: list[str] = []
        cells = []
        outside = _outside(lab)
        with serving(outside, script("whoami.py", "0.0.0.0", OUTSIDE_PORT, "outside"), "ready"):
            for way in _ways(context, says):
                context.progress(way.name)
                observed = _observed(way, lab)
                cells.append(way.expected if observed == way.expected else f"{way.expected}, found {observed}")
                if observed != way.expected:
                    failed.append(f"{way.name}: {observed}, not {way.expected}")
        matrix = TextTable("", tuple(way.name for way in _ways(context, says)), (tuple(cells),))
        measured, problems = _measured(context, says)
        measurements, samples = _round_trips(context, says)
        return Outcome(measurements, samples, tables=(measured, matrix), failed=failed + problems)

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """One row a variant in each table; those that could not be have the reason."""
        known = networks.known()
        said = {name: shown.data(known[name][0].traits_of(known[name][1])) for name in (*outcomes, *missing)}
        measured, matrix = [], []
        columns: tuple[str, ...] = ("",)
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for name, outcome in outcomes.items():
            first, second = outcome.tables
            measured.append((name, *first.rows[0]))
            matrix.append((name, *second.rows[0]))
            columns = second.columns
            measurements += [replace(m, path=f"{name}: {m.path}") for m in outcome.measurements]
            samples += [replace(s, path=f"{name}: {s.path}") for s in outcome.samples]
        for name, why in missing.items():
            measured.append((name, f"left out: {why}", *[""] * (len(_MEASURED) - 2)))
            matrix.append((name, "left out", *[""] * (len(columns) - 1)))
        tables = (
            TextTable("What each CNI says of itself", shown.COLUMNS, shown.rows(said)),
            TextTable("What a packet to a pod of another node meets", _MEASURED, tuple(measured)),
            TextTable("Whom the receiver sees as the sender", ("CNI", *columns), tuple(matrix)),
        )
        notes = [f"{name} is left out: {why}" for name, why in missing.items()]
        notes.append(
            f"{KEPT}: the sender's own address; {HIDDEN}: its node's, or for itself a stand-in; {NOT}: not reached."
        )
        notes.append("Devices: interfaces and switch ports that counted every echo, from the pod's end to the wire.")
        failed = [f"{name}: {text}" for name, outcome in outcomes.items() for text in outcome.failed]
        return Outcome(measurements, samples, notes, tables, failed)


SCENARIO = CniTraits()


def _outside(lab: Lab) -> Place:
    return Place("outside", lab.outside[fabric.CLIENT].pid, OUTSIDE)


def _ways(context: Context, says: Traits) -> Iterator[Way]:
    """Everybody whom a pod or its node may ask."""
    lab, asking = context.lab, context.place("default/asking")
    here, there = (lab.kubelet.sandboxes[f"default/{name}"].node for name in ("asking", "across"))
    beside, across = (context.place(f"default/{name}").address for name in ("beside", "across"))
    service = lab.store.get("Service", "default", "own")
    assert service is not None
    node = Place(here.name, here.machine.pid, str(here.ip))

    def seen(whom: str) -> str:
        return HIDDEN if whom in says.masquerades else KEPT

    pod = frozenset({asking.address})
    yield Way("pod to pod, one node", asking, beside, POD_PORT, pod, KEPT)
    yield Way("pod to pod, two nodes", asking, across, POD_PORT, pod, seen("pods") if says.crosses else NOT)
    yield Way("pod to its node", asking, str(here.ip), NODE_PORT, pod, KEPT)
    yield Way("pod to another node", asking, str(there.ip), NODE_PORT, pod, seen("nodes"))
    yield Way("pod to the world", asking, OUTSIDE, OUTSIDE_PORT, pod, seen("outside"))
    # A mode of flows serves no pods past the switch.
    is_served = not lab.parts.network.bridged or discover(proxies, "PROXY")[lab.parts.proxy_mode].attachment == "bridge"
    itself = HIDDEN if is_served else NOT
    yield Way("pod to itself by a Service", asking, service["spec"]["clusterIP"], 80, pod, itself)
    own = frozenset(_addresses(node))
    yield Way("node to its pod", node, beside, POD_PORT, own, KEPT if "own" in says.nodes_reach else NOT)
    yield Way("node to another's pod", node, across, POD_PORT, own, KEPT if "others" in says.nodes_reach else NOT)


def _addresses(node: Place) -> list[str]:
    links = json.loads(run(node, ["ip", "-j", "-4", "address"], 5))
    return [str(one["local"]) for link in links for one in link["addr_info"]]


def _observed(way: Way, lab: Lab) -> str:
    """In the same words as is expected; others if it was not one of those."""
    answer: dict[str, Any] = json.loads(run(way.client, script("callers.py", 1, "-", way.address, way.port), 10))
    seen = {client for clients in answer["answers"].values() for client in clients}
    if not seen:
        return NOT
    if seen <= way.own:
        return KEPT
    nodes = {str(a) for n in lab.nodes.values() for a in (n.ip, n.gateway_ip)} | {HAIRPIN_IP}
    return HIDDEN if seen <= nodes else f"seen as {', '.join(sorted(seen))}"


def _measured(context: Context, says: Traits) -> tuple[TextTable, list[str]]:
    """MTU, headers, overhead and devices; and what is not as the CNI says."""
    lab, asking, across = context.lab, context.place("default/asking"), context.place("default/across")
    here, there = (lab.kubelet.sandboxes[f"default/{name}"].node for name in ("asking", "across"))
    said = says.mtu(fabric.mtu(lab.config.fabric))
    found = int(json.loads(run(asking, ["ip", "-j", "link", "show", "eth0"], 5))[0]["mtu"])
    failed = [] if found == said else [f"the pods' MTU is {found}, not {said}"]
    if not says.crosses:
        return TextTable("", (), ((str(said), str(found), *[NOT] * (len(_MEASURED) - 3)),)), failed
    context.progress("the largest packet")
    with wire.Tap(here.machine.pid, "eth0") as tap:
        fits = _echo(asking, across, found).values
    packets = tap.packets(found, says)
    more = _echo(asking, across, found + 1)
    if not fits:
        failed.append(f"a packet of {found} bytes, the pods' MTU, does not cross")
    if more.values:
        failed.append(f"a packet of {found + 1} bytes crosses, one more than the pods' MTU")
    one_subnet = here.subnet == there.subnet
    ends = [asking.address, across.address]
    failed += wire.unlike(says, packets, ends, [str(here.ip), str(there.ip)], one_subnet)
    wanted, more_bytes = wire.added(says, one_subnet)
    costs = sorted({packet.size - found for packet in packets})
    if not costs or not all(wire.is_added(says, cost, one_subnet) for cost in costs):
        seen = ", ".join(map(str, costs)) or "no"
        failed.append(f"the fabric carries {seen} bytes more than the pod, not {more_bytes}")
    context.progress("devices")
    before = devices.counts(here.machine)
    suite.ping(asking, across.address, seconds=5, count=ECHOES)
    names = devices.passed(before, devices.counts(here.machine), ECHOES)
    stacks = sorted({":".join(packet.headers[: len(wanted)]) or NOT for packet in packets})
    row = (
        *(str(said), str(found), str(found) if fits and not more.values else NOT),
        *(":".join(wanted) or NOT, ", ".join(stacks) or NOT, str(more_bytes), ", ".join(map(str, costs)) or NOT),
        " > ".join(names),
    )
    return TextTable("", (), (row,)), failed


def _echo(one: Place, two: Place, size: int) -> suite.Run:
    """An echo of that many bytes that must not be fragmented."""
    return suite.ping(one, two.address, seconds=1e-6, count=1, size=size - HEADERS, dont_fragment=True)


def _round_trips(context: Context, says: Traits) -> tuple[list[Measurement], list[Samples]]:
    """Echo times on one node and between two."""
    asking = context.place("default/asking")
    measurements: list[Measurement] = []
    samples: list[Samples] = []
    for path, server in (("same node", "beside"), *([("other node", "across")] if says.crosses else [])):
        context.progress(f"round trips, {path}")
        address = context.place(f"default/{server}").address
        runs = [suite.ping(asking, address, seconds=context.seconds) for _ in range(context.repeats)]
        measurement, rows = suite.combine("icmp_rtt", path, "us", runs)
        measurements.append(measurement)
        samples += rows
    return measurements, samples
