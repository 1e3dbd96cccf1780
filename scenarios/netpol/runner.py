"""Runs cases in a lab: makes the lab's cluster the case's, takes each step, and probes all its pairs at once."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address
from typing import Any

from scenarios.lab import policies
from scenarios.netpol import labs
from scenarios.netpol.cases import EXTERNAL, HOST, Case, PodSpec, Probe, World, filled
from scenarios.netpol.prober_client import QUIET, Prober
from topo import fabric, links, manifests
from topo.cluster.patience import patience
from topo.cluster.store import NotFound, Object, key_of
from topo.cluster.wiring import WANTED_IP
from topo.control.events import record
from topo.lab import Lab

# How often a step is probed again for pairs that differ: a busy machine loses packets, and answers late.
_ATTEMPTS = 3
_MARK = "mininetes.dev/policy-case"
_READY = patience(60.0)
# How a Service's address is called among the ends of probes.
_SERVICE = "service:"
# Services by which hosts outside ask pods: of pod NAMESPACE/NAME the one called NAMESPACE/NAME and this.
_FROM_OUTSIDE = "-from-outside"


@dataclass(frozen=True, slots=True)
class Difference:
    """A pair that does not do what the case expects."""

    step: int
    probe: str
    expected: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case came to. skipped: why it was not run, or ""; pairs: how many were probed."""

    case: Case
    differences: tuple[Difference, ...] = ()
    pairs: int = 0
    seconds: float = 0.0
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether every pair did what was expected."""
        return not self.differences and not self.skipped


class Runner:
    """Takes one lab from case to case."""

    def __init__(self, lab: Lab, prober: Prober) -> None:
        self.lab, self.prober = lab, prober
        self.services: dict[str, Object] = {}

    def run(self, case: Case) -> Outcome:
        """The case from its first step to its last."""
        began = time.monotonic()
        reason = self._unfit(case)
        if reason:
            return Outcome(case, skipped=reason)
        world = World.of(case.cluster)
        self.services = {**case.cluster.services, **_from_outside(case)}
        ports = next((p.ports for p in case.cluster.pods.values()), ())
        self._become(world)
        differences: list[Difference] = []
        pairs = 0
        for number, step in enumerate(case.steps, start=1):
            world.change(step.raw, ports)
            self._become(world)
            found = self._probe(step.scored)
            pairs += len(step.scored)
            differences += [Difference(number, str(p), e) for p, e in step.scored.items() if found[p] != e]
        return Outcome(case, tuple(differences), pairs, round(time.monotonic() - began, 3))

    def _unfit(self, case: Case) -> str:
        """Why this lab cannot run the case, or ""."""
        if not labs.fits(case, [n.pod_cidr for n in self.lab.nodes.values()]):
            return "its expectations hold only for addresses that no node of this lab has"
        config = self.lab.config
        own = config.pod_subnet, config.service_subnet, config.node_subnet
        ends = {end for s in case.steps for p in s.scored for end in (p.source, p.target)}
        for end in sorted(e for e in ends if e.startswith(HOST)):
            if any(IPv4Address(end.removeprefix(HOST)) in network for network in own):
                return f"{end.removeprefix(HOST)} is no address outside this lab"
        for probe in (p for s in case.steps for p in s.scored if p.protocol == "SCTP"):
            if probe.source == EXTERNAL or probe.source.startswith(HOST):
                return "hosts outside ask by a Service, and which SCTP the switch translates how is not to be relied on"
        return ""

    def _become(self, world: World) -> None:
        """Make the lab's objects those of the world, changing only what differs; returns when all is in force."""
        store = self.lab.store
        pods = {key: self._pod(key, spec) for key, spec in world.pods.items()}
        have = {_name(p): p for p in store.list("Pod") if _MARK in p["metadata"].get("annotations", {})}
        gone = [key for key, pod in have.items() if key not in pods or not _is_same_pod(pod, pods[key])]
        for key in gone:
            self._delete("Pod", *key.split("/"))
        self._wait_gone(gone)
        for name, labels in world.namespaces.items():
            self._namespace(name, labels)
        for space in store.list("Namespace"):
            if _MARK in space["metadata"].get("annotations", {}) and space["metadata"]["name"] not in world.namespaces:
                self._delete("Namespace", "", space["metadata"]["name"])
        spaces = {*world.namespaces, *(key.partition("/")[0] for key in pods)}
        self._serve({key: service for key, service in self.services.items() if key.partition("/")[0] in spaces})
        for key, pod in pods.items():
            if key in have and key not in gone:
                store.update(*key_of(pod), partial(_relabel, labels=pod["metadata"]["labels"]))
            else:
                store.create(pod)
        self.lab.wait_ready(_READY)
        addresses = {_name(p): p["status"]["podIP"] for p in store.list("Pod") if p.get("status", {}).get("podIP")}
        for key, address in addresses.items():
            self._answer(key, address)
        wanted = [_loaded(filled(policy, addresses)) for policy in world.policies.values()]
        keys = {key_of(policy) for policy in wanted}
        for kind in policies.OBJECTS:
            for old in [key_of(p) for p in store.list(kind)]:
                if old not in keys:
                    self._delete(*old)
        for policy in wanted:
            _, have = store.apply(policy)
            for text in policies.warnings(
                have, self.lab.parts.enforces, self.lab.config.cni, self.lab.parts.proxy_mode
            ):
                record(store, have, "NoEffect", text)
        self.lab.confirm()

    def _serve(self, services: Mapping[str, Object]) -> None:
        """Have exactly these Services."""
        store = self.lab.store
        for old in [s for s in store.list("Service") if _MARK in s["metadata"].get("annotations", {})]:
            if _name(old) not in services:
                self._delete(*key_of(old))
        for key, spec in services.items():
            namespace, name = key.split("/")
            meta = {"name": name, "namespace": namespace, "annotations": {_MARK: "true"}}
            store.apply(_loaded({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": dict(spec)}))

    def _answer(self, key: str, address: str) -> None:
        """The pod alone is the endpoint of the Service by which hosts outside ask it, if there is one."""
        namespace, name = key.split("/")
        service = self.lab.store.get("Service", namespace, name + _FROM_OUTSIDE)
        pod = self.lab.store.get("Pod", namespace, name)
        if service is None or pod is None:
            return
        meta = service["metadata"]
        labels = {"kubernetes.io/service-name": meta["name"]}
        ports = [{k: p[k] for k in ("name", "port", "protocol")} for p in service["spec"]["ports"]]
        self.lab.store.apply(
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"name": meta["name"], "namespace": namespace, "labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [address], "nodeName": pod["spec"]["nodeName"]}],
                "ports": ports,
            }
        )

    def _pod(self, key: str, spec: PodSpec) -> Object:
        namespace, name = key.split("/")
        ports = [
            {
                "containerPort": number,
                "protocol": protocol,
                **({"name": label} if label else {}),
                **({"hostPort": number} if spec.host_network else {}),
            }
            for label, protocol, number in spec.ports
        ]
        home = self._home(spec.ip)
        wanted = {WANTED_IP: json.dumps([spec.ip])} if home and not spec.host_network else {}
        notes = {_MARK: "true", **wanted}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": dict(spec.labels), "annotations": notes},
            "spec": {
                "nodeName": home or self._some_node(name),
                **({"hostNetwork": True} if spec.host_network else {}),
                "containers": [{"name": "c", "image": "none", "ports": ports}],
            },
        }

    def _home(self, address: str) -> str:
        """The node whose own the address is, or among whose pods, or ""."""
        found = IPv4Address(address or 0)
        return next((n.name for n in self.lab.nodes.values() if found == n.ip or found in n.pod_cidr), "")

    def _some_node(self, name: str) -> str:
        """Pods of one name on one node, so that half the pairs cross the fabric."""
        nodes = list(self.lab.nodes)
        return nodes[sum(name.encode()) % len(nodes)]

    def _namespace(self, name: str, labels: Mapping[str, str]) -> None:
        thing = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": name, "labels": dict(labels), "annotations": {_MARK: "true"}},
        }
        self.lab.store.apply(thing)
        wanted = {**labels, "kubernetes.io/metadata.name": name}
        self.lab.store.update("Namespace", "", name, lambda have: _relabel(have, wanted))

    def _delete(self, kind: str, namespace: str, name: str) -> None:
        try:
            if kind == "Pod":
                self.lab.store.mark_deleted(kind, namespace, name)
            else:
                self.lab.store.delete(kind, namespace, name)
        except NotFound:
            pass

    def _wait_gone(self, keys: Sequence[str]) -> None:
        deadline = time.monotonic() + _READY
        while any(self.lab.store.get("Pod", *key.split("/")) for key in keys):
            if time.monotonic() > deadline:
                raise RuntimeError(f"pods did not end: {', '.join(keys)}")
            time.sleep(0.01)

    def _probe(self, scored: Mapping[Probe, bool]) -> dict[Probe, bool]:
        """Probe all; what differs again, for a machine with much to do loses packets and is late."""
        ways = {self._way(p): expected for p, expected in scored.items()}
        found = self._by_way(ways)
        return {p: found[self._way(p)] for p in scored}

    def _by_way(self, scored: Mapping[Probe, bool]) -> dict[Probe, bool]:
        ends = {end: self._end(end) for p in scored for end in (p.source, p.target)}
        found = self.prober.probe(ends, scored)
        for attempt in range(1, _ATTEMPTS):
            doubtful = {p: expected for p, expected in scored.items() if found[p] != expected}
            if not doubtful:
                break
            time.sleep(0.1 * attempt)
            found |= self.prober.probe(ends, doubtful, 2 * attempt * QUIET)
        return found

    def _way(self, probe: Probe) -> Probe:
        """A client outside the cluster comes in by the Service's LoadBalancer address."""
        if probe.source == EXTERNAL:
            name = probe.target
        elif probe.source.startswith(HOST):
            name = probe.target + _FROM_OUTSIDE
        else:
            return probe
        service = self.lab.store.get("Service", *name.split("/"))
        given = (service or {}).get("status", {}).get("loadBalancer", {}).get("ingress", [])
        if service is None or not given:
            return probe
        port = next((p["port"] for p in service["spec"]["ports"] if p["targetPort"] == probe.port), probe.port)
        return Probe(probe.source, f"{_SERVICE}{given[0]['ip']}", probe.protocol, port)

    def _end(self, name: str) -> tuple[int, str]:
        if name.startswith(_SERVICE):
            return 0, name.removeprefix(_SERVICE)
        if name == EXTERNAL:
            host = self.lab.outside[fabric.CLIENT]
            return int(host.pid), str(fabric.WORLD_NETWORK[10])
        if name.startswith(HOST):
            host = self.lab.outside[fabric.CLIENT]
            links.own(host.pid, f"{name.removeprefix(HOST)}/32")
            return int(host.pid), name.removeprefix(HOST)
        sandbox = self.lab.kubelet.sandboxes[name]
        return sandbox.pid, str(sandbox.ip)


