"""proxy-modes: what a connection through a Service costs in every proxy mode, against one to the pod itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from scenarios import Context, Outcome, Variant
from scenarios.lab.options import names
from scenarios.measure import suite
from scenarios.measure.costs import costs
from scenarios.measure.place import Place, ProgramError, run, script
from scenarios.measure.stats import chi_square
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.config import LabConfig

PORTS = suite.Ports()
# Mode, and the options that make it; names as a reader of the table looks for them.
MODES: Mapping[str, tuple[str, Mapping[str, object]]] = {
    "ovs": ("ovs", {}),
    "iptables": ("iptables", {}),
    "ipvs rr": ("ipvs", {"scheduler": "rr"}),
    "ipvs lc": ("ipvs", {"scheduler": "lc"}),
    "ipvs mh": ("ipvs", {"scheduler": "mh"}),
    "userspace": ("userspace", {}),
    "kernel-iptables": ("kernel-iptables", {}),
    "kernel-nftables": ("kernel-nftables", {}),
    "kernel-ipvs": ("kernel-ipvs", {}),
}
# Connections by which the spread over endpoints is judged.
SPREAD = 600
_PODS = """
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{nodeName: {here}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec: {{nodeName: {there}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: measured}}
spec:
  selector: {{app: server}}
  ports: [{{name: rr, port: {rr}}}, {{name: iperf, port: {iperf}}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: 3
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec: {{containers: [{{name: web, image: none, ports: [{{containerPort: 8080}}]}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """One thing that is measured on both ways. how: as rr.py calls it, "" for iperf3; scale: to the table's unit."""

    name: str
    how: str
    unit: str
    title: str
    scale: float


KINDS = (
    Kind("tcp_rr", "tcp", "us", "RR (us)", 1),
    Kind("tcp_crr", "crr", "us", "new connection (us)", 1),
    Kind("tcp_throughput", "", "bit/s", "Gbit/s", 1e9),
)


class ProxyModes:
    """The scenario object."""

    name = "proxy-modes"
    description = "every proxy mode in a lab of its own: a Service against the pod itself, spread, behaviour"
    options = {"modes": "all"}

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """One lab a mode; everything else is the same."""
        nodes = [node.name for node in config.nodes]
        if len(nodes) < 2:
            raise InputError("--nodes", "proxy-modes measures between two nodes", "2 or more")
        text = _PODS.format(here=nodes[-2], there=nodes[-1], rr=PORTS.rr, iperf=PORTS.iperf)
        objects = manifests.load_text(text, self.name).objects
        chosen = {name: MODES[name] for name in names(config.scenario, "modes", MODES)}
        return [
            Variant(name, replace(config, proxy_mode=mode, proxy_options=options), objects)
            for name, (mode, options) in chosen.items()
        ]

    def run(self, context: Context) -> Outcome:
        """Both ways in turn, so that a machine that is slow for a while disturbs both; then spread and behaviour."""
        client, server = context.place("default/client"), context.place("default/server")
        lab = context.lab
        addresses = {
            s["metadata"]["name"]: s["spec"].get("clusterIP", "") for s in lab.store.list("Service", "default")
        }
        taken: dict[tuple[str, str], list[suite.Run]] = {}
        with costs(lab, "measured") as used:
            for repeat in range(1, context.repeats + 1):
                for kind in KINDS:
                    for way, address in (("pod", None), ("Service", addresses["measured"])):
                        context.progress(f"{kind.title} {way} {repeat}/{context.repeats}")
                        try:
                            one = _once(kind, client, server, address, context.seconds)
                        except ProgramError as problem:
                            one = suite.Run(problem=str(problem))
                        taken.setdefault((kind.name, way), []).append(one)
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for kind in KINDS:
            for way in ("pod", "Service"):
                measurement, rows = suite.combine(kind.name, way, kind.unit, taken[kind.name, way])
                measurements.append(measurement)
                samples += rows
        context.progress("spread over endpoints")
        asked = json.loads(run(client, script("callers.py", SPREAD, "-", addresses["web"], 80), 60))
        row, failed = _behaviour(asked, client.address)
        context.progress("without the controller")
        lab.controller.stop()
        alone = json.loads(run(client, script("callers.py", 50, "-", addresses["web"], 80), 60))
        lost = sum(alone["errors"].values())
        failed += [f"{lost} of 50 new connections failed without the controller"] if lost else []
        row += (f"{50 - lost} of 50",)
        cpu = sum(m.summary.p50 for m in used if m.unit == "CPUs" and m.summary)
        row += (f"{cpu:.2f}",)
        return Outcome(measurements, samples, tables=(TextTable("", (), (row,)),), failed=failed)

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """One row a mode."""
        rows = []
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for mode, outcome in outcomes.items():
            cells = [_ratio(outcome, kind) for kind in KINDS]
            rows.append((mode, *(cell for three in cells for cell in three), *outcome.tables[0].rows[0]))
            measurements += [replace(m, path=f"{mode}: {m.path}") for m in outcome.measurements]
            samples += [replace(s, path=f"{mode}: {s.path}") for s in outcome.samples]
        columns = ["mode"]
        for kind in KINDS:
            columns += [f"{kind.title} pod", "Service", "ratio"]
        columns += ["new connections/s", "spread over 3 (chi-square p)", "client seen", "without controller", "CPUs"]
        notes = [f"{name} was not measured: {why}" for name, why in missing.items()]
        notes.append(
            "ratio: through the Service to the pod itself, in the same lab; in brackets if it is within the spread of "
            "the repeats. ipvs rr and lc and kernel-ipvs go in turn, mh by client, so their spread is no chance's."
        )
        failed = [f"{mode}: {text}" for mode, outcome in outcomes.items() for text in outcome.failed]
        title = "A Service in every proxy mode, against the pod itself"
        shown = TextTable(title, tuple(columns), tuple(rows))
        return Outcome(measurements, samples, notes, (shown,), failed)


SCENARIO = ProxyModes()


def _once(kind: Kind, client: Place, server: Place, address: str | None, seconds: float) -> suite.Run:
    if not kind.how:
        return suite.iperf3(client, server, "tcp", address=address, port=PORTS.iperf)
    return suite.request_response(client, server, kind.how, seconds=seconds, address=address, port=PORTS.rr)


def _behaviour(asked: Mapping[str, Any], client: str) -> tuple[tuple[str, ...], list[str]]:
    """Connections a second, spread, and whom the pods saw; and what went wrong."""
    counts = {pod: sum(seen.values()) for pod, seen in asked["answers"].items()}
    seen = {c for clients in asked["answers"].values() for c in clients}
    failed = [f"{n} of {SPREAD} connections: {reason}" for reason, n in asked["errors"].items()]
    rate = len(asked["us"]) / (sum(asked["us"]) / 1e6) if asked["us"] else 0.0
    spread = "/".join(str(n) for n in sorted(counts.values(), reverse=True))
    if len(counts) == 3:
        spread += f" ({chi_square(list(counts.values())):.2f})"
    return (f"{rate:.0f}", spread, "pod" if seen == {client} else "node"), failed


def _ratio(outcome: Outcome, kind: Kind) -> tuple[str, str, str]:
    """Pod, Service, and their ratio; in brackets where the repeats' spreads overlap."""
    pod, service = (next(m for m in outcome.measurements if (m.name, m.path) == (kind.name, way)) for way in _WAYS)
    if pod.summary is None or service.summary is None or not pod.summary.p50:
        return ("-", "-", "-")
    ratio = f"{service.summary.p50 / pod.summary.p50:.2f}"
    overlap = pod.summary.spread.low <= service.summary.spread.high and (
        service.summary.spread.low <= pod.summary.spread.high
    )
    digits = 0 if kind.how else 2
    to_pod, to_service = (f"{m.p50 / kind.scale:.{digits}f}" for m in (pod.summary, service.summary))
    return to_pod, to_service, f"({ratio})" if overlap else ratio


_WAYS = ("pod", "Service")
