"""Makes and removes the pods that are assigned to nodes, starts their containers, reports their readiness."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address
from typing import Any

from mininet.net import Mininet

from topo import capsule, hosts, pod_files, pods
from topo.cluster import wiring
from topo.cluster.ipam import AddressPool, Exhausted
from topo.cluster.network import PodNetwork
from topo.cluster.store import DELETED, NotFound, Object, Store, key_of
from topo.control.events import record
from topo.control.workloads import is_ending, is_over
from topo.nodes import Node
from topo.probes import Check, Prober, plan
from topo.standin.client import StandIn

LOG = logging.getLogger("mininetes")


def commands(pod: Object) -> dict[str, list[str]]:
    """Container name -> program of the host that an annotation asks to run there, split as a shell splits words.

    mininetes.dev/command is the first container's, mininetes.dev/command.NAME that of container NAME.
    """
    notes = pod["metadata"].get("annotations") or {}
    names = [c["name"] for c in pod["spec"]["containers"]]
    found = {name: notes[f"{wiring.COMMAND}.{name}"] for name in names if f"{wiring.COMMAND}.{name}" in notes}
    if wiring.COMMAND in notes:
        found.setdefault(names[0], notes[wiring.COMMAND])
    return {name: shlex.split(line) for name, line in found.items()}


def ports(pod: Object, without: Iterable[str]) -> list[tuple[str, int]]:
    """(protocol, port) of every containerPort, once each, less those of containers that run a real program."""
    skip = set(without)
    found = {
        (p.get("protocol", "TCP"), p["containerPort"]): None
        for c in pod["spec"]["containers"]
        if c["name"] not in skip
        for p in c.get("ports") or ()
    }
    return list(found)


class Kubelet:
    """All nodes' kubelets in one thread, which works through what the store asks in batches."""

    def __init__(
        self,
        store: Store,
        nodes: Mapping[str, Node],
        network: PodNetwork,
        mininet: Mininet,
        standin: StandIn,
        connected: Callable[[set[str], int], None],
        checksums: bool,
        honour_delay: bool,
    ) -> None:
        """connected(nodes, revision): waits until those nodes' switches hold the flows of that store revision."""
        self.store, self.nodes, self.network = store, nodes, network
        self.mininet, self.standin = mininet, standin
        self.connected, self.checksums, self.honour_delay = connected, checksums, honour_delay
        self.sandboxes: dict[str, pods.Sandbox] = {}
        self.programs: dict[str, list[subprocess.Popen[Any]]] = {}
        self._pools: dict[str, AddressPool] = {}
        self._prober = Prober(self._verdict)
        self._files = pod_files.Placer(capsule.RUN)
        self._uids: dict[str, str] = {}
        # Pods that found no free address, tried again when one of their node's goes.
        self._starved: dict[str, set[str]] = {}
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)

    def start(self) -> None:
        """Begin to make pods."""
        self._watch = self.store.watch()[2]
        self._thread.start()

    def _run(self) -> None:
        pending: set[str] = {f"{p['metadata']['namespace']}/{p['metadata']['name']}" for p in self.store.list("Pod")}
        while True:
            self._try(pending)
            pending = set()
            batch = self._watch.batch()
            if batch is None:
                return
            for event in batch:
                thing = event.object
                if thing["kind"] == "Pod" and ("nodeName" in thing["spec"] or event.type == DELETED):
                    pending.add(f"{thing['metadata']['namespace']}/{thing['metadata']['name']}")

    def _try(self, keys: set[str]) -> None:
        """All at once; if that fails, one by one, so that one pod's trouble does not stop the others."""
        try:
            self._work(keys)
        except Exception:
            LOG.exception("kubelet: %s", ", ".join(sorted(keys)))
            for key in keys if len(keys) > 1 else ():
                self._try({key})
            pod = self.store.get("Pod", *next(iter(keys)).split("/")) if len(keys) == 1 else None
            if pod is not None:
                record(self.store, pod, "FailedCreatePodSandBox", "the lab's log says why")

    def _work(self, keys: Iterable[str]) -> None:
        """Bring these pods into the state the store asks for."""
        begin: dict[str, list[Object]] = {}
        end: dict[str, list[pods.Sandbox]] = {}
        removed: list[Object] = []
        for key in sorted(keys):
            pod = self.store.get("Pod", *key.split("/"))
            have = self.sandboxes.get(key)
            replaced = have is not None and pod is not None and self._uids[key] != pod["metadata"]["uid"]
            if have is not None and (pod is None or is_ending(pod) or replaced):
                end.setdefault(have.node.name, []).append(have)
            if pod is not None and is_ending(pod):
                removed.append(pod)
            elif pod is not None and (have is None or replaced) and not is_over(pod):
                begin.setdefault(pod["spec"]["nodeName"], []).append(pod)
        for sandboxes in end.values():
            self._end(sandboxes)
        for pod in removed:
            self._forget(pod)
        starved = {key for name in end for key in self._starved.pop(name, ())} - set(keys)
        for pod in filter(None, (self.store.get("Pod", *key.split("/")) for key in sorted(starved))):
            begin.setdefault(pod["spec"]["nodeName"], []).append(pod)
        made = [one for name, starting in begin.items() for one in self._attach(name, starting)]
        if made:
            started = [(pod, sandbox, self._start(pod, sandbox)) for pod, sandbox in made]
            # As a CNI's ADD returns when the pod is connected: the first probe must not be lost on the way.
            self.connected({sandbox.node.name for _, sandbox in made}, self.store.revision)
            for pod, sandbox, checks in started:
                if checks is not None:
                    self._watch_readiness(pod, sandbox, checks)

    def _attach(self, name: str, starting: list[Object]) -> list[tuple[Object, pods.Sandbox]]:
        node = self.nodes.get(name)
        if node is None:
            return []
        made = [(pod, sandbox) for pod in starting if (sandbox := self._make(node, pod)) is not None]
        pods.attach(node, [sandbox for _, sandbox in made], self.network)
        return made

    def _make(self, node: Node, pod: Object) -> pods.Sandbox | None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        key = f"{namespace}/{name}"
        if pod["spec"].get("hostNetwork"):
            sandbox = pods.share_node(key, name, node, pod_files.needs_own(pod))
        else:
            pool = self._pools.setdefault(node.name, AddressPool(node.pod_cidr, [node.gateway_ip]))
            try:
                ip = _address(pod, pool)
            except Exhausted as error:
                record(self.store, pod, "FailedCreatePodSandBox", str(error))
                self._starved.setdefault(node.name, set()).add(key)
                return None
            sandbox = pods.make(key, name, node, ip, self.network, self.checksums)
            hosts.add(self.mininet, sandbox.host)
            hosts.add_link(self.mininet, sandbox.host, "eth0", node.machine.host, sandbox.interface, str(ip))
        if sandbox.host is not node.machine.host:
            dns = self.store.get("Service", *pod_files.DNS_SERVICE)
            self._files.put(sandbox.pid, pod_files.files(pod, str(sandbox.ip), dns))
        self.sandboxes[key] = sandbox
        self._uids[key] = pod["metadata"]["uid"]
        return sandbox

    def _start(self, pod: Object, sandbox: pods.Sandbox) -> list[Check] | None:
        """Start the containers and tell the store; the pod's readiness checks, or None if it cannot run."""
        real = commands(pod)
        failed = [f"program {line[0]!r} is not installed" for line in real.values() if shutil.which(line[0]) is None]
        for text in failed:
            record(self.store, pod, "Failed", text)
        try:
            self.store.update(*key_of(pod), lambda p: _started(p, sandbox, "Failed" if failed else "Running"))
        except NotFound:  # deleted meanwhile; that event ends the sandbox
            return None
        if failed:
            return None
        self.programs[sandbox.key] = [sandbox.host.start_daemon(*line) for line in real.values()]
        who = {"pod": pod["metadata"]["name"], "namespace": pod["metadata"]["namespace"], "node": sandbox.node.name}
        for protocol, port, why in self.standin.open(sandbox.key, sandbox.pid, who, ports(pod, real)):
            record(self.store, pod, "FailedListen", f"stand-in cannot listen on {protocol} port {port}: {why}")
        checks, notes = plan(pod, list(real), self.honour_delay)
        for text in notes:
            record(self.store, pod, "ProbeSubstituted", text, "Normal")
        return checks

    def _watch_readiness(self, pod: Object, sandbox: pods.Sandbox, checks: list[Check]) -> None:
        if checks:
            self._prober.add(sandbox.key, checks, sandbox.node.machine.pid, sandbox.pid, str(sandbox.ip))
        else:
            self._verdict(sandbox.key, True)

    def _end(self, sandboxes: list[pods.Sandbox]) -> None:
        for sandbox in sandboxes:
            self._prober.remove(sandbox.key)
            self.standin.close(sandbox.key)
            for process in self.programs.pop(sandbox.key, ()):
                process.kill()
                process.wait()
        node = sandboxes[0].node
        if node.name in self.nodes:
            pods.detach(node, sandboxes)
        for sandbox in sandboxes:
            self._uids.pop(sandbox.key)
            del self.sandboxes[sandbox.key]
            if sandbox.port:
                hosts.remove(self.mininet, sandbox.host)
                self._release(node.name, sandbox.ip)
            elif sandbox.host is not node.machine.host:  # mounts of its own
                sandbox.host.end()

    def _release(self, node: str, address: IPv4Address) -> None:
        pool = self._pools.get(node)
        if pool is not None:
            pool.release(address)

    def _forget(self, pod: Object) -> None:
        with suppress(NotFound):  # the control loop may have removed it with its node
            self.store.delete(*key_of(pod))

    def _verdict(self, key: str, ready: bool) -> None:
        namespace, name = key.split("/")
        with suppress(NotFound):  # it may have gone meanwhile
            self.store.update("Pod", namespace, name, lambda p: _set_ready(p, ready))