def _from_outside(case: Case) -> dict[str, Object]:
    """A Service a pod that hosts of certain addresses ask; externalTrafficPolicy Local, so that it sees them."""
    asked: dict[str, set[tuple[str, int]]] = {}
    for probe in (p for step in case.steps for p in step.scored if p.source.startswith(HOST)):
        asked.setdefault(probe.target, set()).add((probe.protocol, probe.port))
    return {
        f"{pod}{_FROM_OUTSIDE}": {
            "type": "LoadBalancer",
            "externalTrafficPolicy": "Local",
            "ports": [
                {"name": f"p{port}-{protocol.lower()}", "port": port, "targetPort": port, "protocol": protocol}
                for protocol, port in sorted(ports)
            ],
        }
        for pod, ports in asked.items()
    }


def _loaded(policy: Object) -> Object:
    """With what the API fills in."""
    return manifests.load_text(json.dumps(policy), "policy").objects[0]


def _name(thing: Object) -> str:
    return f"{thing['metadata']['namespace']}/{thing['metadata']['name']}"


def _relabel(thing: Object, labels: Mapping[str, str]) -> None:
    thing["metadata"]["labels"] = dict(labels)


def _is_same_pod(have: Object, want: Object) -> bool:
    """But for its labels, which can change."""

    def parts(pod: Object) -> Any:
        spec = pod["spec"]
        return pod["metadata"]["annotations"].get(WANTED_IP), spec["nodeName"], spec["containers"]

    return bool(parts(have) == parts(want)) and "deletionTimestamp" not in have["metadata"]
