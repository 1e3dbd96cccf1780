"""How pods end with grace: who is sent no more work stops listening, answers what it was asked, and goes.

Kubernetes, "Pod Lifecycle", "Termination of Pods": preStop hooks, SIGTERM, and SIGKILL when the grace period is over. A
stand-in has nothing to do after SIGTERM but to serve who is still sent to it, so that, unless the manifest says
otherwise, it goes on until every switch has confirmed that no new connection comes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from topo import containers
from topo.cluster.store import Object, Store
from topo.containers import Container, Stop
from topo.control.endpoints import is_node_ready
from topo.inbox import Confirmer, Inbox
from topo.programs import Reaper, terminate
from topo.standin.client import StandIn

if TYPE_CHECKING:
    from topo.lifecycle import Run

# Seconds that a stand-in listens on after the last switch confirmed that none is sent there: for those on the way, of
# whom one may have lost its SYN, which comes again after a second (RFC 6298).
_LINGER = 1.5
# Seconds between the last connection's end and that of its network: for what the kernel still has to send.
_LAST_WORDS = 0.3
# Seconds between two looks at the connections that are left.
_POLL = 0.05
_GRACE = 30


@dataclass(slots=True)
class Ending:
    """One pod's end. deadline: when it is over in any case (time.monotonic); drained: whether its stand-ins are."""

    deadline: float
    stop: Stop
    drained: bool
    draining: bool = False


class Endings:
    """All pods that are ending. ended(key): called once a pod may be removed."""

    def __init__(
        self,
        store: Store,
        standin: StandIn,
        inbox: Inbox,
        withdrawn: Confirmer,
        reaper: Reaper,
        ended: Callable[[str], None],
    ) -> None:
        self._store, self._standin, self._inbox = store, standin, inbox
        self._withdrawn, self._reaper, self._ended = withdrawn, reaper, ended
        # Pods that are still offered to new connections, and pods whose connections end, by uid.
        self._offered: dict[str, Run] = {}
        self._draining: dict[str, Run] = {}

    def begin(self, run: Run, pod: Object) -> None:
        """The pod is asked to end within its grace period. Asked again, the period can only get shorter."""
        grace = float(pod["metadata"].get("deletionGracePeriodSeconds", _GRACE))
        deadline = time.monotonic() + grace
        if run.ending is None:
            serving = any(c.running and c.ports for c in run.containers)
            run.ending = Ending(deadline, containers.stop(pod), drained=not serving)
            if grace > 0:
                self._stop_programs(run)
                self._stop_standins(run, grace)
        elif deadline < run.ending.deadline:
            run.ending.deadline = deadline
        else:
            return
        if grace <= 0:
            self._ended(run.key)
            return
        self._inbox.after(grace, partial(self._expire, run))
        self.check(run)

    def check(self, run: Run) -> None:
        """See whether all of it has ended."""
        if run.gone or run.ending is None or not run.ending.drained:
            return
        running = [c for c in run.containers if c.program is not None]
        if not running:
            self._ended(run.key)
        elif all(c.beside for c in running):  # sidecars go last
            for container in running:
                self._terminate(run, container)

    def look(self) -> None:
        """Endpoints have changed: whoever is offered no more may stop when the switches know it too."""
        if not self._offered:
            return
        offered = _offered(self._store)
        gone = [uid for uid, run in self._offered.items() if run.key not in offered]
        runs = [self._offered.pop(uid) for uid in gone]
        if not runs:
            return
        # A node whose switch is down sends nobody anywhere, and would not answer.
        nodes = {n["metadata"]["name"] for n in self._store.list("Node") if is_node_ready(n)}
        for run in runs:
            then = partial(self._inbox.after, _LINGER, partial(self._drain, run))
            self._withdrawn.ask(nodes, self._store.revision, then)

    def forget(self, run: Run) -> None:
        """It is gone."""
        self._offered.pop(run.uid, None)
        self._draining.pop(run.uid, None)

    def _stop_programs(self, run: Run) -> None:
        assert run.ending is not None
        stop = run.ending.stop
        for container in run.containers:
            if container.program is None or container.beside:
                continue
            then = partial(self._terminate, run, container)
            if container.name in stop.hooks:
                hook = run.sandbox.host.start_daemon(*stop.hooks[container.name])
                run.hooks.append(hook)
                self._reaper.watch(hook, lambda _, then=then: self._inbox.put(then))  # type: ignore[misc]
            else:
                self._inbox.after(stop.pre_stop.get(container.name, 0.0), then)

    def _stop_standins(self, run: Run, grace: float) -> None:
        assert run.ending is not None
        if run.ending.drained:
            return
        if run.ending.stop.serve is not None:
            self._inbox.after(min(run.ending.stop.serve, grace), partial(self._drain, run))
        elif run.key in _offered(self._store, also_ending=True):
            self._offered[run.uid] = run
            self.look()
        else:
            self._drain(run)

    @staticmethod
    def _terminate(run: Run, container: Container) -> None:
        if not run.gone and container.program is not None:
            terminate(container.program)

    def _drain(self, run: Run) -> None:
        if run.gone or run.ending is None or run.ending.draining:
            return
        run.ending.draining = True
        self._draining[run.uid] = run
        if len(self._draining) == 1:
            self._inbox.put(self._poll)

    def _poll(self) -> None:
        left = self._standin.drain([run.key for run in self._draining.values()])
        for uid, run in list(self._draining.items()):
            if left.get(run.key, 0) == 0:
                del self._draining[uid]
                self._inbox.after(_LAST_WORDS, partial(self._drained, run))
        if self._draining:
            self._inbox.after(_POLL, self._poll)

    def _drained(self, run: Run) -> None:
        if run.ending is not None:
            run.ending.drained = True
            self.check(run)

    def _expire(self, run: Run) -> None:
        if not run.gone and run.ending is not None and time.monotonic() >= run.ending.deadline:
            self._ended(run.key)


def _offered(store: Store, also_ending: bool = False) -> set[str]:
    """NAMESPACE/NAME of pods that new connections are sent to by some Service's endpoints.

    also_ending: those too that get them only where there is no other (KEP-1669).
    """
    found = set()
    for one in store.list("EndpointSlice"):
        for endpoint in one.get("endpoints") or ():
            state, target = endpoint.get("conditions") or {}, endpoint.get("targetRef") or {}
            ending = state.get("terminating") is True
            if (also_ending and ending) or (state.get("ready") is not False and not ending):
                found.add(f"{one['metadata']['namespace']}/{target.get('name', '')}")
    return found
