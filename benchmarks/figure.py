"""A measured figure with its goal, and running a measurement in a capsule of its own."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass

from topo import capsule


@dataclass(frozen=True, slots=True)
class Figure:
    """goal: the most it may be, in the same unit; None for what is only compared with."""

    name: str
    value: float
    unit: str
    goal: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without one."""
        return None if self.goal is None else self.value < self.goal


def in_capsule(measure: Callable[[], list[Figure]]) -> list[Figure]:
    """Measure in a new capsule, in a process of its own. Raises RuntimeError if that fails."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:

        def inside() -> int:
            os.write(write_end, json.dumps([asdict(f) for f in measure()]).encode())
            return 0

        os._exit(capsule.run(inside))
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        text = pipe.read()
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0:
        raise RuntimeError("a benchmark failed; its error stands above")
    return [Figure(**f) for f in json.loads(text)]