def _address(pod: Object, pool: AddressPool) -> IPv4Address:
    """The address that the pod's annotation asks for, or the next free one. Raises Exhausted."""
    text = (pod["metadata"].get("annotations") or {}).get(wiring.WANTED_IP)
    if text is None:
        return pool.take()
    try:
        wanted = IPv4Address(json.loads(text)[0])
    except (ValueError, LookupError, TypeError) as error:
        raise Exhausted(f"annotation {wiring.WANTED_IP}: {text!r} is no JSON list with an address") from error
    if not pool.claim(wanted):
        raise Exhausted(f"{wanted} is in use, or not one of {pool.network}")
    return wanted


def _started(pod: Object, sandbox: pods.Sandbox, phase: str) -> None:
    if sandbox.port:
        notes = pod["metadata"].setdefault("annotations", {})
        notes |= {wiring.MAC: sandbox.mac, wiring.PORT: str(sandbox.port)}
    pod["status"] = {
        "phase": phase,
        "podIP": str(sandbox.ip),
        "podIPs": [{"ip": str(sandbox.ip)}],
        "hostIP": str(sandbox.node.ip),
        "conditions": [{"type": "PodScheduled", "status": "True"}],
    }
    _set_ready(pod, False)


def _set_ready(pod: Object, ready: bool) -> None:
    status = pod["status"]
    kept = [c for c in status["conditions"] if c["type"] not in ("Ready", "ContainersReady")]
    value = "True" if ready else "False"
    status["conditions"] = kept + [{"type": name, "status": value} for name in ("ContainersReady", "Ready")]
