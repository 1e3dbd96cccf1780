"""connection-churn: connections opened and closed at rising rates, through a Service and to the pod, by proxy mode."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scenarios import Context, Outcome, Variant
from scenarios.lab import options
from scenarios.measure import environment, stats, suite
from scenarios.measure.place import run, script, serving
from scenarios.proxy_modes import MODES
from scenarios.report import contrast
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.config import LabConfig
from topo.nodes import Machine
from topo.system import inside

PORT, PATIENCE = 7080, 3.0
# The first of the ports that a client may take; there are few, so that they come again.
FIRST_PORT = 40000
# A rate is kept up with if so much of it was achieved, and nothing failed.
KEPT_UP = 0.95
POD, SERVICE = WAYS = ("pod", "Service")
# Each way has a client of its own: one whose port comes again by the other way would have two connections of which the
# answers look the same, and what is remembered of the first would be in the way of the second.
_CLIENTS: Mapping[str, str] = {POD: "default/pods-client", SERVICE: "default/services-client"}
COLUMNS = (
    *("way", "asked/s", "achieved/s", "failed (%)", "p50/p90/p99 (ms)", "uses of a port"),
    *("tracked by the switch", "by the kernel", "CPUs busy (%)"),
)
_OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {{name: pods-client}}
spec: {{nodeName: {here}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: services-client}}
spec: {{nodeName: {here}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: server, labels: {{app: server}}}}
spec: {{nodeName: {there}, containers: [{{name: idle, image: none}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: server}}
spec: {{selector: {{app: server}}, ports: [{{port: {port}}}]}}
"""


@dataclass(frozen=True, slots=True)
class Taken:
    """One repeat. tracked: connections that the client's node remembers more, switch and kernel; ports: used."""

    run: suite.Run
    errors: Mapping[str, int]
    achieved: float
    ports: int
    tracked: tuple[int, int]
    busy: float

    @property
    def asked(self) -> int:
        """Connections that were to be opened."""
        return len(self.run.values) + self.run.lost


