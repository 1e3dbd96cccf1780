"""What is asked of a lab: one file a scenario, which sets SCENARIO; the packages beside them are what they share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

# This file is imported by every verb; what it names only in types would take half a second to import.
if TYPE_CHECKING:
    from scenarios.measure.place import Place
    from scenarios.report.curves import Curves
    from scenarios.report.results import Measurement, Samples, TextTable
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
    """What a scenario found. notes: sentences a reader of the figures must know; failed: what was not as expected.

    evidence: texts that go into a folder of this name beside the report, by file.
    """

    measurements: Sequence[Measurement]
    samples: Sequence[Samples]
    notes: Sequence[str] = ()
    tables: Sequence[TextTable] = ()
    failed: Sequence[str] = ()
    curves: Sequence[Curves] = ()
    evidence: Mapping[str, str] = field(default_factory=dict)


class Scenario(Protocol):
    """What a scenario must be: one lab, and what is done in it.

    It may have options, name -> default as text, which --option changes; LabConfig.scenario has what was chosen.
    One that measures no times may say timed = False: its labs can then be side by side (`mininetes sweep --jobs`).
    """

    name: str
    description: str

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """The lab it wants, from the one the user asked for, and the objects to put into it. Raises InputError."""

    def run(self, context: Context) -> Outcome:
        """Do the work in the lab, which is ready."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several labs that a scenario compares."""

    name: str
    config: LabConfig
    objects: Sequence[Object]


class Comparison(Protocol):
    """A scenario of several labs, one after the other, each by itself on the machine."""

    name: str
    description: str

    def variants(self, config: LabConfig) -> Sequence[Variant]:
        """The labs it wants, from the one the user asked for. Raises InputError."""

    def run(self, context: Context) -> Outcome:
        """Do the work in one of them, which is ready."""

    def compare(self, outcomes: Mapping[str, Outcome], missing: Mapping[str, str]) -> Outcome:
        """All of it. missing: variants that could not be, and why."""
