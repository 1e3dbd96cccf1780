"""policy: what NetworkPolicies cost a connection, the switches and whoever applies them; when they are in force; and
whether packets do what they say.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from controllers import cni as cnis
from controllers import proxy as proxies
from controllers.compile import pod_bridge
from controllers.registry import discover
from controllers.state import ClusterState
from scenarios import Context, Outcome
from scenarios.lab import policies
from scenarios.measure import suite
from scenarios.measure.place import Place, end, script, serving, start
from scenarios.measure.stats import median
from scenarios.netpol.prober_client import Prober
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.store import Object
from topo.config import LabConfig
from topo.lab import Lab

PORTS = suite.Ports()
# What there is instead of a CNI that enforces nothing.
ENFORCING = "calico"
# Seconds that a policy stays which comes and goes.
STAY = 0.4
_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {space}, labels: {{app: {name}, role: {role}}}}}
spec:
  nodeName: {node}
  containers:
  - {{name: idle, image: none, ports: [{{containerPort: 80, name: http}}, {{containerPort: 53, protocol: UDP}}]}}
---
"""
_SPACE = """
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{team: {name}}}}}
---
"""
_TRIED = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: red}
spec: {podSelector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: red}
spec:
  podSelector: {matchLabels: {app: a}}
  ingress: [{from: [{podSelector: {}}, {namespaceSelector: {matchLabels: {team: blue}}}], ports: [{port: http}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: one-way, namespace: blue}
spec:
  podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [a]}]}
  policyTypes: [Egress]
  egress:
  - to: [{namespaceSelector: {}, podSelector: {matchLabels: {app: a}}}]
    ports: [{port: 50, endPort: 60, protocol: UDP}, {port: 80}]
"""
_GATE = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: gate}
spec: {podSelector: {matchLabels: {role: gate}}, policyTypes: [Ingress]}
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one number of policies came to. times in ms."""

    count: int
    flows: int
    compiled: float
    applied: float
    measurements: tuple[Measurement, ...]
    denied: tuple[float, ...]
    allowed: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """The scenario object. counts: ascending numbers of policies; changes: how often one comes and goes with each."""

    name: str = "policy"
    description: str = "what 0 to 1,000 policies cost, when a change is in force, and that packets obey"
    counts: Sequence[int] = (0, 10, 100, 1000)
    changes: int = 5

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """Two pods to measure between and two for changes; two namespaces of three pods to be asked all from all."""
        if not _enforces(config):
            print(f"mininetes: CNI {config.cni} enforces no policies: the lab gets {ENFORCING}", file=sys.stderr)
            config = replace(config, cni=ENFORCING, cni_options={})
        names = [node.name for node in config.nodes]
        here, there = names[-2:] if len(names) > 1 else names * 2
        pods = [
            ("client", "measured", here),
            ("server", "measured", there),
            ("asking", "", here),
            ("gate", "gate", there),
        ]
        text = "".join(_POD.format(name=n, space="default", role=r or "none", node=node) for n, r, node in pods)
        for space in ("red", "blue"):
            text += _SPACE.format(name=space)
            for number, pod in enumerate("abc"):
                text += _POD.format(name=pod, space=space, role="tried", node=names[number % len(names)])
        return config, manifests.load_text(text, self.name).objects

    def run(self, context: Context) -> Outcome:
        """Each number of policies in turn, then the matrix."""
        samples: list[Samples] = []
        found = [self._cost(context, count, samples) for count in self.counts]
        context.progress("matrix")
        shown, failed = _matrix(context.lab)
        failed += [
            f"with {c.count} policies a change was never in force" for c in found if not (c.denied and c.allowed)
        ]
        notes = [
            f"CNI {context.lab.config.cni}.",
            "Every policy selects both measured pods, in both directions; the one that allows them is the last.",
            "compile: flows of all nodes from nothing, in one process. apply: until every switch has confirmed.",
            "in force: from the API's answer to the last packet that passed, or to the first; 1 ms between packets.",
        ]
        return Outcome([m for c in found for m in c.measurements], samples, notes, (_costs(found), shown), failed)

    def _cost(self, context: Context, count: int, samples: list[Samples]) -> Cost:
        lab, path = context.lab, f"{count} policies"
        before = [c for c in self.counts if c < count]
        context.progress(f"{path}: apply")
        # The last of each set allows the measured pods, and goes when the next set comes.
        objects = [_policy(i, allows=i == count) for i in range((before[-1] if before else 0) or 1, count + 1)]
        began = time.monotonic()
        for thing in objects:
            lab.store.apply(thing)
        lab.confirm()
        applied = (time.monotonic() - began) * 1e3
        client, server = context.place("default/client"), context.place("default/server")
        taken: dict[str, list[suite.Run]] = {}
        for repeat in range(1, context.repeats + 1):
            for name, once in _KINDS.items():
                context.progress(f"{path}: {name} {repeat}/{context.repeats}")
                taken.setdefault(name, []).append(once(client, server, context.seconds))
        measurements = []
        for name, runs in taken.items():
            unit = "bit/s" if name == "tcp_throughput" else "us"
            measurement, rows = suite.combine(name, path, unit, runs)
            measurements.append(measurement)
            samples += rows
        context.progress(f"{path}: changes")
        denied, allowed = _changes(lab, context.place("default/asking"), context.place("default/gate"), self.changes)
        for name, values in (("policy until denied", denied), ("policy until allowed", allowed)):
            if values:
                run = suite.Run(tuple(v * 1e3 for v in values))
                measurement, rows = suite.combine(name, path, "us", [run])
                measurements.append(measurement)
                samples += rows
        flows = max(_policy_flows(lab, node) for node in lab.nodes)
        return Cost(count, flows, _compiled(lab), applied, tuple(measurements), denied, allowed)


