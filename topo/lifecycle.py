"""The containers of pods that are attached: started, probed, restarted, reported on, and ended with grace.

Source: Kubernetes, "Pod Lifecycle", "Init Containers", "Sidecar Containers", "Container Lifecycle Hooks". Everything
here runs in the kubelet's thread; other threads hand their news to its inbox.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from topo import containers, pod_status
from topo.cluster.store import NotFound, Object, Store, key_of, time_text
from topo.containers import Container
from topo.control.events import record
from topo.endings import Ending, Endings
from topo.inbox import Confirmer, Inbox
from topo.pods import Sandbox
from topo.probes import LIVENESS, Check, Prober, plan
from topo.programs import Program, Reaper, kill, terminate
from topo.standin.client import StandIn

# Opens ports of a pod, or opens them again: topo.standin.client.StandIn.
Listen = Callable[[str, int, dict[str, Any], Sequence[tuple[str, int]]], list[list[Any]]]


@dataclass(slots=True, eq=False)
class Run:
    """One pod's containers. gone: its sandbox is being removed, nothing may be done for it any more."""

    pod: Object
    sandbox: Sandbox
    containers: list[Container]
    checks: list[Check]
    steps: list[tuple[str, list[str]]]
    connected: bool = False
    gone: bool = False
    init: Program | None = None
    init_failures: int = 0
    ending: Ending | None = None
    hooks: list[Program] = field(default_factory=list)

    @property
    def uid(self) -> str:
        """The pod's; its name may be another's tomorrow."""
        return str(self.pod["metadata"]["uid"])

    @property
    def key(self) -> str:
        """NAMESPACE/NAME."""
        return self.sandbox.key

    @property
    def initialized(self) -> bool:
        """Whether its init containers are done."""
        return not self.steps


