"""What is asked of a lab: one file a scenario, which sets SCENARIO; the packages beside them are what they share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

# This file is imported by every verb; what it names only in types would take half a second to import.
if TYPE_CHECKING:
    from scenarios.measure.place import Place
    from scenarios.report.results import Measurement, Samples
    from topo.cluster.store import Object
    from topo.config import LabConfig
    from topo.lab import Lab


@dataclass(frozen=True, slots=True)
class Context:
    """A running lab and how thoroughly to measure. seconds: of each latency run."""

    lab: Lab
    progress: Callable[[str], None]
    repeats: int
    seconds: float

    def place(self, pod: str) -> Place:
        """A pod by namespace/name, as a place to run programs in."""
        from scenarios.measure.place import Place

        sandbox = self.lab.kubelet.sandboxes[pod]
        return Place(pod, sandbox.pid, str(sandbox.ip))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a scenario found. notes: sentences a reader of the figures must know."""

    measurements: Sequence[Measurement]
    samples: Sequence[Samples]
    notes: Sequence[str] = ()


class Scenario(Protocol):
    """What a scenario must be."""

    name: str
    description: str

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """The lab it wants, from the one the user asked for, and the objects to put into it. Raises InputError."""

    def run(self, context: Context) -> Outcome:
        """Do the work in the lab, which is ready."""