SCENARIO = PolicyCost()


def _rr(kind: str) -> Callable[[Place, Place, float], suite.Run]:
    return lambda one, two, seconds: suite.request_response(one, two, kind, seconds=seconds, port=PORTS.rr)


_KINDS: dict[str, Callable[[Place, Place, float], suite.Run]] = {
    "tcp_rr": _rr("tcp"),
    "tcp_crr": _rr("crr"),
    "tcp_throughput": lambda one, two, seconds: suite.iperf3(one, two, "tcp", port=PORTS.iperf),
}


def _enforces(config: LabConfig) -> bool:
    """Whether some variant does; a CNI that there is not is for the lab to refuse."""
    cni = discover(cnis, "CNI").get(config.cni)
    return cni is None or any(traits.enforces for traits in cni.variants.values())


def _policy(number: int, allows: bool) -> Object:
    """One that is like no other: peers by address, by pod and by namespace, ports by number, range and name."""
    block = {"ipBlock": {"cidr": f"192.0.{number // 256}.{number % 256}/32"}}
    pods = {"namespaceSelector": {"matchLabels": {"team": "red"}}, "podSelector": {"matchLabels": {"app": "a"}}}
    ports: list[Object] = [{"port": 10000 + number}, {"port": "http"}, {"port": 20000, "endPort": 20000 + number}]
    measured = {"podSelector": {"matchLabels": {"role": "measured"}}}
    right = {"ports": [{"port": PORTS.rr}, {"port": PORTS.iperf}]}
    spec: Object = {"podSelector": measured["podSelector"], "policyTypes": ["Ingress", "Egress"]}
    for side, end_ in (("ingress", "from"), ("egress", "to")):
        spec[side] = [{end_: [block, pods], "ports": ports}, *([{end_: [measured], **right}] if allows else [])]
    meta = {"name": f"p{number}", "namespace": "default"}
    text = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}
    return manifests.load_text(json.dumps(text), "policy").objects[0]


