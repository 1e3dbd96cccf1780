"""multi-tenant: what a noisy neighbour costs a pod on a link that both use, with and without limits of bandwidth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from scenarios import Context, Outcome
from scenarios.lab import bottleneck, options
from scenarios.lab.bottleneck import Queue
from scenarios.measure import environment, iperf, stats, suite
from scenarios.measure.place import Place, ProgramError, script, serving
from scenarios.report import contrast
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.cni.pod import EGRESS, INGRESS
from topo.config import LabConfig

RR_PORT, VICTIM_PORT, NEIGHBOUR_PORT = 7001, 5201, 5202
PERIOD = 0.005  # seconds between questions
# The neighbour's connections, and of the link's rate what it sends without asking whether it arrives (UDP).
STREAMS, FLOOD = 4, 1.2
# Of the link's rate: what the neighbour is held to where it is.
SHARE = 0.25
# Seconds until the neighbour is in full swing, and that it goes on at most beside the victim's measurements.
SETTLE, PATIENCE = 1, 30
ALONE, BESIDE, HELD, HELD_THERE = "alone", "beside it", "egress held", "ingress held"
TRAFFIC = ("tcp", "udp")
COLUMNS = (
    *("neighbour", "victim", "RTT p50/p90/p99 (ms)", "lost (%)", "to alone", "throughput (Mbit/s)", "to alone"),
    "neighbour (Mbit/s)",
)
# Pods by node: 0 is where all send, 1 is behind the slow link. An annotation is given its rate.
_PODS: Mapping[str, tuple[int, str]] = {
    "victim": (0, ""),
    "noisy": (0, ""),
    "held": (0, EGRESS),
    "victims-peer": (1, ""),
    "peer": (1, ""),
    "held-peer": (1, INGRESS),
}
# Who sends and who receives in each case.
_CASES: Mapping[str, tuple[str, str]] = {
    BESIDE: ("noisy", "peer"),
    HELD: ("held", "peer"),
    HELD_THERE: ("noisy", "held-peer"),
}


@dataclass(frozen=True, slots=True)
class Taken:
    """One repeat: of the victim round trips and throughput, of the neighbour what arrived, bit/s."""

    times: suite.Run
    throughput: suite.Run
    neighbour: float
    busy: float


class MultiTenant:
    """The scenario object."""

    name = "multi-tenant"
    description = "a pod alone, beside a noisy neighbour, and beside one that bandwidth annotations hold"
    options: Mapping[str, str] = {"rate": "20", "traffic": "all", "cases": "all", "seconds": "2"}

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """Victim and neighbours on one node, those they talk to on another, behind the slow link."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", f"{self.name} measures between two nodes", "2 or more")
        options.names(config.scenario, "traffic", TRAFFIC)
        options.names(config.scenario, "cases", _CASES)
        options.number(config.scenario, "seconds", 1)
        rate = options.number(config.scenario, "rate", 1)
        ends = names[-2:]
        objects = [_pod(name, ends[place], note, rate) for name, (place, note) in _PODS.items()]
        return bottleneck.before(config, ends[1], rate), objects

    def run(self, context: Context) -> Outcome:
        """Every case in turn, again and again, so that a slow moment of the machine disturbs all."""
        lab = context.lab
        rate = options.number(lab.config.scenario, "rate", 1)
        bottleneck.set_queue(lab, lab.kubelet.sandboxes["default/peer"].node.name, Queue("pfifo", 1000))
        chosen = options.names(lab.config.scenario, "cases", _CASES)
        cases = [(kind, case) for kind in options.names(lab.config.scenario, "traffic", TRAFFIC) for case in chosen]
        taken: dict[tuple[str, str], list[Taken]] = {}
        for repeat in range(1, context.repeats + 1):
            for kind, case in [("-", ALONE), *cases]:
                context.progress(f"{case}, {kind} {repeat}/{context.repeats}")
                taken.setdefault((kind, case), []).append(_once(context, kind, case, rate))
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for (kind, case), each in taken.items():
            path = case if case == ALONE else f"{case}, {kind}"
            for name, unit, runs in (
                ("udp_rr", "us", [one.times for one in each]),
                ("tcp_throughput", "bit/s", [one.throughput for one in each]),
                ("neighbour", "bit/s", [suite.Run((one.neighbour,)) for one in each if one.neighbour]),
            ):
                if runs:
                    measurement, values = suite.combine(name, path, unit, runs)
                    measurements.append(measurement)
                    samples += values
        notes = [
            f"The link to the receiving node carries {rate} Mbit/s. The neighbour sends over {STREAMS} TCP "
            f"connections, or {FLOOD:.0%} of the link by UDP; held: to {SHARE:.0%} of it by {EGRESS} of the sending "
            f"pod, or by {INGRESS} of the receiving one, past the link. What of it arrives is counted with headers.",
            f"Round trips: a question each {PERIOD * 1e3:.0f} ms whether or not the one before was answered. "
            "Throughput: one TCP connection.",
            contrast.METHOD,
        ]
        if most := bottleneck.handed_over(lab.parts.datapath):
            notes.append(f"In userspace a switch hands a queue about {most} packets at most, so waits are shorter.")
        busy = {f"{case}, {kind}": stats.median(one.busy for one in each) for (kind, case), each in taken.items()}
        notes += environment.cpu_bound(busy)
        table = TextTable("A pod beside a noisy neighbour", COLUMNS, tuple(_rows(taken)))
        return Outcome(measurements, samples, notes, (table,), list(_beyond(taken, rate)))


