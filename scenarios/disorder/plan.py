"""What goes wrong, step by step: a function of the seed and of what the lab is made of, so that a run repeats; pure."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

Target = tuple[str, ...]
# Seconds that a failure lasts: over before anybody noticed, noticed, handled, and long enough for BGP and probes.
LASTING = (0.0, 0.1, 0.5, 1.5)
# Steps after which the manifests are those of the beginning again, so that what is left over can be counted.
ROUND = 10
# Replicas that a Deployment is scaled to.
_MOST = 6


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a lab can break.

    links: (switch, neighbour) between switches, each with a way round; a node's only link has the node's name.
    birds: nodes that run BIRD. workloads: Deployments and their replicas as in the manifests.
    """

    nodes: tuple[str, ...]
    switches: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    birds: tuple[str, ...]
    workloads: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the manifests. kind: one of CHANGES; target: a Deployment; number: what that kind makes of it."""

    kind: str
    target: str
    number: int = 0

    def __str__(self) -> str:
        return f"{self.kind} {self.target} {self.number}".strip()


@dataclass(frozen=True, slots=True)
class Step:
    """One failure and what is changed meanwhile. number: from 1. fault: one of FAULTS. seconds: how long it lasts."""

    number: int
    fault: str
    target: Target
    seconds: float
    changes: tuple[Change, ...]

    def __str__(self) -> str:
        what = " ".join((self.fault, *self.target))
        changed = f" while {', '.join(map(str, self.changes))}" if self.changes else ""
        return f"step {self.number}: {what} for {self.seconds:g} s{changed}"


def _each(names: Sequence[str]) -> list[Target]:
    return [(name,) for name in names]


def _pods(shape: Shape) -> list[Target]:
    """A pod is named by its Deployment and its place among that one's pods: its own name is another in every run."""
    return [(name, str(number)) for name, count in shape.workloads.items() for number in range(count)]


def _wires(shape: Shape) -> list[Target]:
    return [*shape.links, *_each(shape.nodes)]


# What can fail, and of what; a kind that the lab has no target for does not occur.
FAULTS: Mapping[str, Callable[[Shape], Sequence[Target]]] = {
    "controller killed": lambda shape: [()],
    "agent killed": lambda shape: [()],
    "switch killed": lambda shape: _each((*shape.nodes, *shape.switches)),
    "database killed": lambda shape: _each((*shape.nodes, *shape.switches)),
    "BIRD killed": lambda shape: _each(shape.birds),
    "pod deleted": _pods,
    "pod killed": _pods,
    "node dead": lambda shape: _each(shape.nodes),
    "node replaced": lambda shape: _each(shape.nodes[1:]),
    "link cut": lambda shape: shape.links,
    "uplink cut": lambda shape: _each(shape.nodes),
    "link slow": _wires,
    "link lossy": _wires,
    "link duplicating": _wires,
}
# What can be changed of the manifests meanwhile; the number is replicas, a revision, or whether it is to be there.
CHANGES = ("scale", "roll", "service", "policy")


def steps(seed: int, shape: Shape, count: int, kinds: Collection[str]) -> tuple[Step, ...]:
    """So many steps of these kinds. Each kind comes once before any comes again; a longer run begins as a shorter."""
    rng, found = random.Random(seed), []
    deck: list[str] = []
    there = {kind: FAULTS[kind](shape) for kind in FAULTS if kind in kinds}
    possible = [kind for kind, targets in there.items() if targets]
    for number in range(1, count + 1):
        if not deck:
            deck = rng.sample(possible, len(possible))
        fault = deck.pop()
        target, seconds = rng.choice(there[fault]), rng.choice(LASTING)
        changes = tuple(_changes(rng, shape, number))
        found.append(Step(number, fault, tuple(target), seconds, changes))
    return tuple(found)


def _changes(rng: random.Random, shape: Shape, number: int) -> Iterator[Change]:
    """None, one or two."""
    for _ in range(rng.choice((0, 1, 1, 2))):
        kind, target = rng.choice(CHANGES), rng.choice(sorted(shape.workloads))
        match kind:
            case "scale":
                yield Change(kind, target, rng.randint(0, _MOST))
            case "roll":
                yield Change(kind, target, number)
            case _:
                yield Change(kind, target, rng.randint(0, 1))


def is_rest(step: Step, count: int) -> bool:
    """Whether everything is to be as in the beginning after this step."""
    return step.number % ROUND == 0 or step.number == count