def _changes(lab: Lab, client: Place, server: Place, count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Milliseconds until a policy that comes is in force, and until one that goes is, `count` times each."""
    gate = manifests.load_text(_GATE, "policy").objects[0]
    marks: list[tuple[float, float]] = []
    with serving(server, script("rr.py", "server", "udp", server.address, PORTS.rr), "ready"):
        beat = start(client, script("beat.py", server.address, PORTS.rr), stdin=-1)
        try:
            time.sleep(STAY)
            for _ in range(count):
                came = time.monotonic()
                lab.store.apply(gate)
                time.sleep(STAY)
                went = time.monotonic()
                lab.store.delete("NetworkPolicy", "default", "gate")
                time.sleep(STAY)
                marks.append((came, went))
            assert beat.stdin is not None and beat.stdout is not None
            beat.stdin.close()
            answers = [float(line) for line in beat.stdout.read().split() if line != b"ready"]
        finally:
            end(beat)
    return until(answers, marks)


def until(
    answers: Sequence[float], marks: Sequence[tuple[float, float]]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """From when answers came: ms from each coming of a policy to the last one before it goes, and then to the first.

    A policy that never was in force gives nothing.
    """
    denied, allowed = [], []
    for came, went in marks:
        passed = [t for t in answers if came <= t <= went]
        if not passed or passed[-1] < went - STAY / 4:
            denied.append((passed[-1] - came) * 1e3 if passed else 0.0)
        else:
            continue
        first = next((t for t in answers if went < t), None)
        if first is not None and first - went < STAY:
            allowed.append((first - went) * 1e3)
    return tuple(denied), tuple(allowed)


def _policy_flows(lab: Lab, node: str) -> int:
    """Flows in the node's switch, in the tables of policies."""
    numbers = {str(number) for number, name in lab.parts.tables["br-int"] if name.startswith(("Egress", "Ingress"))}
    lines = lab.nodes[node].machine.switch.ofctl("--no-names", "dump-flows", "br-int").splitlines()
    return sum(any(f"table={n}," in line for n in numbers) for line in lines)


def _compiled(lab: Lab) -> float:
    """Milliseconds for the flows of all nodes, from the store's objects."""
    cni, proxy = discover(cnis, "CNI")[lab.config.cni], discover(proxies, "PROXY")[lab.parts.proxy_mode]
    began = time.perf_counter()
    state = ClusterState()
    for thing in lab.store:
        state.apply(thing["kind"], "ADDED", thing)
    for name in lab.nodes:
        view = state.node_view(name)
        if view is not None:
            pod_bridge(view, cni, proxy)
    return (time.perf_counter() - began) * 1e3


def _costs(found: Sequence[Cost]) -> TextTable:
    own = ("policies", "flows a node", "compile (ms)", "apply (ms)")
    columns = (*own, "RR (us)", "CRR (us)", "Gbit/s", "denied after (ms)", "allowed after (ms)")
    rows = []
    for cost in found:
        figures = {m.name: m.summary.p50 if m.summary else None for m in cost.measurements}
        scaled = (figures["tcp_rr"], figures["tcp_crr"], (figures["tcp_throughput"] or 0) / 1e9 or None)
        times = (median(each) if each else None for each in (cost.denied, cost.allowed))
        rows.append(
            (
                *(str(cost.count), str(cost.flows), _cell(cost.compiled, 0), _cell(cost.applied, 0)),
                *(_cell(value, digits) for value, digits in zip(scaled, (0, 0, 3), strict=True)),
                *(_cell(value, 1) for value in times),
            )
        )
    return TextTable("What policies cost, and when a change is in force (medians)", columns, tuple(rows))


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _matrix(lab: Lab) -> tuple[TextTable, list[str]]:
    """Expectation beside observation for all pairs of the two namespaces."""
    for thing in manifests.load_text(_TRIED, "policy").objects:
        lab.store.apply(thing)
    lab.confirm()
    with Prober() as prober:
        found = policies.matrix(lab, [], ["red", "blue"], prober)
    rows = list(_matrix_rows(found))
    title = "Who reaches whom: expected/observed, + reaches, - does not"
    return TextTable(title, ("port", "from", *found["pods"]), tuple(rows)), [
        f"packets say otherwise than policies: {text}" for text in found["differences"]
    ]


def _matrix_rows(found: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for port in found["ports"]:
        for source in found["pods"]:
            expected, observed = (found[kind][port][source] for kind in ("expected", "observed"))
            cells = (f"{_SIGNS[expected[t]]}/{_SIGNS[observed[t]]}" if t != source else "" for t in found["pods"])
            yield (port, source, *cells)


_SIGNS = {True: "+", False: "-"}
