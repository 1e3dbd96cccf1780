"""Cases of network policies from JSON files: a cluster, steps that change it, and which pairs reach each other then.

The formats are described in tests/data/policy/README.md and FORMAT.md. All become the same values here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from topo.cluster.errors import InputError
from topo.cluster.store import key_of

Object = dict[str, Any]
EXTERNAL = "external"
# Begins the name of a host outside the cluster that has a certain address.
HOST = "ip:"
_PLACEHOLDER = re.compile(r"\$\{(ip|cidr):([^/}]+/[^/}]+)(?:/(\d+))?\}")


@dataclass(frozen=True, slots=True)
class Probe:
    """May `source` open a connection to `target`? Each is namespace/name, "external", or "ip:" and an address."""

    source: str
    target: str
    protocol: str
    port: int

    def __str__(self) -> str:
        return f"{self.source} -> {self.target} {self.protocol}/{self.port}"


@dataclass(frozen=True, slots=True)
class PodSpec:
    """A pod of a case. ports: (name, protocol, number); ip: where its address must be a certain one, else "".

    host_network: its address is that of the node it is to be on.
    """

    labels: Mapping[str, str]
    ports: tuple[tuple[str, str, int], ...]
    ip: str = ""
    host_network: bool = False


@dataclass(frozen=True, slots=True)
class Cluster:
    """Labels of the namespaces by name, pods by namespace/name, specs of Services for clients outside."""

    namespaces: Mapping[str, Mapping[str, str]]
    pods: Mapping[str, PodSpec]
    services: Mapping[str, Object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """Changes in the order of FORMAT.md, then what must hold. scored: probe -> whether it is allowed."""

    raw: Mapping[str, Any]
    scored: Mapping[Probe, bool]

    @property
    def policies(self) -> list[Object]:
        """What is applied."""
        return list(self.raw.get("apply", ()))


@dataclass(frozen=True, slots=True)
class Case:
    """One case. needs_addresses: its expectations hold only for the pods' own addresses in the file."""

    name: str
    source: str
    cluster: Cluster
    steps: tuple[Step, ...]
    needs_addresses: bool = False
    file: str = ""


@dataclass(slots=True)
class World:
    """The cluster as the steps change it."""

    namespaces: dict[str, dict[str, str]]
    pods: dict[str, PodSpec]
    policies: dict[str, Object] = field(default_factory=dict)

    @classmethod
    def of(cls, cluster: Cluster) -> World:
        """As it is before the first step."""
        return cls({n: dict(labels) for n, labels in cluster.namespaces.items()}, dict(cluster.pods))

    def change(self, raw: Mapping[str, Any], ports: tuple[tuple[str, str, int], ...] = ()) -> None:
        """What one step does, in FORMAT.md's order. ports: of pods that it creates."""
        for name, labels in raw.get("create_ns", {}).items():
            self.namespaces[name] = dict(labels)
        for key, value in raw.get("create_pod", {}).items():
            self.pods[key] = _pod(value, ports)
        for key, labels in raw.get("label_pod", {}).items():
            self.pods[key] = replace(self.pods[key], labels=dict(labels))
        for name, labels in raw.get("label_ns", {}).items():
            self.namespaces[name] = dict(labels)
        for policy in raw.get("apply", ()):
            self.policies[policy_key(policy)] = policy
        for key in raw.get("delete", ()):
            self.policies.pop(key, None)
        for key in raw.get("delete_pod", ()):
            self.pods.pop(key, None)
        for name in raw.get("delete_ns", ()):
            self.namespaces.pop(name, None)
            self.pods = {k: p for k, p in self.pods.items() if k.partition("/")[0] != name}
            self.policies = {k: p for k, p in self.policies.items() if k.partition("/")[0] != name}


def policy_key(policy: Object) -> str:
    """namespace/name of a policy object, /name of one that is in no namespace."""
    _, namespace, name = key_of(policy)
    return f"{namespace}/{name}"


def filled(thing: Any, addresses: Mapping[str, str]) -> Any:
    """The same with ${ip:ns/pod} and ${cidr:ns/pod/N} replaced. Raises KeyError for a pod without address."""
    if isinstance(thing, dict):
        return {k: filled(v, addresses) for k, v in thing.items()}
    if isinstance(thing, list):
        return [filled(v, addresses) for v in thing]
    if not isinstance(thing, str):
        return thing

    def one(match: re.Match[str]) -> str:
        address = addresses[match[2]]
        return str(IPv4Network(f"{address}/{match[3]}", strict=False)) if match[1] == "cidr" else address

    return _PLACEHOLDER.sub(one, thing)


def load(file: Path) -> list[Case]:
    """Every case of a file. Raises InputError for a file that is none of cases."""
    try:
        return parse(file.read_text(), str(file))
    except OSError as error:
        raise InputError(str(file), f"cannot be read: {error.strerror}", "a file of policy cases") from error


