"""virtual-devices: the building blocks one by one, each between two namespaces: speed, round trips, CPU per Gbit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from scenarios import Context, Outcome
from scenarios.lab import options
from scenarios.measure import environment, stats, suite, usage
from scenarios.measure.device_pairs import KINDS, Pair, set_offload
from scenarios.measure.place import ProgramError
from scenarios.report import contrast
from scenarios.report.results import Measurement, Samples, TextTable
from topo.cluster.errors import PlatformError
from topo.cluster.store import Object
from topo.config import LabConfig

# What the others are compared with, and the states of offload in which they are.
BASE = "veth"
STATES: Mapping[str, bool] = {"off": False, "on": True}
IPERF_PORT, RR_PORT = 5201, 7001
COLUMNS = (
    *("device", "offload", "ICMP RTT (us)", "TCP RR (us)", "RR to veth", "Gbit/s", "to veth"),
    *("CPU s per Gbit", "CPUs busy (%)"),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One repeat. cost: CPU seconds of the programs for each Gbit that arrived."""

    rtt: suite.Run
    rr: suite.Run
    throughput: suite.Run
    cost: float
    busy: float


class VirtualDevices:
    """The scenario object."""

    name = "virtual-devices"
    description = "veth, TAP, bridge, macvlan, macvtap, OVS, VXLAN, NAT, 1 to 10,000 rules: speed, round trips, CPU"
    options: Mapping[str, str] = {"devices": "all", "offload": "off,on"}

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """The least lab there is: what is measured is made beside it, in the same capsule."""
        options.names(config.scenario, "devices", KINDS)
        options.names(config.scenario, "offload", STATES)
        return replace(config, nodes=config.nodes[:1], dns=False), []

    def run(self, context: Context) -> Outcome:
        """All that this kernel has is made first; then the repeats go round, each device in each state."""
        chosen = context.lab.config.scenario
        states = options.names(chosen, "offload", STATES)
        lacking: dict[str, str] = {}
        pairs: dict[str, Pair] = {}
        taken: dict[tuple[str, str], list[Taken]] = {}
        failed: dict[str, None] = {}
        kept: dict[str, None] = {}
        with ExitStack() as stack:
            for name in options.names(chosen, "devices", KINDS):
                context.progress(f"making {name}")
                own = ExitStack()
                try:
                    pairs[name] = KINDS[name](own)
                    stack.enter_context(own)
                except PlatformError as problem:
                    own.close()
                    lacking[name] = str(problem)
                except BaseException:
                    own.close()
                    raise
            for repeat in range(1, context.repeats + 1):
                for name, pair in pairs.items():
                    for state in states:
                        if STATES[state] and pair.offload:
                            continue
                        context.progress(f"{name}, offload {state} {repeat}/{context.repeats}")
                        if not set_offload(pair, STATES[state]):
                            kept[f"{name} ({state})"] = None
                            continue
                        try:
                            once = _once(context, pair)
                        except ProgramError as problem:
                            failed |= {f"{name}, offload {state}: {problem}": None}
                        else:
                            taken.setdefault((name, state), []).append(once)
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for (name, state), each in taken.items():
            for kind, unit, runs in (
                ("icmp_rtt", "us", [one.rtt for one in each]),
                ("tcp_rr", "us", [one.rr for one in each]),
                ("tcp_throughput", "bit/s", [one.throughput for one in each]),
                ("cpu_per_gbit", "CPU s", [suite.Run((one.cost,)) for one in each]),
            ):
                measurement, values = suite.combine(kind, f"{name}, offload {state}", unit, runs)
                measurements.append(measurement)
                samples += values
        rows = [*_rows(taken, states), *((name, "left out", *["-"] * (len(COLUMNS) - 2)) for name in lacking)]
        table = TextTable("What virtual devices cost, each between two namespaces", COLUMNS, tuple(rows))
        notes = [*_notes(pairs, taken), *(f"{name} is left out: {why}." for name, why in lacking.items())]
        if kept:
            notes.append(f"Not measured, for the device keeps segmentation whatever ethtool says: {', '.join(kept)}.")
        return Outcome(measurements, samples, notes, (table,), list(failed))


SCENARIO = VirtualDevices()


def _once(context: Context, pair: Pair) -> Taken:
    client, server, address = pair.client, pair.server, pair.address
    before, busy = usage.read({"carriers": pair.programs}), environment.cpu_times_now()
    throughput = suite.iperf3(client, server, "tcp", address=address, port=IPERF_PORT)
    percent, _ = environment.shares(busy, environment.cpu_times_now())
    carried = usage.difference(before, usage.read({"carriers": pair.programs})).groups["carriers"].cpu_seconds
    ends = sum(throughput.details[f"cpu_{end}_percent"] for end in ("client", "server")) / 100 * suite.IPERF_SECONDS
    gigabits = throughput.values[0] * suite.IPERF_SECONDS / 1e9
    rtt = suite.ping(client, address, seconds=context.seconds)
    rr = suite.request_response(client, server, "tcp", seconds=context.seconds, address=address, port=RR_PORT)
    return Taken(rtt, rr, throughput, (ends + carried) / gigabits if gigabits else 0.0, percent)


def _rows(taken: Mapping[tuple[str, str], Sequence[Taken]], states: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Each state by itself, for only what has the same offloads can be compared."""
    for state in states:
        found = {name: each for (name, of), each in taken.items() if of == state}
        base = {BASE: found[BASE]} if BASE in found else {}
        # veth first, whatever the order in which they were asked for.
        rr = contrast.to_first(
            {n: [stats.median(o.rr.values) for o in e if o.rr.values] for n, e in (base | found).items()}
        )
        rates = contrast.to_first({n: [o.throughput.values[0] for o in e] for n, e in (base | found).items()})
        for name, each in found.items():
            yield (
                *(name, state, _median([o.rtt for o in each]), _median([o.rr for o in each])),
                rr.get(name, "-") if base else "-",
                f"{stats.median(o.throughput.values[0] for o in each) / 1e9:.2f}",
                rates.get(name, "-") if base else "-",
                f"{stats.median(o.cost for o in each):.2f}",
                f"{stats.median(o.busy for o in each):.0f}",
            )


def _median(runs: Sequence[suite.Run]) -> str:
    summaries = [stats.summary(one.values) for one in runs if one.values]
    return f"{stats.repeat_summary(summaries).p50:.0f}" if summaries else "-"


def _notes(pairs: Mapping[str, Pair], taken: Mapping[tuple[str, str], Sequence[Taken]]) -> list[str]:
    notes = [
        "offload: checksums, segmentation and its opposite at both ends' devices, off or on; only rows of one state "
        "can be compared. off: a frame has 1500 bytes of IP packet at most, 1450 with VXLAN.",
        "CPU s per Gbit: CPU time of iperf3 at both ends, which is charged with what the kernel does for it, and of "
        "the program that carries packets, for each Gbit that arrived. Kernel threads are not in it.",
        "routed: a third namespace forwards; NAT and rules are there. Rules match no packet, so each passes all.",
        contrast.METHOD,
    ]
    reasons: dict[str, list[str]] = {}
    for name, pair in pairs.items():
        if pair.offload:
            reasons.setdefault(pair.offload, []).append(name)
    notes += [f"Without offload on: {', '.join(names)}, for {reason}." for reason, names in reasons.items()]
    busy = {f"{name}, offload {state}": stats.median(o.busy for o in each) for (name, state), each in taken.items()}
    return notes + environment.cpu_bound(busy)
