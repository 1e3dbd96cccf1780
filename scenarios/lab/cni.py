"""What a running lab's CNI runtimes can be asked: CHECK of pods, STATUS and GC of nodes, results; plain data each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from topo.cluster.errors import InputError
from topo.cni.errors import CniError
from topo.lab import Lab
from topo.nodes import Node
from topo.podnetwork import NodeNetwork
from topo.pods import Sandbox


def ask(lab: Lab, command: str, names: Sequence[str], pod: Callable[[str], Sandbox]) -> list[dict[str, Any]]:
    """A line for each pod (check, result) or node (status, gc); none named: all. Raises InputError.

    pod: finds one by what a user calls it.
    """
    if command in ("check", "result"):
        attached = [s for s in lab.kubelet.sandboxes.values() if s.attachment]
        chosen = [pod(name) for name in names] or sorted(attached, key=lambda s: s.key)
        for one in chosen:
            if one.attachment is None:
                raise InputError(f"pod {one.key}", "shares its node's network", "a pod with a network of its own")
        return [_check(lab, one) if command == "check" else _result(lab, one) for one in chosen]
    for name in names:
        if name not in lab.nodes:
            raise InputError(f"node {name}", "there is no such node", f"one of: {', '.join(lab.nodes)}")
    nodes = [lab.nodes[name] for name in names or lab.nodes]
    return [_status(lab, node) if command == "status" else _collect(lab, node) for node in nodes]


def _network(lab: Lab, node: Node) -> NodeNetwork:
    return lab.kubelet.network(node)


def _check(lab: Lab, one: Sandbox) -> dict[str, Any]:
    assert one.attachment is not None
    try:
        _network(lab, one.node).runtime.check(one.attachment)
    except CniError as error:
        return {"name": one.key, "ok": False, "errors": [_error(error)]}
    return {"name": one.key, "ok": True, "errors": []}


def _result(lab: Lab, one: Sandbox) -> dict[str, Any]:
    assert one.attachment is not None
    found = _network(lab, one.node).runtime.result(one.attachment)
    return {"name": one.key, "ok": found is not None, "errors": [], "result": found}


def _status(lab: Lab, node: Node) -> dict[str, Any]:
    runtime = _network(lab, node).runtime
    line = {"name": node.name, "network": runtime.network.name, "version": runtime.version}
    try:
        runtime.status()
    except CniError as error:
        return line | {"ok": False, "errors": [_error(error)]}
    return line | {"ok": True, "errors": []}


def _collect(lab: Lab, node: Node) -> dict[str, Any]:
    """GC: what belongs to no pod of the lab's, and to no container that was attached by hand, is given back."""
    valid = {
        (s.attachment.container, s.attachment.ifname)
        for s in list(lab.kubelet.sandboxes.values())
        if s.node is node and s.attachment
    }
    specs = [thing["spec"] for thing in lab.store.list("Attachment")]
    valid |= {(spec["container"], spec["ifname"]) for spec in specs if spec["node"] == node.name}
    errors = _network(lab, node).runtime.collect(valid)
    return {"name": node.name, "ok": not errors, "errors": [_error(error) for error in errors]}


def _error(error: CniError) -> dict[str, Any]:
    return {"plugin": error.plugin, "code": int(error.code), "msg": error.msg, "details": error.details}
