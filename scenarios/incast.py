"""incast: many pods answer one at the same moment over its slow link: completion time, goodput, timeouts, by queue."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from scenarios import Context, Outcome
from scenarios.lab import bottleneck, idle, options
from scenarios.lab.bottleneck import Queue
from scenarios.measure import environment, stats, suite, tcp_counters
from scenarios.measure.place import Place, run, script, serving
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.config import LabConfig

PORT, PATIENCE = 7090, 20.0
# The least time after which TCP sends again what nothing tells it of (Linux, tcp(7): 200 ms).
LEAST_TIMEOUT = 0.2
# What of each 1514 bytes on the wire is payload, with TCP's timestamps.
PAYLOAD = 1448
COLUMNS = (
    *("queue", "senders", "completion p50/p90/p99 (ms)", "at the link's rate (ms)", "goodput (Mbit/s)"),
    *("timeouts a round", "sent again a round", "rounds with a pause (%)", "CPUs busy (%)"),
)


@dataclass(frozen=True, slots=True)
class Taken:
    """One repeat: rounds' times in us, and what TCP of all senders counted meanwhile."""

    rounds: tuple[float, ...]
    broken: int
    retransmitted: int
    timeouts: int
    busy: float


class Incast:
    """The scenario object."""

    name = "incast"
    description = "1 to 16 senders answer one receiver at the same moment: completion, goodput, timeouts, by queue"
    options: Mapping[str, str] = {
        "senders": "1,2,4,8,16",
        "bytes": "32768",
        "rate": "20",
        "queues": "16,1000",
        "rounds": "10",
    }

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """The receiver behind the slow link, the senders on all other nodes in turn."""
        names = [node.name for node in config.nodes]
        if len(names) < 2:
            raise InputError("--nodes", f"{self.name} sends between nodes", "2 or more")
        options.numbers(config.scenario, "queues", 1)
        for key in ("bytes", "rate", "rounds"):
            options.number(config.scenario, key, 1)
        most = max(options.numbers(config.scenario, "senders", 1))
        *others, last = names
        text = idle.pod("receiver", last)
        text += "".join(idle.pod(_sender(n), others[n % len(others)]) for n in range(most))
        rate = options.number(config.scenario, "rate", 1)
        return bottleneck.before(config, last, rate), manifests.load_text(text, self.name).objects

    def run(self, context: Context) -> Outcome:
        """Every number of senders with every queue; the repeats go round."""
        lab, chosen = context.lab, context.lab.config.scenario
        counts, limits = (options.numbers(chosen, key, 1) for key in ("senders", "queues"))
        size, rate = (options.number(chosen, key, 1) for key in ("bytes", "rate"))
        senders = [context.place(f"default/{_sender(n)}") for n in range(max(counts))]
        node = lab.kubelet.sandboxes["default/receiver"].node.name
        taken: dict[tuple[int, int], list[Taken]] = {}
        with ExitStack() as stack:
            for sender in senders:
                command = script("incast.py", "sender", sender.address, PORT, size)
                stack.enter_context(serving(sender, command, "ready", 20.0))
            for repeat in range(1, context.repeats + 1):
                for limit in limits:
                    bottleneck.set_queue(lab, node, Queue("pfifo", limit))
                    for count in counts:
                        context.progress(f"queue of {limit}, {count} senders {repeat}/{context.repeats}")
                        taken.setdefault((limit, count), []).append(_once(context, senders[:count]))
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        for (limit, count), each in taken.items():
            runs = [suite.Run(one.rounds, one.broken, {"timeouts": one.timeouts}) for one in each]
            measurement, values = suite.combine("completion", f"queue {limit}, {count} senders", "us", runs)
            measurements.append(measurement)
            samples += values
        failed = [
            f"queue {limit}, {count} senders: {sum(one.broken for one in each)} rounds not over after {PATIENCE:g} s"
            for (limit, count), each in taken.items()
            if any(one.broken for one in each)
        ]
        notes = [
            f"Each sender answers with {size} bytes; the receiver's link carries {rate} Mbit/s, and its switch queues "
            "so many packets before it. at the link's rate: what all the bytes take there with their headers.",
            f"a pause: a round that took {LEAST_TIMEOUT * 1e3:.0f} ms longer than that: one sender at least waited for "
            "its retransmission timeout, while the link was idle. Counters are those of all senders' TCP.",
        ]
        if most := bottleneck.handed_over(lab.parts.datapath):
            notes.append(f"In userspace a switch hands a queue about {most} packets at most, however long it is.")
        busy = {f"queue {limit}, {count} senders": [one.busy for one in each] for (limit, count), each in taken.items()}
        notes += environment.cpu_bound({name: stats.median(percents) for name, percents in busy.items()})
        table = TextTable("Many answer one at the same moment", COLUMNS, tuple(_rows(taken, size, rate)))
        return Outcome(measurements, samples, notes, (table,), failed, _curves(taken, size))


