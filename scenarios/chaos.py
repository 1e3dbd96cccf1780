"""chaos: parts of a lab fail at random, again and again, while manifests change; after each step it must be whole."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from scenarios import Context, Outcome
from scenarios.disorder import deeds, evidence, growth, manifests, rests
from scenarios.disorder.audit import audit
from scenarios.disorder.plan import FAULTS, Step, is_rest, steps
from scenarios.disorder.reach import NotWhole, converge
from scenarios.lab.options import names, numbers
from scenarios.measure import suite
from scenarios.netpol.prober_client import Prober
from scenarios.report.curves import Curves
from scenarios.report.results import Measurement, Samples, TextTable
from topo.cluster.errors import InputError
from topo.cluster.patience import patience
from topo.cluster.store import Object
from topo.config import LabConfig
from topo.lab import Lab

# The lab unless another is asked for: nodes that run BIRD have the most that can fail.
_BIRD: Mapping[str, object] = {"speaker": "bird", "holdTime": 3}
_LABS = ("bird", "own")


@dataclass(slots=True)
class Story:
    """What happened so far. took: seconds until the lab was whole again, with the step."""

    took: list[tuple[Step, float]] = field(default_factory=list)
    rests: list[growth.Rest] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    evidence: Mapping[str, str] = field(default_factory=dict)


class Chaos:
    """The scenario object."""

    name = "chaos"
    description = "random failures while manifests change, seeded; after each step connectivity, flows, addresses agree"
    options = {"steps": "50", "kinds": "all", "lab": "bird", "patience": "30"}

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """Calico with BIRD on every node; lab=own for the lab that was asked for."""
        wanted = config.scenario["lab"]
        if wanted not in _LABS:
            raise InputError(f"--option lab={wanted}", "there is no such lab", " or ".join(_LABS))
        _number(config.scenario, "steps")
        _number(config.scenario, "patience")
        names(config.scenario, "kinds", FAULTS)
        if len(config.nodes) < 2:
            raise InputError("--nodes", f"{self.name} needs nodes that others stand in for", "2 or more")
        if wanted == "bird":
            config = replace(config, cni="calico", cni_options=_BIRD)
        return config, manifests.at_rest()

    def run(self, context: Context) -> Outcome:
        """Step by step, until all are done or one fails."""
        lab, story = context.lab, Story()
        count, longest = _number(lab.config.scenario, "steps"), patience(_number(lab.config.scenario, "patience"))
        asked = frozenset(names(lab.config.scenario, "kinds", FAULTS))
        missing = deeds.left_out(asked)
        todo = steps(lab.parts.seed, deeds.shape(lab), count, asked - missing.keys())
        with Prober() as prober:
            problem = _beginning(lab, prober, longest)
            for step in todo if not problem else ():
                context.progress(f"{step.number}/{count} {step.fault} {' '.join(step.target)}")
                problem = _step(lab, prober, step, story, longest, at_rest=is_rest(step, count))
                if problem:
                    break
        if problem:
            story.evidence = evidence.gather(lab)
            story.failed.append(f"seed {lab.parts.seed}, {problem}")
        story.failed += growth.leaks(story.rests)
        notes = [f"{kind} was left out: it {why}" for kind, why in missing.items()]
        return _outcome(story, notes)


SCENARIO = Chaos()


def _number(options: Mapping[str, str], key: str) -> int:
    found = numbers(options, key, 1)
    if len(found) != 1:
        raise InputError(f"--option {key}={options[key]}", "is more than one number", "one number: 50")
    return found[0]


def _beginning(lab: Lab, prober: Prober, longest: float) -> str:
    try:
        converge(lab, prober, longest)
    except NotWhole as error:
        return f"before the first step: {error}"
    return "; ".join(_soon(lambda: audit(lab), longest))


def _step(lab: Lab, prober: Prober, step: Step, story: Story, longest: float, *, at_rest: bool) -> str:
    """One of them, and what was wrong after it; "" if nothing."""
    try:
        deeds.suffer(lab, step)
        took = converge(lab, prober, longest)
        if wrong := _soon(lambda: audit(lab), longest):
            return f"{step}: {'; '.join(wrong)}"
        story.took.append((step, took))
        if at_rest:
            deeds.rest(lab)
            converge(lab, prober, longest)
            if wrong := _soon(lambda: [*audit(lab), *rests.ending(lab)], longest):
                return f"{step}, at rest after it: {'; '.join(wrong)}"
            story.rests.append(rests.count(lab, step.number))
    except NotWhole as error:
        return "; ".join((f"{step}: {error}", *_audited(lab)))
    except Exception as error:  # whatever the lab could not do is what is looked for
        return f"{step}: {type(error).__name__}: {error}"
    return ""


def _audited(lab: Lab) -> list[str]:
    """What an audit finds in a lab that is not whole, and may not even answer."""
    try:
        return audit(lab)
    except (OSError, RuntimeError) as error:
        return [str(error)]


def _soon(look: Callable[[], list[str]], longest: float) -> list[str]:
    """What is found for longer than what is on its way takes: processes that end, agents that start."""
    deadline = time.monotonic() + longest / 3
    while (wrong := look()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return wrong


def _outcome(story: Story, notes: list[str]) -> Outcome:
    measurements: list[Measurement] = []
    samples: list[Samples] = []
    rows = []
    for kind in FAULTS:
        times = [took for step, took in story.took if step.fault == kind]
        if times:
            one, more = suite.combine(kind, "whole again", "us", [suite.Run(tuple(t * 1e6 for t in times))])
            measurements.append(one)
            samples += more
            rows.append((kind, str(len(times)), f"{median(times):.2f}", f"{max(times):.2f}"))
    tables = [TextTable("After each failure", ("failure", "times", "whole again after (s)", "worst"), tuple(rows))]
    tables += _growth(story.rests)
    notes = [
        *notes,
        "Whole: all pods ready, all flows confirmed, every pod's packets reach whom policies and Services say and "
        "nobody else. After each step the flows and groups of every switch are those of a compilation from nothing, "
        "no datagram is translated to what is no endpoint, every address, interface, port and process is somebody's.",
    ]
    return Outcome(measurements, samples, notes, tables, story.failed, _curves(story), story.evidence)


def _growth(rested: Sequence[growth.Rest]) -> list[TextTable]:
    """What there was at the first rest and at the last, and what it grew by meanwhile."""
    if not rested:
        return []
    first, last = rested[0].step, rested[-1].step
    rows = []
    for measure, kind in growth.MEASURES.items():
        for name, points in growth.series(rested, measure).items():
            found = growth.slope(growth.warm(points))
            cells = (f"{found.middle * 100:.2f}", f"{found.least * 100:.2f}") if found else ("-", "-")
            what = f"{measure} of {name}" + (f" ({kind.unit})" if kind.unit else "")
            rows.append((what, f"{points[0][1]:.4g}", f"{points[-1][1]:.4g}", *cells))
    columns = ("what", f"at step {first}", f"at step {last}", "more in 100 steps", "at least")
    return [TextTable("What is left, with the manifests of the beginning", columns, tuple(rows))]


def _curves(story: Story) -> list[Curves]:
    if len(story.rests) < 2:
        return []
    lines = {name: tuple(points) for name, points in growth.series(story.rests, "memory").items()}
    return [Curves("chaos memory", "steps", "memory (MiB)", lines)]