class Lifecycle:
    """All pods' containers. ended(key): called when a pod that was asked to end may be removed."""

    def __init__(
        self,
        store: Store,
        standin: StandIn,
        inbox: Inbox,
        withdrawn: Confirmer,
        ended: Callable[[str], None],
        honour_delay: bool,
    ) -> None:
        self._store, self._standin, self._inbox, self._honour_delay = store, standin, inbox, honour_delay
        self._ended = ended
        self._runs: dict[str, Run] = {}
        self._reaper = Reaper()
        self._prober = Prober(
            lambda uid, name, ready: inbox.put(partial(self._verdict, uid, name, ready)),
            lambda uid, name, purpose: inbox.put(partial(self._unhealthy, uid, name, purpose)),
        )
        self.endings = Endings(store, standin, inbox, withdrawn, self._reaper, ended)
        standin.each(
            lambda server: self._reaper.watch(server, lambda status: inbox.put(partial(self._unserved, status)))
        )

    def begin(self, pod: Object, sandbox: Sandbox) -> None:
        """Start the containers, unless init containers come first, and tell the store."""
        found = containers.of(pod)
        before = {one["name"]: one["restartCount"] for one in (pod.get("status") or {}).get("containerStatuses", ())}
        for container in found:  # of a pod whose sandbox is another now
            container.restarts = before.get(container.name, -1) + 1
        steps = containers.init_steps(pod)
        checks, notes = plan(pod, [c.name for c in found if c.is_real], self._honour_delay)
        run = self._runs[pod["metadata"]["uid"]] = Run(pod, sandbox, found, checks, steps)
        for text in notes:
            record(self._store, pod, "ProbeSubstituted", text, "Normal")
        for text in containers.lifecycle_notes(pod):
            record(self._store, pod, "HookSubstituted", text, "Normal")
        lines = [line for _, line in steps] + [c.command for c in found if c.is_real]
        missing = [line[0] for line in lines if shutil.which(line[0]) is None]
        for name in missing:
            record(self._store, pod, "Failed", f"program {name!r} is not installed")
        if missing:
            for container in found:
                container.over, container.exit = True, 127
            run.steps = []
        elif run.initialized:
            self._start_all(run)
        self._report(run)

    def connected(self, uid: str) -> None:
        """The pod's packets go everywhere now: its init containers run, or its probes begin."""
        run = self._runs.get(uid)
        if run is None or run.gone or run.ending:
            return
        run.connected = True
        if run.steps:
            self._next_step(run)
        else:
            self._probe_all(run)

    def terminate(self, pod: Object) -> None:
        """The pod is asked to end; asked again, earlier."""
        run = self._runs.get(pod["metadata"]["uid"])
        if run is None:  # it never began
            self._ended(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        else:
            self.endings.begin(run, pod)

    def fail(self, uid: str) -> None:
        """Everything of the pod was killed, and it is not to be started again."""
        run = self._runs.get(uid)
        if run is not None:
            for container in run.containers:
                container.exit = container.exit if container.over else 137
                container.running = container.started = container.ready = False
                container.over = True
            run.steps = []
            self._report(run)

    def remove(self, uid: str) -> None:
        """End what is left, at once."""
        run = self._runs.pop(uid, None)
        if run is None:
            return
        run.gone = True
        self._prober.remove(uid)
        self.endings.forget(run)
        self._standin.close(run.key)
        for program in filter(None, (run.init, *run.hooks, *(c.program for c in run.containers))):
            kill(program)

    # Starting

    def _start_all(self, run: Run) -> None:
        self._listen(run, self._standin.open, [port for container in run.containers for port in container.ports])
        for container in run.containers:
            self._start(run, container)

    def _listen(self, run: Run, how: Listen, ports: Sequence[tuple[str, int]]) -> None:
        meta = run.pod["metadata"]
        who = {"pod": meta["name"], "namespace": meta["namespace"], "node": run.sandbox.node.name}
        for protocol, port, why in how(run.key, run.sandbox.pid, who, ports):
            text = f"stand-in cannot listen on {protocol} port {port}: {why}"
            record(self._store, run.pod, "FailedListen", text)

    def _start(self, run: Run, container: Container) -> None:
        container.running, container.since = True, time.monotonic()
        if container.is_real:
            container.program = program = run.sandbox.host.start_daemon(*container.command)
            self._reaper.watch(
                program, lambda status: self._inbox.put(partial(self._exited, run, container, program, status))
            )

    def _next_step(self, run: Run) -> None:
        """Run the next init container's program, or start the others after the last."""
        if run.gone or run.ending:
            return
        if not run.steps:
            self._start_all(run)
            self._probe_all(run)
            self._report(run)
            return
        run.init = program = run.sandbox.host.start_daemon(*run.steps[0][1])
        self._reaper.watch(program, lambda status: self._inbox.put(partial(self._step_ended, run, status)))

    def _step_ended(self, run: Run, status: int) -> None:
        if run.gone or run.ending:
            return
        name, run.init = run.steps[0][0], None
        if status == 0:
            run.init_failures = 0
            del run.steps[0]
            self._next_step(run)
        elif run.pod["spec"].get("restartPolicy") == "Never":
            record(self._store, run.pod, "Failed", f"init container {name} ended with status {status}")
            for container in run.containers:
                container.over, container.exit = True, status
            run.steps = []
            self._report(run)
        else:
            run.init_failures += 1
            seconds = containers.delay_before(run.init_failures)
            text = f"init container {name} ended with status {status}; it is run again in {seconds:.0f} s"
            record(self._store, run.pod, "BackOff", text)
            self._inbox.after(seconds, partial(self._next_step, run))

    def _probe_all(self, run: Run) -> None:
        for container in run.containers:
            self._unprobed_is_ready(run, container)
        sandbox = run.sandbox
        if run.checks:
            self._prober.add(run.uid, run.checks, sandbox.node.machine.pid, sandbox.pid, str(sandbox.ip))
        self._report(run)

    def _unprobed_is_ready(self, run: Run, container: Container) -> None:
        """Where no probe says otherwise, who runs is ready; liveness probes say nothing of it."""
        if not any(c.container == container.name and c.purpose != LIVENESS for c in run.checks):
            container.started = container.ready = container.running

    # What happens to those that run

    def _verdict(self, uid: str, name: str, ready: bool) -> None:
        run = self._runs.get(uid)
        if run is None:
            return
        for container in run.containers:
            if container.name == name and container.running:
                container.ready = ready
                container.started = container.started or ready
        self._report(run)

    def _unhealthy(self, uid: str, name: str, purpose: str) -> None:
        """Its liveness or startup probe gave a container up: it is restarted, as its policy says."""
        run = self._runs.get(uid)
        container = next((c for c in run.containers if c.name == name), None) if run else None
        if run is None or container is None or run.ending or not container.running:
            return
        record(self._store, run.pod, "Unhealthy", f"{purpose} probe failed: container {name} is restarted")
        if container.program is not None:
            terminate(container.program)
            grace = run.pod["spec"].get("terminationGracePeriodSeconds", 30)
            self._inbox.after(grace, partial(_kill_if_running, container, container.program))
            return
        container.started = container.ready = False
        container.restarts += 1
        self._report(run)  # it is not ready before it is again
        self._listen(run, self._standin.restart, container.ports)
        self._unprobed_is_ready(run, container)
        self._prober.again(uid, name)
        self._report(run)

    def _exited(self, run: Run, container: Container, program: Program, status: int) -> None:
        if run.gone or container.program is not program:
            return
        container.program = None
        self._stopped(run, container, status)

    def _unserved(self, status: int) -> None:
        """The stand-ins' server ended, and with it every container that it served."""
        for run in list(self._runs.values()):
            for container in run.containers:
                if container.running and container.ports:
                    self._stopped(run, container, status)

    def _stopped(self, run: Run, container: Container, status: int) -> None:
        """A container ended by itself: what its pod's policy says happens. status: negative is a signal."""
        container.exit = status if status >= 0 else 128 - status
        container.running = container.started = container.ready = False
        self._prober.pause(run.uid, container.name)
        policy = "Always" if container.beside else run.pod["spec"].get("restartPolicy", "Always")
        if run.ending:
            self.endings.check(run)
        elif policy == "Always" or (policy == "OnFailure" and status != 0):
            seconds = container.delay(time.monotonic() - container.since)
            if seconds:
                text = f"container {container.name} ended with status {container.exit}; it is restarted after a while"
                record(self._store, run.pod, "BackOff", text)
            self._inbox.after(seconds, partial(self._restart, run, container))
        else:
            container.over = True
            if all(c.over for c in run.containers if not c.beside):
                self._complete(run)
        self._report(run)

    def _complete(self, run: Run) -> None:
        """The last container that counts has ended: sidecars and stand-ins end too."""
        self._prober.remove(run.uid)
        self._standin.close(run.key)
        for container in run.containers:
            program, container.program = container.program, None
            container.running = container.ready = container.started = False
            if program is not None:
                kill(program)

    def _restart(self, run: Run, container: Container) -> None:
        if run.gone or run.ending or container.running or container.over:
            return
        container.restarts += 1
        if container.ports:
            self._listen(run, self._standin.restart, container.ports)
        self._start(run, container)
        if run.connected:
            self._unprobed_is_ready(run, container)
            self._prober.again(run.uid, container.name)
        self._report(run)

    def _report(self, run: Run) -> None:
        def change(pod: Object) -> None:
            if pod["metadata"]["uid"] == run.uid:
                now = time_text(self._store.now())
                pod_status.write(pod, run.sandbox, run.containers, run.initialized, now)

        with suppress(NotFound):  # it may have gone meanwhile
            self._store.update(*key_of(run.pod), change)


def _kill_if_running(container: Container, program: Program) -> None:
    if container.program is program:
        kill(program)