SCENARIO = MultiTenant()


def _pod(name: str, node: str, note: str, rate: int) -> Object:
    notes = f"annotations: {{{note}: {int(rate * SHARE * 1e6) // 1000}k}}" if note else "annotations: {}"
    text = f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, {notes}}}
spec: {{nodeName: {node}, containers: [{{name: idle, image: none}}]}}
"""
    return manifests.load_text(text, "multi-tenant").objects[0]


def _once(context: Context, kind: str, case: str, rate: int) -> Taken:
    places = {name: context.place(f"default/{name}") for name in _PODS}
    victim, peer = places["victim"], places["victims-peer"]
    seconds = options.number(context.lab.config.scenario, "seconds", 1)
    before = environment.cpu_times_now()
    with serving(peer, script("rr.py", "server", "udp", peer.address, RR_PORT), "ready"), ExitStack() as stack:
        ask = partial(suite.paced, victim, peer.address, period=PERIOD, port=RR_PORT)
        ask(seconds=0.2)  # warms the way up
        receiver = None
        if case != ALONE:
            sender, receiver = (places[name] for name in _CASES[case])
            how: dict[str, Any] = {"protocol": "tcp", "streams": STREAMS}
            if kind == "udp":
                how = {"protocol": "udp", "rate": int(rate * 1e6 * FLOOD)}
            stack.enter_context(iperf.beside(sender, receiver, 2 * seconds + PATIENCE, port=NEIGHBOUR_PORT, **how))
            time.sleep(SETTLE)
        began, had = time.monotonic(), _received(receiver)
        times = ask(seconds=seconds)
        throughput = _measured(partial(suite.iperf3, victim, peer, "tcp", seconds=seconds, port=VICTIM_PORT))
        arrived = (_received(receiver) - had) * 8 / (time.monotonic() - began)
    busy, _ = environment.shares(before, environment.cpu_times_now())
    return Taken(times, throughput, arrived, busy)


def _received(place: Place | None) -> int:
    """Bytes that a pod's interface has received (proc_pid_net(5), dev), 0 of no pod."""
    if place is None:
        return 0
    lines = Path(f"/proc/{place.pid}/net/dev").read_text().splitlines()
    return next(int(line.partition(":")[2].split()[0]) for line in lines if line.strip().startswith("eth0:"))


def _measured(once: Callable[[], suite.Run]) -> suite.Run:
    """One that is starved has no figure, and says why."""
    try:
        return once()
    except ProgramError as problem:
        return suite.Run(problem=str(problem))


def _rows(taken: Mapping[tuple[str, str], Sequence[Taken]]) -> Iterator[tuple[str, ...]]:
    medians = {key: [stats.median(one.times.values) for one in each if one.times.values] for key, each in taken.items()}
    rates = {key: [v for one in each for v in one.throughput.values if v] for key, each in taken.items()}
    slower, less = contrast.to_first(_named(medians)), contrast.to_first(_named(rates))
    for key, each in taken.items():
        summaries = [stats.summary(one.times.values) for one in each if one.times.values]
        times = stats.repeat_summary(summaries) if summaries else None
        asked = sum(len(one.times.values) + one.times.lost for one in each)
        yield (
            *key,
            "/".join(f"{t / 1e3:.1f}" for t in (times.p50, times.p90, times.p99)) if times else "none came",
            f"{100 * sum(one.times.lost for one in each) / asked:.1f}",
            slower.get(" ".join(key), "-"),
            f"{stats.median(rates[key]) / 1e6:.1f}" if rates[key] else "none",
            less.get(" ".join(key), "-"),
            f"{stats.median(one.neighbour for one in each) / 1e6:.1f}" if key[1] != ALONE else "-",
        )


def _named(values: Mapping[tuple[str, str], Sequence[float]]) -> dict[str, Sequence[float]]:
    return {" ".join(key): of for key, of in values.items()}


def _beyond(taken: Mapping[tuple[str, str], Sequence[Taken]], rate: int) -> Iterator[str]:
    """Whoever is held gets through more than its limit and the burst it is allowed: so the limit is not in force."""
    for (kind, case), each in taken.items():
        seen, most = stats.median(one.neighbour for one in each), rate * SHARE * 1e6
        if case in (HELD, HELD_THERE) and seen > 1.1 * most:
            yield f"{case}, {kind}: {seen / 1e6:.1f} Mbit/s of the neighbour arrived, held to {most / 1e6:.1f}"
