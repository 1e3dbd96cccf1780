"""latency-under-load: how long a small request takes while others fill the same slow link, by the queue before it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from scenarios import Context, Outcome
from scenarios.lab import bottleneck, idle, options
from scenarios.lab.bottleneck import Queue
from scenarios.measure import environment, iperf, stats, suite
from scenarios.measure.place import Place, ProgramError, run, script, serving
from scenarios.report import contrast
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.config import LabConfig

RR_PORT, BULK_PORT, LIMIT = 7001, 7070, "limited"
# Of a link's rate: what a sender is held to so that the queue builds up with it, where others do not wait.
SHARE = 0.85
QUEUES: Mapping[str, Queue] = {
    "pfifo 1000": Queue("pfifo", 1000),
    "pfifo 50": Queue("pfifo", 50),
    "fq_codel": Queue("fq_codel"),
    "fq": Queue("fq"),
    "sfq": Queue("sfq"),
    "codel": Queue("codel"),
    "cake": Queue("cake"),
    # The long queue, and a token bucket at the sender.
    LIMIT: Queue("pfifo", 1000),
}
LOADS = ("idle", "half", "full")
# Seconds between questions, and until the load has settled.
PERIOD, SETTLE = 0.005, 1
COLUMNS = ("queue", "load", "RTT p50/p90/p99 (ms)", "lost (%)", "to idle", "bulk (Mbit/s)", "room of the queue (ms)")


@dataclass(frozen=True, slots=True)
class Taken:
    """One repeat. bulk: what arrived of the load, bit/s; busy: percent of the machine's CPUs."""

    run: suite.Run
    bulk: float
    busy: float


