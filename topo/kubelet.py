"""Makes and removes the pods that are assigned to nodes; topo/lifecycle.py has what happens to their containers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import TypeVar

from mininet.net import Mininet

from topo import capsule, hosts, pod_files, pods
from topo.cluster.errors import InputError
from topo.cluster.store import DELETED, NotFound, Object, Store, key_of
from topo.cni.errors import CONFIGURATION, CniError, Code
from topo.cni.pod import BadPod
from topo.control.events import record
from topo.control.workloads import is_ending, is_over
from topo.inbox import Confirmer, Inbox
from topo.lifecycle import Lifecycle
from topo.nodes import Node
from topo.podnetwork import NodeNetwork
from topo.standin.client import StandIn

Answer = TypeVar("Answer")
# A pod and what was made for it.
Made = tuple[Object, pods.Sandbox]

LOG = logging.getLogger("mininetes")
# New pods that are made before anything else is looked at.
_BATCH = 64
# Seconds until what could not be removed or plugged in is tried again (its node's switch may be down, or not yet up).
_RETRY = 1.0
# Seconds between two looks whether what holds pods' namespaces lives.
_LOOK = 0.5
# Seconds until a pod's network is asked for again, after its plugins failed.
_ADD_RETRY = 5.0


class Kubelet:
    """All nodes' kubelets in one thread, which works through what the store asks in batches."""

    def __init__(
        self,
        store: Store,
        nodes: Mapping[str, Node],
        mininet: Mininet,
        standin: StandIn,
        connected: Callable[[set[str], int], None],
        network_of: Callable[[Node], NodeNetwork],
        honour_delay: bool,
    ) -> None:
        """connected(nodes, revision): waits until those nodes' switches hold the flows of that store revision."""
        self.store, self.nodes, self.mininet = store, nodes, mininet
        self.sandboxes: dict[str, pods.Sandbox] = {}
        # Why no pod at all can be attached, if that is so.
        self.refusal: InputError | None = None
        self._network_of = network_of
        self._networks: dict[str, NodeNetwork] = {}
        self._attached_any = False
        self._inbox = Inbox()
        # Two, for who ends must not wait with who begins: a switch may be down, or busy with the others.
        self._begins = Confirmer(connected, "pods-begin")
        ends = Confirmer(connected, "pods-end")
        self._life = Lifecycle(store, standin, self._inbox, ends, self._ended, honour_delay)
        # Pods to look at, and those of them that have ended.
        self._pending: dict[str, None] = {}
        self._over: set[str] = set()
        self._files = pod_files.Placer(capsule.RUN)
        self._uids: dict[str, str] = {}
        # Attached, and not yet plugged into their node's switch, which did not answer.
        self._unplugged: dict[str, list[Made]] = {}
        # Pods that found no free address, tried again when one of their node's goes.
        self._starved: dict[str, set[str]] = {}
        self._thread = threading.Thread(target=self._inbox.run, args=(self._pass,), name="kubelet", daemon=True)

    def start(self) -> None:
        """Begin to make pods."""
        things, _, self._watch = self.store.watch()
        self._note([_key(thing) for thing in things if thing["kind"] == "Pod"])
        threading.Thread(target=self._listen, name="kubelet-watch", daemon=True).start()
        self._inbox.after(_LOOK, self._look)
        self._thread.start()

    def ask(self, work: Callable[[], Answer]) -> Answer:
        """Have something done while no pod is being attached or detached, and wait for it. From any other thread."""
        done: Future[Answer] = Future()

        def do() -> None:
            try:
                done.set_result(work())
            except Exception as error:  # it is whoever waits who is to know
                done.set_exception(error)

        self._inbox.put(do)
        return done.result()

    def _listen(self) -> None:
        while (batch := self._watch.batch()) is not None:
            found = [event for event in batch if event.object["kind"] == "Pod"]
            keys = [_key(e.object) for e in found if "nodeName" in e.object["spec"] or e.type == DELETED]
            if keys:
                self._inbox.put(partial(self._note, keys))
            if any(event.object["kind"] == "EndpointSlice" for event in batch):
                self._inbox.put(self._life.endings.look)

    def _look(self) -> None:
        """Find sandboxes that ended by themselves, as a kubelet's relisting of them does."""
        self._note([key for key, sandbox in self.sandboxes.items() if not sandbox.lives()])
        self._inbox.after(_LOOK, self._look)

    def _note(self, keys: Iterable[str]) -> None:
        self._pending |= dict.fromkeys(keys)

    def _ended(self, key: str) -> None:
        self._over.add(key)
        self._note([key])

    def _pass(self) -> bool:
        """Look at what waits: all that ends, and as many new pods as do not hold up the rest. True if some are left."""
        keys, self._pending = self._pending, {}
        new = [key for key in keys if key not in self.sandboxes and (pod := self._pod(key)) and not is_ending(pod)]
        if len(new) > _BATCH:
            # A node's together, for they are attached in one change of its switch.
            new.sort(key=lambda key: str((self._pod(key) or {"spec": {}})["spec"].get("nodeName")))
            self._note(new[_BATCH:])
        self._try(set(keys) - set(self._pending))
        return bool(self._pending)

    def _pod(self, key: str) -> Object | None:
        return self.store.get("Pod", *key.split("/"))

    def _try(self, keys: set[str]) -> None:
        """All at once; if that fails, one by one, so that one pod's trouble does not stop the others."""
        try:
            self._work(keys)
        except Exception:
            LOG.exception("kubelet: %s", ", ".join(sorted(keys)))
            for key in keys if len(keys) > 1 else ():
                self._try({key})
            (key,) = keys if len(keys) == 1 else ("",)
            pod = self._pod(key) if key else None
            if key in self.sandboxes and (pod is None or key in self._over or not self.sandboxes[key].lives()):
                self._inbox.after(_RETRY, partial(self._note, [key]))
            elif pod is not None:
                record(self.store, pod, "FailedCreatePodSandBox", "the lab's log says why")

    def _work(self, keys: Iterable[str]) -> None:
        """Bring these pods into the state the store asks for."""
        begin: dict[str, list[Object]] = {}
        end: dict[str, list[pods.Sandbox]] = {}
        removed: list[Object] = []
        for key in sorted(keys):
            pod, have = self._pod(key), self.sandboxes.get(key)
            replaced = have is not None and pod is not None and self._uids[key] != pod["metadata"]["uid"]
            if have is not None and pod is not None and is_ending(pod) and not replaced:
                self._life.terminate(pod)
            lost = have is not None and not have.lives()
            if lost and pod is not None and not replaced and not is_ending(pod) and not is_over(pod):
                record(
                    self.store, pod, "SandboxChanged", "what held its namespaces ended; the pod is made anew", "Normal"
                )
                if pod["spec"].get("restartPolicy") == "Never":
                    self._life.fail(pod["metadata"]["uid"])
                    pod = self._pod(key)
            if have is not None and (lost or pod is None or replaced or key in self._over or is_over(pod)):
                end.setdefault(have.node.name, []).append(have)
                have = None
            if pod is not None and have is None:
                if is_ending(pod):
                    removed.append(pod)
                elif not is_over(pod):
                    begin.setdefault(pod["spec"]["nodeName"], []).append(pod)
        for sandboxes in end.values():
            self._end(sandboxes)
        for pod in removed:
            self._forget(pod)
        starved = {key for name in end for key in self._starved.pop(name, ())} - set(keys)
        for pod in filter(None, map(self._pod, sorted(starved))):
            begin.setdefault(pod["spec"]["nodeName"], []).append(pod)
        self._begin([one for name, starting in begin.items() for one in self._attach(name, starting)])

    def _begin(self, made: Sequence[Made]) -> None:
        """Start the containers of pods that are plugged in."""
        for pod, sandbox in made:
            self._life.begin(pod, sandbox)
        if made:
            # As a CNI's ADD returns when the pod is connected: the first probe must not be lost on the way.
            uids = [pod["metadata"]["uid"] for pod, _ in made]
            nodes = {sandbox.node.name for _, sandbox in made}
            self._begins.ask(nodes, self.store.revision, lambda: self._inbox.put(partial(self._connected, uids)))

    def _connected(self, uids: Iterable[str]) -> None:
        for uid in uids:
            self._life.connected(uid)

    def _attach(self, name: str, starting: list[Object]) -> list[Made]:
        """Make sandboxes and plug them in; those that could be."""
        node = self.nodes.get(name)
        if node is None:  # it is known to the store, and not built yet
            self._inbox.after(_RETRY, partial(self._note, list(map(_key, starting))))
            return []
        made = [(pod, sandbox) for pod in starting if (sandbox := self._make(node, pod)) is not None]
        return self._plug(node, [*self._unplugged.pop(name, ()), *made])

    def _plug(self, node: Node, made: list[Made]) -> list[Made]:
        """Plug in those that are still there; none if the switch does not take them, and then they are tried again."""
        made = [(pod, sandbox) for pod, sandbox in made if self.sandboxes.get(sandbox.key) is sandbox]
        try:
            self.network(node).connect()
        except RuntimeError as error:
            LOG.warning("pods of %s are not plugged in yet: %s", node.name, error)
            for pod, _ in made:
                record(self.store, pod, "FailedCreatePodSandBox", f"the switch of {node.name} does not answer")
            self._unplugged[node.name] = made
            self._inbox.after(_RETRY, partial(self._plug_again, node))
            return []
        return made

    def _plug_again(self, node: Node) -> None:
        made = self._unplugged.pop(node.name, None)
        if made and self.nodes.get(node.name) is node:
            self._begin(self._plug(node, made))

    def network(self, node: Node) -> NodeNetwork:
        """The pod network of a node; one that came again under its name has another."""
        have = self._networks.get(node.name)
        if have is None or have.node is not node:
            have = self._networks[node.name] = self._network_of(node)
        return have

    def _make(self, node: Node, pod: Object) -> pods.Sandbox | None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        key = f"{namespace}/{name}"
        if pod["spec"].get("hostNetwork"):
            sandbox = pods.share_node(key, name, node, pod_files.needs_own(pod))
        else:
            try:
                sandbox = self.network(node).attach(key, name, pod)
            except (BadPod, CniError) as error:
                self._refused(node, key, pod, error)
                return None
            self._attached_any, self.refusal = True, None
            hosts.add(self.mininet, sandbox.host)
            if sandbox.interface:
                ends = sandbox.host, "eth0", node.machine.host, sandbox.interface
                hosts.add_link(self.mininet, *ends, str(sandbox.ip))
        if sandbox.host is not node.machine.host:
            dns = self.store.get("Service", *pod_files.DNS_SERVICE)
            self._files.put(sandbox.pid, pod_files.files(pod, str(sandbox.ip), dns))
        self.sandboxes[key] = sandbox
        self._uids[key] = pod["metadata"]["uid"]
        return sandbox

    def _refused(self, node: Node, key: str, pod: Object, error: BadPod | CniError) -> None:
        """Say why a pod has no network, and try again: when another's address is free, or as a kubelet does."""
        record(self.store, pod, "FailedCreatePodSandBox", str(error))
        self._starved.setdefault(node.name, set()).add(key)
        if isinstance(error, BadPod) or error.code in (Code.TRY_LATER, Code.ADDRESS_TAKEN):
            return
        self._inbox.after(_ADD_RETRY, partial(self._note, [key]))
        if error.code in CONFIGURATION or not self._attached_any:
            self.refusal = InputError(self.network(node).place(error), str(error))

    def _end(self, sandboxes: list[pods.Sandbox]) -> None:
        for sandbox in sandboxes:
            self._life.remove(self._uids[sandbox.key])
        node = sandboxes[0].node
        if node.name in self.nodes:
            self.network(node).detach([s for s in sandboxes if s.attachment])
        for sandbox in sandboxes:
            self._over.discard(sandbox.key)
            self._uids.pop(sandbox.key)
            del self.sandboxes[sandbox.key]
            if sandbox.attachment:
                hosts.remove(self.mininet, sandbox.host)
            elif sandbox.host is not node.machine.host:  # mounts of its own
                sandbox.host.end()

    def _forget(self, pod: Object) -> None:
        with suppress(NotFound):  # the control loop may have removed it with its node
            self.store.delete(*key_of(pod))


def _key(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