SCENARIO = Incast()


def _sender(number: int) -> str:
    return f"sender-{number + 1}"


def _once(context: Context, senders: Sequence[Place]) -> Taken:
    size, rounds = (options.number(context.lab.config.scenario, key, 1) for key in ("bytes", "rounds"))
    names = tcp_counters.RETRANSMITTED, tcp_counters.TIMEOUTS
    pids = [sender.pid for sender in senders]
    busy, before = environment.cpu_times_now(), tcp_counters.total(pids, *names)
    command = script("incast.py", "receiver", PORT, size, rounds, PATIENCE, *(sender.address for sender in senders))
    found = json.loads(run(context.place("default/receiver"), command, rounds * PATIENCE + 20))
    retransmitted, timeouts = (n - o for n, o in zip(tcp_counters.total(pids, *names), before, strict=True))
    percent, _ = environment.shares(busy, environment.cpu_times_now())
    return Taken(tuple(found["rounds_us"]), found["broken"], retransmitted, timeouts, percent)


def least(count: int, size: int, rate: int) -> float:
    """Seconds that the bytes of all senders take on the link, with their headers, less what passes it at once."""
    return max(0.0, count * size * bottleneck.FRAME / PAYLOAD - bottleneck.burst(rate)) * 8 / (rate * 1e6)


def _rows(taken: Mapping[tuple[int, int], Sequence[Taken]], size: int, rate: int) -> Iterator[tuple[str, ...]]:
    for (limit, count), each in taken.items():
        summaries = [stats.summary(one.rounds) for one in each if one.rounds]
        rounds = [taken_us for one in each for taken_us in one.rounds]
        if not summaries:
            yield (str(limit), str(count), "no round was over", *[""] * (len(COLUMNS) - 3))
            continue
        times, shortest = stats.repeat_summary(summaries), least(count, size, rate)
        paused = sum(value / 1e6 > shortest + LEAST_TIMEOUT for value in rounds)
        yield (
            *(str(limit), str(count), "/".join(f"{t / 1e3:.1f}" for t in (times.p50, times.p90, times.p99))),
            *(f"{shortest * 1e3:.1f}", f"{_goodput(each, count, size):.1f}"),
            f"{sum(one.timeouts for one in each) / len(rounds):.1f}",
            f"{sum(one.retransmitted for one in each) / len(rounds):.1f}",
            f"{100 * paused / len(rounds):.0f}",
            f"{stats.median(one.busy for one in each):.0f}",
        )


def _goodput(each: Sequence[Taken], count: int, size: int) -> float:
    """Mbit/s over all rounds, the slow ones as long as they were."""
    rounds = [value for one in each for value in one.rounds]
    return count * size * 8 * len(rounds) / sum(rounds) if rounds else 0.0


def _curves(taken: Mapping[tuple[int, int], Sequence[Taken]], size: int) -> list[Curves]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for (limit, count), each in taken.items():
        lines.setdefault(f"queue of {limit}", []).append((float(count), _goodput(each, count, size)))
    return [Curves("incast goodput", "senders", "Mbit/s", {name: tuple(points) for name, points in lines.items()})]
