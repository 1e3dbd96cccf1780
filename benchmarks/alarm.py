"""Whether `make regression` tells a path that became slower from one that did not: ten times each, for real.

What is slowed is the Service: kube-proxy's userspace mode takes every packet through a program of the node.
"""

from __future__ import annotations

from benchmarks import paths
from benchmarks.figure import Figure
from scenarios.measure import regression
from scenarios.testing.lab import started

ROUNDS = 10
# Kinds that a machine with other work measures steadily enough to say something of.
_KINDS = ("tcp_rr", "tcp_crr")


def figures() -> list[Figure]:
    """How many of the ten were judged wrongly."""
    found: list[Figure] = []
    for mode, what in (("ovs", "unchanged, called slower"), ("userspace", "slowed, not noticed")):
        slower = _slower(mode)
        wrong = {kind: n if mode == "ovs" else ROUNDS - n for kind, n in slower.items()}
        found += [Figure(f"{kind}: {what}, of {ROUNDS}", n, "", 1) for kind, n in wrong.items()]
    return found


def _slower(mode: str) -> dict[str, int]:
    """How often each kind was judged slower with this proxy mode."""
    found = dict.fromkeys(_KINDS, 0)
    with started("--no-dns", "--proxy", mode) as lab:
        address = paths.service(lab)
        for _ in range(ROUNDS):
            for kind in _KINDS:
                measured = paths.measure(lab, address, kind)
                known = regression.known_ratio(paths.BASELINES, paths.baseline(kind), measured)
                found[kind] += regression.judge(measured, known, paths.TOLERANCE).slower
    return found
