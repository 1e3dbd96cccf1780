"""A case's world (scenarios/netpol/cases.py) as the policy model sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from controllers.flow.fields import ip_number, ip_text
from controllers.policy import read, read_calico
from controllers.policy.evaluate import Cluster, End
from controllers.policy.model import NamedPort, Pod
from scenarios.netpol.cases import PodSpec, World, filled
from topo.cluster.store import CLUSTER_SCOPED

CALICO = ("NetworkPolicy.projectcalico.org", "GlobalNetworkPolicy", "NetworkSet", "GlobalNetworkSet")
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
    objects = [filled(p, found) for p in world.policies.values()]
    policies = [read.policy(p) for p in objects if p["kind"] not in read_calico.SETS]
    sets = [read_calico.network_set(p) for p in objects if p["kind"] in read_calico.SETS]
    return Cluster(
        {name: read.namespace_labels(name, {"metadata": {"labels": labels}}) for name, labels in namespaces(world)},
        {key: pod(key, spec, found[key]) for key, spec in world.pods.items()} | {one.key: one for one in sets},
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
    """A policy object, or a network set. kind: with the group behind it if Kubernetes has one of that name."""
    word, _, group = kind.partition(".")
    meta = {"name": name} if kind in CLUSTER_SCOPED else {"name": name, "namespace": namespace}
    version = "policy.networking.k8s.io/v1alpha1" if "Admin" in kind else "networking.k8s.io/v1"
    if group or kind in CALICO:
        version = "projectcalico.org/v3"
    return {"apiVersion": version, "kind": word, "metadata": meta, "spec": spec}
