"""routing-convergence: how long traffic stops when a link, a switch, a node or the controller dies, by who routes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Literal

from scenarios import Context, Outcome, Variant
from scenarios.lab import failures, idle, options
from scenarios.measure import suite
from scenarios.measure.outage import Outage, stream
from scenarios.measure.place import Place
from scenarios.report.results import Measurement, Samples, TextTable
from topo import manifests
from topo.config import FabricConfig, LabConfig
from topo.lab import Lab
from topo.labfile import default_config

PORT = 5599
# Of two nodes; which of them answers, routes decide.
ANYCAST = "192.0.2.1"
_BGP = {"announce": [{"prefix": f"{ANYCAST}/32", "nodes": ["worker", "worker2"]}]}
_NODES = ("worker", "worker2")
_ALL = ("link down", "far link down", "link flaps", "spine dead", "leaf dead", "node dead", "controller dead")


@dataclass(frozen=True, slots=True)
class Mode:
    """Who routes. patience: seconds that are enough for it to notice. limits: event -> seconds without traffic."""

    cni: str
    options: Mapping[str, object]
    routing: Literal["l2", "l3"] = "l2"
    patience: float = 1.5
    limits: Mapping[str, float] = field(default_factory=dict)
    events: tuple[str, ...] = _ALL


# A switch that sees a dead link leaves it out at once; a far one hears of it from the controller, or by BGP.
_FAST = {"link down": 0.05, "far link down": 1, "link flaps": 1, "spine dead": 0.05}
_BIRD: dict[str, object] = {"speaker": "bird", "holdTime": 3}
MODES = {
    "flows": Mode("calico", {}, limits=_FAST),
    "flows-routed": Mode("flannel", {}, "l3", limits=_FAST, events=tuple(e for e in _ALL if e != "node dead")),
    "bird": Mode("calico", _BIRD, patience=5, limits=_FAST | {"node dead": 4}),
    "bird-bfd": Mode("calico", _BIRD | {"bfd": True}, patience=2.5, limits=_FAST | {"node dead": 1}),
    "tor-bfd": Mode(
        "calico",
        _BIRD | {"bfd": True, "peering": "tor"},
        "l3",
        patience=2.5,
        limits=dict.fromkeys(("link silent", "link down", "far link down", "link flaps", "spine dead", "node dead"), 1),
        events=("link silent", *_ALL),
    ),
}


class RoutingConvergence:
    """The scenario object."""

    name = "routing-convergence"
    description = "time without traffic when a link, switch, node or the controller dies, by who routes"
    options = {"modes": "all", "events": "all"}

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """A lab for each mode: three nodes on two leaves and two spines."""
        pods = "".join(idle.pod(n, node) for n, node in (("near", "control-plane"), ("far", "worker")))
        objects = manifests.load_text(pods, self.name).objects
        found = []
        for name in options.names(config.scenario, "modes", MODES):
            mode = MODES[name]
            lab = replace(config, nodes=default_config(3).nodes, cni=mode.cni, cni_options=mode.options, dns=False)
            lab = replace(lab, bgp=_BGP if "node dead" in mode.events else {})
            found.append(Variant(name, replace(lab, fabric=FabricConfig(routing=mode.routing)), objects))
        return found

    def run(self, context: Context) -> Outcome:
        """Every event, so many times."""
        lab, mode = context.lab, _mode_of(context.lab.config)
        rows, failed = [], []
        measurements: list[Measurement] = []
        samples: list[Samples] = []
        chosen = options.names(lab.config.scenario, "events", ("link silent", *_ALL))
        for event in (event for event in mode.events if event in chosen):
            found: list[Outage] = []
            ways = ("", "")
            for repeat in range(1, context.repeats + 1):
                context.progress(f"{event} {repeat}/{context.repeats}")
                failures.settle(lab)
                one, ways = _EVENTS[event](context, mode)
                found.append(one)
            limit = mode.limits.get(event)
            times = [one.seconds for one in found if one.seconds is not None]
            failed += list(_missed(event, found, limit))
            if times:
                measurement, more = suite.combine(event, "outage", "us", [suite.Run(tuple(t * 1e6 for t in times))])
                measurements.append(measurement)
                samples += more
            expected = f"under {limit * 1e3:g}" if limit else _OTHERWISE.get(event, "comes back")
            shown = f"{median(times) * 1e3:.0f} (worst {max(times) * 1e3:.0f})" if times else "does not come back"
            lost = f"{median(one.lost for one in found):.0f}"
            rows.append((event, shown, lost, *ways, expected))
        return Outcome(measurements, samples, tables=(TextTable("", _COLUMNS, tuple(rows)),), failed=failed)

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """One table."""
        rows = tuple((mode, *row) for mode, found in outcomes.items() for row in found.tables[0].rows)
        measurements = [replace(m, path=f"{mode}: {m.path}") for mode, o in outcomes.items() for m in o.measurements]
        samples = [replace(s, path=f"{mode}: {s.path}") for mode, o in outcomes.items() for s in o.samples]
        notes = [f"{mode} was not measured: {why}" for mode, why in missing.items()]
        notes += [
            "One datagram a millisecond, one way. Time without traffic: from the sending of the last one before the "
            "longest interruption to that of the first one after it; medians of the repeats.",
            "link down: both ends lose the carrier; silent: they do not, and nothing passes; far: it is not the "
            "sender's own switch that sees it. flaps: five times down and up in a second. leaf dead: the receiver's, "
            "which has no other, for a second. node dead: of two that have one address, the one that was asked.",
        ]
        failed = [f"{mode}: {text}" for mode, found in outcomes.items() for text in found.failed]
        table = TextTable("What an interruption costs, by who routes", ("mode", *_COLUMNS), rows)
        return Outcome(measurements, samples, notes, (table,), failed)


SCENARIO = RoutingConvergence()
_COLUMNS = ("event", "without traffic (ms)", "lost", "way before", "way after", "expected (ms)")
_OTHERWISE = {"controller dead": "none lost"}
Ways = tuple[str, str]


def _mode_of(config: LabConfig) -> Mode:
    """Which one this lab is of."""
    for mode in MODES.values():
        if (mode.cni, mode.options, mode.routing) == (config.cni, config.cni_options, config.fabric.routing):
            return mode
    raise AssertionError("the lab is of no mode")


def _missed(event: str, found: Sequence[Outage], limit: float | None) -> Iterator[str]:
    """What was expected and did not come, a sentence each."""
    times = [one.seconds for one in found if one.seconds is not None]
    if len(times) < len(found):
        yield f"{event}: traffic did not come back"
    elif event == "controller dead" and any(one.lost for one in found):
        yield f"{event}: {max(one.lost for one in found)} packets lost, not 0"
    elif limit is not None and median(times) > limit:
        yield f"{event}: {median(times) * 1e3:.0f} ms without traffic, not under {limit * 1e3:g}"


def _spine(lab: Lab) -> str:
    """Which of them the stream from near to far crosses."""
    return failures.busiest(lab, "leaf-1", {"spine-1", "spine-2"})


def _during(
    context: Context, mode: Mode, event: Callable[[Lab, str], AbstractContextManager[None]], stay: float = 0
) -> tuple[Outage, Ways]:
    """A stream from near to far while it happens. stay: seconds that it lasts, if that is not until traffic is back."""
    near, far = context.place("default/near"), context.place("default/far")
    with stream(near, [far], far.address, PORT) as running:
        time.sleep(0.2)
        before = _spine(context.lab)
        with event(context.lab, before):
            time.sleep(stay or mode.patience)
            after = before if stay else _spine(context.lab)
            found = None if stay else running.stop()
        if found is None:
            time.sleep(mode.patience)
            after = _spine(context.lab)
            found = running.stop()
    return found, (before, after)


@contextmanager
def _flaps(lab: Lab, spine: str) -> Iterator[None]:
    for _ in range(5):
        with failures.link_down(lab, "leaf-1", spine):
            time.sleep(0.1)
        time.sleep(0.1)
    yield


def _node_dead(context: Context, mode: Mode) -> tuple[Outage, Ways]:
    """A stream to an address that two nodes have."""
    lab = context.lab
    places = [Place(name, lab.nodes[name].machine.pid, str(lab.nodes[name].ip)) for name in _NODES]
    with stream(context.place("default/near"), places, ANYCAST, PORT) as running:
        time.sleep(0.2)
        before = _answering(lab)
        with failures.node_dead(lab, before):
            time.sleep(mode.patience)
            after = _answering(lab)
            found = running.stop()
    return found, (before, after)


def _answering(lab: Lab) -> str:
    """The node that the stream goes to."""
    for name in _NODES:
        if failures.busiest(lab, lab.nodes[name].attachment.switch, {name}):
            return name
    return "none"


_EVENTS: dict[str, Callable[[Context, Mode], tuple[Outage, Ways]]] = {
    "link down": lambda c, m: _during(c, m, lambda lab, spine: failures.link_down(lab, "leaf-1", spine)),
    "far link down": lambda c, m: _during(c, m, lambda lab, spine: failures.link_down(lab, "leaf-2", spine)),
    "link silent": lambda c, m: _during(c, m, lambda lab, spine: failures.link_silent(lab, spine, "leaf-1")),
    "link flaps": lambda c, m: _during(c, m, _flaps, stay=0.1),
    "spine dead": lambda c, m: _during(c, m, failures.switch_dead),
    "leaf dead": lambda c, m: _during(c, m, lambda lab, _: failures.switch_dead(lab, "leaf-2"), stay=1.0),
    "node dead": _node_dead,
    "controller dead": lambda c, m: _during(c, m, lambda lab, _: failures.controller_dead(lab), stay=1.0),
}