class LatencyUnderLoad:
    """The scenario object."""

    name = "latency-under-load"
    description = "round trips over a shaped link that others leave idle, half fill and fill; by the queue before it"
    options: Mapping[str, str] = {"rate": "10", "flows": "2", "queues": "all", "loads": "all", "seconds": "3"}

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """Who asks and who sends on one node, who answers and who receives on another, behind the slow link."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", f"{self.name} measures between two nodes", "2 or more")
        options.names(config.scenario, "queues", QUEUES)
        options.names(config.scenario, "loads", LOADS)
        for key in ("rate", "flows", "seconds"):
            options.number(config.scenario, key, 1)
        here, there = names[-2:]
        pods = {"asking": here, "sending": here, "answering": there, "receiving": there}
        text = "".join(idle.pod(name, node) for name, node in pods.items())
        rate = options.number(config.scenario, "rate", 1)
        return bottleneck.before(config, there, rate), manifests.load_text(text, self.name).objects

    def run(self, context: Context) -> Outcome:
        """Every load with every queue; the repeats go round, so that a slow moment of the machine disturbs all."""
        lab, chosen = context.lab, context.lab.config.scenario
        rate = options.number(chosen, "rate", 1)
        loads = options.names(chosen, "loads", LOADS)
        there = lab.kubelet.sandboxes["default/answering"].node.name
        lacking: dict[str, str] = {}
        failed: dict[str, None] = {}
        taken: dict[tuple[str, str], list[Taken]] = {}
        for repeat in range(1, context.repeats + 1):
            for name in options.names(chosen, "queues", QUEUES):
                if name in lacking or (why := bottleneck.set_queue(lab, there, QUEUES[name])):
                    lacking.setdefault(name, why)
                    continue
                for load in loads:
                    context.progress(f"{name}, {load} {repeat}/{context.repeats}")
                    before = environment.cpu_times_now()
                    try:
                        found = _once(context, name, load)
                    except ProgramError as problem:
                        failed[f"{name}, {load}: {problem}"] = None
                        continue
                    busy, _ = environment.shares(before, environment.cpu_times_now())
                    taken.setdefault((name, load), []).append(Taken(*found, busy))
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for (name, load), each in taken.items():
            for kind, unit, runs in (
                ("udp_rr", "us", [one.run for one in each]),
                ("bulk", "bit/s", [suite.Run((one.bulk,)) for one in each if one.bulk]),
            ):
                if runs:
                    measurement, values = suite.combine(kind, f"{name}, {load}", unit, runs)
                    measurements.append(measurement)
                    samples += values
        most = bottleneck.handed_over(lab.parts.datapath)
        rows = [*_rows(taken, rate, most), *((name, "left out", why, *[""] * 4) for name, why in lacking.items())]
        late = [one.run.details["late_us"] / 1e3 for each in taken.values() for one in each]
        notes = [
            f"The link to the answering node carries {rate} Mbit/s; the queue is its switch's, in packets. "
            "half: UDP at half the rate; full: greedy TCP connections.",
            f"One question each {PERIOD * 1e3:.0f} ms, whether or not the one before was answered, timed from when it "
            f"was due; in the median repeat 1 % of them left {stats.median(late or [0]):.1f} ms late or more.",
            f"{LIMIT}: pfifo 1000, and the sending pod's interface held to {SHARE:.0%} of the link by a token bucket.",
            contrast.METHOD,
        ]
        if most:
            notes.append(f"In userspace a switch hands a queue about {most} packets at most, however long it is.")
        if lacking:
            notes.append("What this kernel lacks a distribution's has: modprobe it, or run in a VM with one.")
        every = {f"{name}, {load}": stats.median(one.busy for one in each) for (name, load), each in taken.items()}
        notes += environment.cpu_bound(every)
        title = "Round trips over a link that others fill"
        return Outcome(measurements, samples, notes, (TextTable(title, COLUMNS, tuple(rows)),), list(failed))


SCENARIO = LatencyUnderLoad()


def _once(context: Context, name: str, load: str) -> tuple[suite.Run, float]:
    """Of one repeat: the round trips, and what arrived of the load."""
    config = context.lab.config.scenario
    rate, flows, seconds = (options.number(config, key, 1) for key in ("rate", "flows", "seconds"))
    asking, sending, answering, receiving = (
        context.place(f"default/{pod}") for pod in ("asking", "sending", "answering", "receiving")
    )
    held = held_to(sending, rate * SHARE) if name == LIMIT else contextlib.nullcontext()
    ask = partial(suite.paced, asking, answering.address, period=PERIOD, port=RR_PORT)
    with serving(answering, script("rr.py", "server", "udp", answering.address, RR_PORT), "ready"), held:
        ask(seconds=0.2)  # warms the way up
        if load == "idle":
            return ask(seconds=seconds), 0.0
        how: dict[str, Any] = {"protocol": "tcp", "streams": flows}
        if load == "half":
            how = {"protocol": "udp", "rate": rate * 500_000}
        with iperf.beside(sending, receiving, seconds + SETTLE + 1, port=BULK_PORT, **how) as sent:
            time.sleep(SETTLE)
            return ask(seconds=seconds), sent().bits_per_second


@contextlib.contextmanager
def held_to(sender: Place, megabits: float) -> Iterator[None]:
    """What leaves a pod, held to a rate by a token bucket that lets a packet wait 50 ms (tc-tbf(8))."""
    device = ["dev", "eth0", "root"]
    bucket = ["tbf", "rate", f"{megabits:g}mbit", "burst", "16kb", "latency", "50ms"]
    run(sender, ["tc", "qdisc", "add", *device, *bucket], 10)
    try:
        yield
    finally:
        run(sender, ["tc", "qdisc", "del", *device], 10)


def _rows(taken: Mapping[tuple[str, str], Sequence[Taken]], rate: int, most: int | None) -> Iterator[tuple[str, ...]]:
    for (name, load), each in taken.items():
        summaries = [stats.summary(one.run.values) for one in each if one.run.values]
        asked = sum(len(one.run.values) + one.run.lost for one in each)
        lost = f"{100 * sum(one.run.lost for one in each) / asked:.1f}"
        room = QUEUES[name].room(rate, most)
        bulk = f"{stats.median(one.bulk for one in each) / 1e6:.1f}" if load != "idle" else "-"
        medians = {
            which: [stats.median(one.run.values) for one in taken.get((name, which), ()) if one.run.values]
            for which in ("idle", load)
        }
        times = stats.repeat_summary(summaries) if summaries else None
        shown = "/".join(f"{t / 1e3:.1f}" for t in (times.p50, times.p90, times.p99)) if times else "none came"
        ratio = contrast.to_first(medians).get(load, "-") if load != "idle" else "-"
        yield name, load, shown, lost, ratio, bulk, f"{room:.0f}" if room else "by itself"
