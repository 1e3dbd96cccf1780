"""1,000 policies over 1,000 pods on 10 nodes: compiling all of it, and what a pod's label or one policy costs then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from benchmarks.figure import Figure
from controllers import cni as cnis
from controllers import proxy as proxies
from controllers.compile import pod_bridge
from controllers.flow.diff import difference
from controllers.flow.program import Program
from controllers.registry import discover
from controllers.state import ClusterState

PODS, POLICIES, NODES, NAMESPACES = 1000, 1000, 10, 50
Object = dict[str, Any]


def figures() -> list[Figure]:
    """Seconds of one process; no switch takes part."""
    state = ClusterState()
    for thing in (*_nodes(), *_pods()):
        state.apply(thing["kind"], "ADDED", thing)
    _compiled(state)
    policies = list(_policies())

    def all_of_them() -> None:
        for thing in policies:
            state.apply("NetworkPolicy", "ADDED", thing)

    what = f"{POLICIES} policies over {PODS} pods on {NODES} nodes"
    seconds, before = _timed(state, all_of_them)
    flows = max(sum(len(x.flows) for x in p.values()) for p in before.values())
    label, touched = _change(state, before, lambda: _relabel(state))
    one, _ = _change(state, _compiled(state), lambda: state.apply("NetworkPolicy", "DELETED", policies[7]))
    return [
        Figure(f"{what}: compile from nothing, all nodes", seconds, "s", 2),
        Figure(f"{what}: flows of the node that has most", flows, "flows"),
        Figure(f"{what}: one pod's label changes, all nodes", label * 1e3, "ms", 100),
        Figure(f"{what}: flows that this touches, all nodes", touched, "flows", 500),
        Figure(f"{what}: one policy goes, all nodes", one * 1e3, "ms", 100),
    ]


def _timed(state: ClusterState, change: Callable[[], None]) -> tuple[float, dict[str, Program]]:
    began = time.perf_counter()
    change()
    programs = _compiled(state)
    return time.perf_counter() - began, programs


def _change(state: ClusterState, before: dict[str, Program], change: Callable[[], None]) -> tuple[float, int]:
    """Seconds, and how many flows are set or removed."""
    seconds, after = _timed(state, change)
    changes = [difference(before[name], after[name]) for name in after]
    return seconds, sum(len(c.set_flows) + len(c.remove_flows) for c in changes)


def _compiled(state: ClusterState) -> dict[str, Program]:
    cni, proxy = discover(cnis, "CNI")["calico"], discover(proxies, "PROXY")["ovs"]
    views = {name: state.node_view(name) for name in state.nodes}
    return {name: pod_bridge(view, cni, proxy) for name, view in views.items() if view is not None}


def _nodes() -> Iterator[Object]:
    enforces = ["NetworkPolicy/ingress", "NetworkPolicy/egress"]
    spec = {"pod_subnet": "10.244.0.0/16", "service_subnet": "10.96.0.0/16", "cni": "calico", "proxy_mode": "ovs"}
    yield _thing("Lab", "lab", spec | {"fabric_mtu": 1500, "enforces": enforces})
    for number in range(NODES):
        notes = {
            "mininetes.dev/mac": f"0a:58:ac:12:00:{number + 2:02x}",
            "mininetes.dev/gateway-mac": "ee:ee:ee:ee:ee:ee",
        }
        node = _thing("Node", f"node-{number}", {"podCIDR": f"10.244.{number}.0/24"}, annotations=notes)
        yield node | {"status": {"addresses": [{"type": "InternalIP", "address": f"172.18.0.{number + 2}"}]}}


def _pods() -> Iterator[Object]:
    for number in range(PODS):
        yield _pod(number, f"app-{number % 97}")


def _pod(number: int, app: str) -> Object:
    node, place = number % NODES, number // NODES + 2
    notes = {"mininetes.dev/mac": f"0a:58:0a:f4:{node:02x}:{place:02x}", "mininetes.dev/ofport": str(10 + place)}
    labels = {"app": app, "tier": f"tier-{number % 7}"}
    ports = [{"name": "http", "containerPort": 8000 + number % 3}]
    meta = {"namespace": f"ns-{number % NAMESPACES}", "labels": labels, "annotations": notes}
    thing = _thing("Pod", f"pod-{number}", {"nodeName": f"node-{node}", "containers": [{"ports": ports}]}, **meta)
    return thing | {"status": {"podIP": f"10.244.{node}.{place}", "phase": "Running"}}


def _policies() -> Iterator[Object]:
    """Each selects a few pods of its namespace; peers by pod, by namespace and by address, ports by number and name."""
    for number in range(POLICIES):
        peers: list[Object] = [
            {"podSelector": {"matchLabels": {"tier": f"tier-{number % 7}"}}},
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": f"ns-{(number + 1) % NAMESPACES}"}
                },
                "podSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
            },
        ]
        rule = {"ports": [{"port": 80 + number % 20}, {"port": "http"}, {"port": 9000, "endPort": 9100}]}
        block = {"ipBlock": {"cidr": f"203.0.{number % 100}.0/24", "except": [f"203.0.{number % 100}.64/26"]}}
        spec = {
            "podSelector": {"matchLabels": {"app": f"app-{number % 97}"}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": peers, **rule}, {"from": [block]}],
            "egress": [{"to": peers, **rule}],
        }
        policy = _thing("NetworkPolicy", f"p{number}", spec, namespace=f"ns-{number % NAMESPACES}")
        yield policy | {"apiVersion": "networking.k8s.io/v1"}


def _relabel(state: ClusterState) -> None:
    state.apply("Pod", "MODIFIED", _pod(500, "app-3"))


def _thing(kind: str, name: str, spec: Object, **meta: Any) -> Object:
    return {"kind": kind, "metadata": {"name": name, **meta}, "spec": spec}