class ConnectionChurn:
    """The scenario object."""

    name = "connection-churn"
    description = "connections opened and closed at rising rates: achieved, failed, latency, connection tracking, ports"
    options: Mapping[str, str] = {
        "modes": "ovs,userspace,kernel-iptables,kernel-nftables",
        "rates": "50,100,200,400,800",
        "seconds": "2",
        "ports": "500",
    }

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """One lab a mode; everything else is the same."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", f"{self.name} measures between two nodes", "2 or more")
        options.numbers(config.scenario, "rates", 1)
        options.number(config.scenario, "seconds", 1)
        if FIRST_PORT + options.number(config.scenario, "ports", 1) > 1 << 16:
            there = f"up to {(1 << 16) - FIRST_PORT}"
            raise InputError(f"--option ports={config.scenario['ports']}", "there are not so many", there)
        objects = manifests.load_text(_OBJECTS.format(here=names[-2], there=names[-1], port=PORT), self.name).objects
        return [
            Variant(name, replace(config, proxy_mode=MODES[name][0], proxy_options=MODES[name][1]), objects)
            for name in options.names(config.scenario, "modes", MODES)
        ]

    def run(self, context: Context) -> Outcome:
        """The rates rise; at each, both ways in turn, so that a slow moment of the machine disturbs both."""
        chosen = context.lab.config.scenario
        server = context.place("default/server")
        ports = options.number(chosen, "ports", 1)
        range_ = f"{FIRST_PORT} {FIRST_PORT + ports - 1}"
        for client in _CLIENTS.values():
            run(context.place(client), ["sysctl", "-qw", f"net.ipv4.ip_local_port_range={range_}"], 10)
        service = context.lab.store.get("Service", "default", "server")
        assert service is not None
        addresses = {POD: server.address, SERVICE: service["spec"]["clusterIP"]}
        taken: dict[tuple[str, int], list[Taken]] = {}
        with serving(server, script("churn.py", "server", server.address, PORT), "ready"):
            for rate in options.numbers(chosen, "rates", 1):
                for repeat in range(1, context.repeats + 1):
                    for way in WAYS:
                        context.progress(f"{rate}/s, {way} {repeat}/{context.repeats}")
                        taken.setdefault((way, rate), []).append(_once(context, way, addresses[way], rate))
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for (way, rate), each in taken.items():
            for name, unit, runs in (
                ("connection", "us", [one.run for one in each]),
                ("achieved", "connections/s", [suite.Run((one.achieved,)) for one in each]),
            ):
                measurement, rows = suite.combine(name, f"{way}: {rate}", unit, runs)
                measurements.append(measurement)
                samples += rows
        notes = [f"{way} at {rate}/s: {_reasons(each)}" for (way, rate), each in taken.items() if _reasons(each)]
        return Outcome(measurements, samples, notes, (TextTable("", COLUMNS, tuple(_rows(taken))),))

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """All rows, what each mode kept up with, and a Service's connections to a pod's in the same lab."""
        measurements = [replace(m, path=f"{mode}, {m.path}") for mode, o in outcomes.items() for m in o.measurements]
        samples = [replace(s, path=f"{mode}, {s.path}") for mode, o in outcomes.items() for s in o.samples]
        rows = [(mode, *row) for mode, o in outcomes.items() for row in o.tables[0].rows]
        found = {(m.name, m.path): m for m in measurements}
        rates = list(dict.fromkeys(row[2] for row in rows))
        summary = []
        for mode, outcome in outcomes.items():
            kept = [_kept_up(outcome.tables[0].rows, way) for way in WAYS]
            ratios = (_ratio(found, mode, rate) for rate in rates)
            summary.append((mode, *kept, *ratios))
        summary += [(mode, "left out", why, *[""] * len(rates)) for mode, why in missing.items()]
        columns = ("mode", "keeps up with, pod (/s)", "Service (/s)", *(f"to the pod, at {rate}/s" for rate in rates))
        tables = (
            TextTable("Through a Service to the pod itself: a connection's median", columns, tuple(summary)),
            TextTable("Connections opened and closed", ("mode", *COLUMNS), tuple(rows)),
        )
        notes = [f"{mode}, {text}" for mode, outcome in outcomes.items() for text in outcome.notes]
        notes += [
            "Connect, a byte each way, the server closes. No connection waits for another; one counts from when it was "
            f"due (open loop), and is given up after {PATIENCE:g} s.",
            "tracked: connections that the client's node remembers more after each step than before it; medians. "
            "Closed ones stay for 10 to 120 s (nf_conntrack-sysctl); one whose port comes again is taken again.",
            f"keeps up: the highest rate of which {KEPT_UP:.0%} was achieved and nothing failed, and so below it.",
            contrast.METHOD,
        ]
        notes += environment.cpu_bound({f"{row[0]}, {row[1]} at {row[2]}/s": float(row[9]) for row in rows})
        return Outcome(measurements, samples, notes, tables, curves=list(_curves(found, outcomes, rates)))


SCENARIO = ConnectionChurn()


def _once(context: Context, way: str, address: str, rate: int) -> Taken:
    client = context.place(_CLIENTS[way])
    seconds = options.number(context.lab.config.scenario, "seconds", 1)
    node = context.lab.kubelet.sandboxes[client.name].node.machine
    tracked, busy = _tracked(node), environment.cpu_times_now()
    command = script("churn.py", "client", address, PORT, rate, seconds, PATIENCE)
    found = json.loads(run(client, command, seconds + PATIENCE + 20))
    busy_percent, _ = environment.shares(busy, environment.cpu_times_now())
    now = _tracked(node)
    values = tuple(found["samples_us"])
    return Taken(
        suite.Run(values, sum(found["errors"].values())),
        found["errors"],
        len(values) / found["seconds"],
        found["ports"],
        (now[0] - tracked[0], now[1] - tracked[1]),
        busy_percent,
    )


def _tracked(node: Machine) -> tuple[int, int]:
    """Connections that the node's switch and its kernel remember. In the kernel's datapath both are the same ones."""
    total = re.search(r"Total: (\d+)", node.switch.appctl("dpctl/ct-stats-show"))
    with inside(node.pid):
        try:
            kernel = int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
        except OSError:  # nf_conntrack is not loaded: nobody there asked for it
            kernel = 0
    return int(total[1]) if total else 0, kernel


def _reasons(each: Sequence[Taken]) -> str:
    counts: dict[str, int] = {}
    for one in each:
        for reason, count in one.errors.items():
            counts[reason] = counts.get(reason, 0) + count
    return ", ".join(f"{count} times {reason!r}" for reason, count in counts.items())


def _rows(taken: Mapping[tuple[str, int], Sequence[Taken]]) -> Iterator[tuple[str, ...]]:
    for (way, rate), each in taken.items():
        summaries = [stats.summary(one.run.values) for one in each if one.run.values]
        times = stats.repeat_summary(summaries) if summaries else None
        lost = 100 * sum(one.run.lost for one in each) / sum(one.asked for one in each)
        uses = stats.median(one.asked / max(1, one.ports) for one in each)
        tracked = (stats.median(one.tracked[n] for one in each) for n in (0, 1))
        yield (
            *(way, str(rate), f"{stats.median(one.achieved for one in each):.0f}", f"{lost:.1f}"),
            "/".join(f"{t / 1e3:.1f}" for t in (times.p50, times.p90, times.p99)) if times else "-",
            f"{uses:.1f}",
            *(f"{count:.0f}" for count in tracked),
            f"{stats.median(one.busy for one in each):.0f}",
        )


def _kept_up(rows: Sequence[tuple[str, ...]], way: str) -> str:
    """The highest rate that was achieved, with all below it; "-" if none was."""
    best = "-"
    for row in rows:
        if row[0] == way:
            if float(row[2]) < KEPT_UP * float(row[1]) or float(row[3]) > 0:
                break
            best = row[1]
    return best


def _ratio(found: Mapping[tuple[str, str], Measurement], mode: str, rate: str) -> str:
    values = {way: [r.p50 for r in found["connection", f"{mode}, {way}: {rate}"].repeats] for way in WAYS}
    return contrast.to_first(values).get(SERVICE, "-")


def _curves(
    found: Mapping[tuple[str, str], Measurement], modes: Sequence[str] | Mapping[str, object], rates: Sequence[str]
) -> Iterator[Curves]:
    for name, title, scale in (("connection", "median (ms)", 1e3), ("achieved", "achieved (/s)", 1.0)):
        lines = {
            mode: tuple(
                (float(rate), one.summary.p50 / scale)
                for rate in rates
                if (one := found[name, f"{mode}, {SERVICE}: {rate}"]).summary
            )
            for mode in modes
        }
        lines = {mode: points for mode, points in lines.items() if points}
        if lines:
            yield Curves(f"connection-churn {name}", "connections asked for a second", title, lines)
