"""A case's world (scenarios/netpol/cases.py) as the policy model sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controllers.flow.fields import ip_number, ip_text
from controllers.policy import read
from controllers.policy.evaluate import Cluster, End
from controllers.policy.model import NamedPort, Pod
from scenarios.netpol.cases import PodSpec, World, filled

# Off-cluster addresses of "external" and of a pod that a file gives no address.
OUTSIDE = ip_number("203.0.113.7")


def address_of(world: World) -> dict[str, str]:
    """The file's addresses, or some of 10.244.0.0/16, the same for the same pods."""
    return {
        key: pod.ip or ip_text(ip_number("10.244.1.0") + (i % 3) * 256 + 100 + i // 3)
        for i, (key, pod) in enumerate(sorted(world.pods.items()))
    }


def cluster(world: World, addresses: Mapping[str, str] | None = None) -> Cluster:
    """What the evaluator is asked about."""
    found = addresses or address_of(world)
    policies = [read.policy(filled(p, found)) for p in world.policies.values()]
    return Cluster(
        {name: read.namespace_labels(name, {"metadata": {"labels": labels}}) for name, labels in namespaces(world)},
        {key: pod(key, spec, found[key]) for key, spec in world.pods.items()},
        [p for p in policies if p is not None],
    )


def namespaces(world: World) -> list[tuple[str, dict[str, str]]]:
    return list(world.namespaces.items())


def pod(key: str, spec: PodSpec, address: str) -> Pod:
    ports = tuple(NamedPort(name, protocol, number) for name, protocol, number in spec.ports if name)
    return Pod(key, dict(spec.labels), ip_number(address), "", ports)


def end(world: Cluster, name: str) -> End:
    """A probe's end."""
    if name == "external":
        return End(OUTSIDE)
    if name.startswith("ip:"):
        return world.end(ip_number(name[3:]))
    return world.end(world.pods[name].ip)


def policy(kind: str = "NetworkPolicy", name: str = "p", namespace: str = "x", **spec: Any) -> dict[str, Any]:
    """A policy object."""
    meta = {"name": name, "namespace": namespace} if kind == "NetworkPolicy" else {"name": name}
    version = "networking.k8s.io/v1" if kind == "NetworkPolicy" else "policy.networking.k8s.io/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}