def parse(text: str, name: str) -> list[Case]:
    """Every case of a file's text. Raises InputError for one that is none of cases."""
    try:
        data = json.loads(text)
        return [_case(data, raw, Path(name).name) for raw in data["cases"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        said = f"is no file of policy cases ({type(error).__name__}: {error})"
        raise InputError(name, said, "the format of docs/policy.md") from error


def _case(data: Object, raw: Object, file: str) -> Case:
    name, source = raw["name"], raw.get("source", "")
    if "pods" in raw:  # k8s-docs: one state
        step = Step({"apply": raw["policies"]}, dict(_probes(raw["probes"])))
        return Case(name, source, _serving(_cluster(raw), step.scored), (step,), True, file)
    cluster = _cluster(raw.get("cluster") or data["cluster"])
    if "probe" in raw:  # kube-network-policies: one packet
        by_ip = {p.ip: key for key, p in cluster.pods.items()}
        probe = raw["probe"]
        ends = [by_ip.get(probe[e], f"{HOST}{probe[e]}") for e in ("from_ip", "to_ip")]
        one = {Probe(ends[0], ends[1], probe["protocol"], probe["port"]): raw["expect"] == "allow"}
        step = Step({"apply": raw["policies"]}, one)
        return Case(name, source, _serving(cluster, one), (step,), True, file)
    ports = next(iter(cluster.pods.values())).ports if cluster.pods else ()
    has_own = bool(cluster.pods) and all(p.ip for p in cluster.pods.values())
    fixed = bool(raw.get("depends_on_pod_ips")) and ("cluster" not in raw or has_own)
    world, done = World.of(cluster), []
    for step in raw["steps"]:
        world.change(step, ports)
        done.append(Step(step, dict(_scored(step, tuple(world.pods)))))
    given = (raw.get("cluster") or data["cluster"]).get("pod_ips") or data.get("pod_ips") or {}
    if given:
        pods = {k: replace(p, ip=given.get(k, p.ip)) for k, p in cluster.pods.items()}
        cluster = Cluster(cluster.namespaces, pods, cluster.services)
    return Case(name, source, cluster, tuple(done), fixed, file)


def _cluster(raw: Object) -> Cluster:
    """Pods are labels alone, with ports for all, or each an object of its own."""
    common = tuple(_port_of(text) for text in raw.get("ports", ()))
    pods = {key: _pod(value, common) for key, value in raw["pods"].items()}
    services = {k: _service(s) for k, s in _mapping(raw.get("services")).items()}
    return Cluster(raw["namespaces"], pods, services)


def _pod(value: Object, ports: tuple[tuple[str, str, int], ...]) -> PodSpec:
    """A pod that is labels alone has the given ports."""
    if not isinstance(value.get("labels"), dict):
        return PodSpec(dict(value), ports)
    own = tuple((p["name"] or "", p["protocol"], p["port"]) for p in value.get("ports", ()))
    return PodSpec(dict(value["labels"]), own, value.get("ip", ""), bool(value.get("hostNetwork")))


def _serving(cluster: Cluster, probes: Iterable[Probe]) -> Cluster:
    """Pods that also listen, without a name, where they are asked: what is refused must be the policy's doing."""
    pods = dict(cluster.pods)
    for probe in probes:
        pod = pods.get(probe.target)
        if pod and (probe.protocol, probe.port) not in [p[1:] for p in pod.ports]:
            pods[probe.target] = replace(pod, ports=(*pod.ports, ("", probe.protocol, probe.port)))
    return replace(cluster, pods=pods)


def _mapping(value: Any) -> Object:
    """Some files describe their Services in a sentence."""
    return value if isinstance(value, dict) else {}


def _service(raw: Object) -> Object:
    ports = [{"name": f"p{port}", "port": port, "targetPort": target} for port, target in raw["ports"]]
    return {"type": raw.get("type", "ClusterIP"), "selector": raw["selector"], "ports": ports}


def _port_of(text: str) -> tuple[str, str, int]:
    protocol, _, number = text.partition("/")
    return f"serve-{number}-{protocol.lower()}", protocol, int(number)


def _probes(probes: list[Object]) -> Iterator[tuple[Probe, bool]]:
    for p in probes:
        yield Probe(p["from"], p["to"], p["protocol"], p["port"]), p["expect"] == "allow"


def _scored(step: Object, pods: tuple[str, ...]) -> Iterator[tuple[Probe, bool]]:
    """Every pair but a pod with itself; a pair that is not listed is refused."""
    yield from _probes(step.get("probes", []))
    for text, allowed in step.get("expect_allowed", {}).items():
        _, protocol, number = _port_of(text)
        for source in pods:
            for target in pods:
                if source != target:
                    yield Probe(source, target, protocol, number), target in allowed.get(source, ())
