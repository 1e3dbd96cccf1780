"""Which pods of which nodes belong to a group that policies speak of, and when that changed last."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from controllers.policy.model import Pod

# Numbers changes of groups: no two have the same, a group's that went and came again neither.
_CHANGES = itertools.count(1)


@dataclass(slots=True, eq=False)
class Group:
    """Pods of a group by node, and how many conjunctions and policies ask for it. change: number of the latest."""

    nodes: dict[str, dict[str, None]] = field(default_factory=dict)
    wanted: int = 0
    change: int = field(default_factory=_CHANGES.__next__)

    def put(self, pod: Pod) -> None:
        """The pod belongs to it."""
        self.change = next(_CHANGES)
        self.nodes.setdefault(pod.node, {})[pod.key] = None

    def take(self, pod: Pod) -> None:
        """The pod does not belong to it any more."""
        self.change = next(_CHANGES)
        there = self.nodes[pod.node]
        del there[pod.key]
        if not there:
            del self.nodes[pod.node]
