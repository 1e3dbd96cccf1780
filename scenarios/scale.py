"""scale: labs of ever more nodes and pods: how long they take to start, what they cost, when a change is everywhere."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from scenarios import Context, Outcome, Variant
from scenarios.lab.options import numbers
from scenarios.measure import suite, usage
from scenarios.measure.costs import groups
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.config import LabConfig, NodeConfig
from topo.lab import Lab
from topo.labfile import default_config

# Seconds that a lab may take to have all its pods ready, or to confirm one change.
PATIENCE = 600.0
# Pods behind one Service, as a rule of thumb for an application.
_BEHIND = 10
_APPLICATION = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: c, image: none, ports: [{{containerPort: 8080}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{selector: {{app: {name}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""
_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: late-{number}, labels: {{app: app-0}}}}
spec: {{containers: [{{name: c, image: none, ports: [{{containerPort: 8080}}]}}]}}
"""
_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: late-{number}}}
spec: {{podSelector: {{matchLabels: {{app: app-0}}}}, ingress: [{{from: [{{podSelector: {{}}}}]}}]}}
"""


@dataclass(frozen=True, slots=True)
class Column:
    """One figure of each size. judged: whether it may grow linearly at most; of times that the machine's other work
    decides too, nothing is said."""

    name: str
    unit: str
    title: str
    scale: float = 1
    judged: bool = False


COLUMNS = (
    Column("nodes_up", "s", "nodes up (s)"),
    Column("pods_ready", "s", "pods ready (s)"),
    Column("cpu_to_start", "CPU s", "CPU until then (s)", judged=True),
    Column("memory", "MiB", "memory (MiB)", judged=True),
    Column("cpu_at_rest", "CPUs", "CPUs at rest"),
    Column("flows_per_node", "flows", "flows a node", judged=True),
    Column("pod_more", "s", "one pod more (ms)", 1e-3),
    Column("service_more", "s", "one Service more (ms)", 1e-3),
    Column("policy_more", "s", "one policy more (ms)", 1e-3),
    Column("node_more", "s", "one node more (ms)", 1e-3),
)
# Linear is 1; a little more may be noise, or the fixed part of a small lab, which weighs less in a large one.
_MOST = 1.25


class Scale:
    """The scenario object."""

    name = "scale"
    description = "more and more nodes and pods: start, memory, CPU at rest, flows, time until a change is everywhere"
    options = {"nodes": "2,5,10", "pods-per-node": "20"}

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """One lab a size; pods are added once it runs."""
        (pods,) = _one(config.scenario, "pods-per-node")
        found = []
        for count in sorted(set(numbers(config.scenario, "nodes", 1))):
            sized = replace(config, nodes=default_config(count).nodes, dns=False)
            # The node that joins at the end needs addresses, too.
            if count + 1 > 1 << (config.node_cidr_bits - config.pod_subnet.prefixlen):
                raise InputError("networking.podSubnet", f"has no room for {count + 1} nodes", "a larger one")
            if pods + 3 > 1 << (32 - config.node_cidr_bits):
                raise InputError(
                    "mininetes.nodeCIDRBits", f"a node's part has no room for {pods} pods", "a larger part"
                )
            found.append(Variant(str(count), sized, ()))
        return found

    def run(self, context: Context) -> Outcome:
        """Everything of one size."""
        lab, found = context.lab, dict[str, list[float]]()
        found["nodes_up"] = [usage.age(os.getpid())]
        (pods,) = _one(lab.config.scenario, "pods-per-node")
        count = len(lab.nodes) * pods
        context.progress(f"{len(lab.nodes)} nodes: {count} pods")
        found["pods_ready"] = [_timed(lambda: _fill(lab, count), lab)]
        used = usage.read(_processes(lab)).groups.values()
        found["cpu_to_start"] = [sum(group.cpu_seconds for group in used)]
        context.progress(f"{len(lab.nodes)} nodes: at rest")
        time.sleep(1.0)  # what follows from the last pods
        before = usage.read(_processes(lab))
        time.sleep(max(1.0, 20 * context.seconds))
        spent = usage.difference(before, usage.read(_processes(lab)))
        found["cpu_at_rest"] = [sum(cost.cpus for cost in spent.groups.values())]
        found["memory"] = [sum(cost.memory for cost in spent.groups.values()) / (1 << 20)]
        flows = [_flows(node.machine.switch.ofctl("dump-aggregate", "br-int")) for node in lab.nodes.values()]
        found["flows_per_node"] = [sum(flows) / len(flows)]
        for name, act in (("pod_more", _pod), ("service_more", _service), ("policy_more", _policy)):
            context.progress(f"{len(lab.nodes)} nodes: {name.replace('_', ' ')}")
            found[name] = [_timed(lambda act=act, n=n: act(lab, n), lab) for n in range(context.repeats)]  # type: ignore[misc]
        context.progress(f"{len(lab.nodes)} nodes: a node more")
        found["node_more"] = [_timed(lambda: lab.add_node(NodeConfig("late")), lab)]
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        path = str(len(lab.config.nodes))
        for column in COLUMNS:
            runs = [suite.Run((value,)) for value in found[column.name]]
            measurement, rows = suite.combine(column.name, path, column.unit, runs)
            measurements.append(measurement)
            samples += rows
        shares = tuple(
            (name, f"{cost.memory / (1 << 20):.0f}", f"{cost.cpus:.3f}") for name, cost in spent.groups.items()
        )
        return Outcome(measurements, samples, tables=(TextTable("", ("", "MiB", "CPUs"), shares),))

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """A line a size, a curve a figure, and how each grows."""
        found = {int(size): {m.name: m for m in outcome.measurements} for size, outcome in outcomes.items()}
        sizes = sorted(found)
        rows = [(str(n), *(_cell(found[n][column.name], column) for column in COLUMNS)) for n in sizes]
        growths, failed = [], list[str]()
        for column in COLUMNS:
            points = tuple((float(size), _value(found[size][column.name])) for size in sizes)
            exponent = growth(points)
            growths.append((column.title, "-" if exponent is None else f"{exponent:.2f}"))
            if column.judged and exponent is not None and exponent > _MOST:
                failed.append(f"{column.title} grows with the power {exponent:.2f} of the nodes")
        tables = [TextTable("", ("nodes", *(column.title for column in COLUMNS)), tuple(rows))]
        tables.append(
            TextTable("How each grows: the power of the number of nodes", ("figure", "power"), tuple(growths))
        )
        if sizes:
            largest = outcomes[str(sizes[-1])].tables[0]
            tables.append(
                TextTable(f"Where it goes, {sizes[-1]} nodes", ("processes", *largest.columns[1:]), largest.rows)
            )
        notes = [f"{size} nodes were not measured: {why}" for size, why in missing.items()]
        notes.append(
            "Nodes up: from the lab's first process until every switch has confirmed its flows. Pods ready: all made "
            "at once, until the last is ready and all flows are confirmed. One more: until every switch has confirmed "
            "it, and a pod is ready. A power of 1 is linear growth; of what hardly grows it is near 0."
        )
        curves = [
            Curves(f"scale {column.name}", "nodes", column.title, {"mininetes": _points(found, column)})
            for column in COLUMNS
            if len(sizes) > 1 and all(y > 0 for _, y in _points(found, column))
        ]
        measurements = [m for outcome in outcomes.values() for m in outcome.measurements]
        samples = [s for outcome in outcomes.values() for s in outcome.samples]
        return Outcome(measurements, samples, notes, tables, failed, curves)


SCENARIO = Scale()


def growth(points: Sequence[tuple[float, float]]) -> float | None:
    """The power of x by which y grows: the slope of the best line on logarithmic axes; None where there is none."""
    known = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len(known) < 2:
        return None
    middle_x, middle_y = (sum(values) / len(known) for values in zip(*known, strict=True))
    spread = sum((x - middle_x) ** 2 for x, _ in known)
    return sum((x - middle_x) * (y - middle_y) for x, y in known) / spread if spread else None


def _one(options: Mapping[str, str], key: str) -> tuple[int]:
    found = numbers(options, key, 1)
    if len(found) != 1:
        raise InputError(f"--option {key}={options[key]}", "is more than one number", "one number: 20")
    return (found[0],)


def _timed(act: Callable[[], None], lab: Lab) -> float:
    begun = time.monotonic()
    act()
    lab.wait_ready(PATIENCE)
    lab.confirm(PATIENCE)
    return time.monotonic() - begun


def _objects(text: str) -> Iterator[Object]:
    yield from manifests.load_text(text, "scale").objects


def _fill(lab: Lab, count: int) -> None:
    """So many pods, in Deployments with a Service each."""
    for number, first in enumerate(range(0, count, _BEHIND)):
        for thing in _objects(_APPLICATION.format(name=f"app-{number}", replicas=min(_BEHIND, count - first))):
            lab.store.create(thing)


def _pod(lab: Lab, number: int) -> None:
    for thing in _objects(_POD.format(number=number)):
        lab.store.create(thing)


def _service(lab: Lab, number: int) -> None:
    _, service = _objects(_APPLICATION.format(name=f"late-{number}", replicas=1))
    service["spec"]["selector"] = {"app": "app-0"}
    lab.store.create(service)


def _policy(lab: Lab, number: int) -> None:
    for thing in _objects(_POLICY.format(number=number)):
        lab.store.create(thing)


def _processes(lab: Lab) -> dict[str, list[int]]:
    holders = [host.pid for host in (*lab.mininet.hosts, *lab.mininet.switches)]
    found = groups(lab)
    return {**found, "pods": sorted({*found["pods"], *holders}), "lab": [os.getpid()]}


def _flows(text: str) -> int:
    """The number in what ovs-ofctl dump-aggregate says."""
    match = re.search(r"flow_count=(\d+)", text)
    assert match is not None, text
    return int(match[1])


def _value(one: Measurement) -> float:
    return one.summary.p50 if one.summary else 0.0


def _points(found: Mapping[int, Mapping[str, Measurement]], column: Column) -> tuple[tuple[float, float], ...]:
    return tuple((float(size), _value(of[column.name]) / column.scale) for size, of in sorted(found.items()))


def _cell(one: Measurement, column: Column) -> str:
    value = _value(one) / column.scale
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
