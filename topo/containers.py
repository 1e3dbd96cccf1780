"""What a pod's containers are and how they begin and end, read from its manifest: pure, but for the state of each."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from topo.cluster import wiring
from topo.cluster.store import Object
from topo.control.children import sidecars
from topo.programs import Program

# Annotation: seconds that a pod's stand-ins go on serving after SIGTERM, at most until the end of the grace period.
SERVE = "mininetes.dev/serve-after-term"
# Kubernetes, "Pod Lifecycle", "Container restart policy": seconds before a restart; the first follows at once.
_FIRST_DELAY, _LONGEST_DELAY, _FORGET_AFTER = 10.0, 300.0, 600.0
_SLEEP = re.compile(r"(?:^|[\s;&|/])sleep\s+(\d+(?:\.\d+)?)([smh]?)(?=$|[\s;&|])")


def delay_before(failures: int) -> float:
    """Seconds until what has failed so often in a row is started again."""
    return 0.0 if failures <= 1 else min(_LONGEST_DELAY, _FIRST_DELAY * 2 ** min(failures - 2, 10))


@dataclass(slots=True)
class Container:
    """One container as it is now. program: what runs in place of the image's, or nothing for a stand-in.

    beside: whether it is a sidecar. exit: status of the last end of its program, None while there was none; failed: how
    often it ended in a row; over: whether it ended for good.
    """

    name: str
    command: list[str]
    ports: list[tuple[str, int]]
    beside: bool = False
    program: Program | None = None
    running: bool = False
    started: bool = False
    ready: bool = False
    restarts: int = 0
    failed: int = 0
    exit: int | None = None
    over: bool = False
    since: float = 0.0

    @property
    def is_real(self) -> bool:
        """Whether a program of this machine runs there."""
        return bool(self.command)

    def delay(self, ran: float) -> float:
        """Seconds to wait before it is started again. ran: seconds it ran before it ended."""
        if ran > _FORGET_AFTER:
            self.failed = 0
        self.failed += 1
        return delay_before(self.failed)


@dataclass(frozen=True, slots=True)
class Stop:
    """How a pod ends.

    pre_stop: container -> seconds until its SIGTERM; hooks: container -> program that ends before it.
    serve: seconds from the beginning for which stand-ins go on, or None for as long as somebody is sent there.
    """

    pre_stop: Mapping[str, float]
    hooks: Mapping[str, list[str]]
    serve: float | None


def commands(pod: Object) -> dict[str, list[str]]:
    """Container name -> program of the host that an annotation asks to run there, split as a shell splits words.

    mininetes.dev/command is the first container's, mininetes.dev/command.NAME that of container NAME, init or not.
    """
    notes = pod["metadata"].get("annotations") or {}
    regular = [c["name"] for c in pod["spec"]["containers"]]
    names = [c["name"] for c in pod["spec"].get("initContainers") or ()] + regular
    found = {name: notes[f"{wiring.COMMAND}.{name}"] for name in names if f"{wiring.COMMAND}.{name}" in notes}
    if wiring.COMMAND in notes:
        found.setdefault(regular[0], notes[wiring.COMMAND])
    return {name: shlex.split(line) for name, line in found.items()}


def of(pod: Object) -> list[Container]:
    """The containers that run as long as the pod does: sidecars, then the others. A port is the first's that has it."""
    real = commands(pod)
    taken: set[tuple[str, int]] = set()
    found = []
    beside = sidecars(pod)
    for container in (*beside, *pod["spec"]["containers"]):
        command = real.get(container["name"], [])
        listed = () if command else container.get("ports") or ()
        ports = {(p.get("protocol", "TCP"), p["containerPort"]): None for p in listed}
        found.append(Container(container["name"], command, [p for p in ports if p not in taken], container in beside))
        taken |= set(ports)
    return found


def init_steps(pod: Object) -> list[tuple[str, list[str]]]:
    """(name, program) of the init containers that have one, in order. The others do at once whatever they would do."""
    real, beside = commands(pod), {c["name"] for c in sidecars(pod)}
    names = [c["name"] for c in pod["spec"].get("initContainers") or ()]
    return [(name, real[name]) for name in names if name in real and name not in beside]


def stop(pod: Object) -> Stop:
    """How the pod ends (Kubernetes, "Container Lifecycle Hooks" and "Pod Lifecycle", "Termination of Pods")."""
    real, pre_stop, hooks = commands(pod), {}, {}
    for container in (*sidecars(pod), *pod["spec"]["containers"]):
        hook = (container.get("lifecycle") or {}).get("preStop") or {}
        command = (hook.get("exec") or {}).get("command") or []
        seconds = float((hook.get("sleep") or {}).get("seconds", 0)) or _sleeps(command)
        if seconds:
            pre_stop[container["name"]] = seconds
        elif command and container["name"] in real:
            hooks[container["name"]] = list(command)
    asked = _seconds((pod["metadata"].get("annotations") or {}).get(SERVE))
    longest = max((s for name, s in pre_stop.items() if name not in real), default=0.0)
    return Stop(pre_stop, hooks, None if asked is None and not longest else longest + (asked or 0.0))


def lifecycle_notes(pod: Object) -> list[str]:
    """A sentence for each hook that is not run."""
    real = commands(pod)
    notes = []
    for container in pod["spec"]["containers"]:
        for name, hook in (container.get("lifecycle") or {}).items():
            if name not in ("preStop", "postStart"):
                continue
            command = (hook.get("exec") or {}).get("command") or []
            is_run = "sleep" in hook or _sleeps(command) or (command and container["name"] in real)
            if name == "postStart" or not is_run:
                what = f"running {command[0]}" if command else "its request"
                notes.append(f"container {container['name']}: {name} is nothing instead of {what}")
    return notes


def _sleeps(command: Iterable[str]) -> float:
    """Seconds that a command sleeps: ["sleep", "5"], or a shell's line with such commands."""
    units = {"": 1, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in _SLEEP.findall(" ".join(command)))


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:
        return None
