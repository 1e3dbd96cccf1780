"""What the cluster itself must refuse before an object is stored: what depends on the lab, not on the object alone."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.cluster.wiring import COMMAND

_TEMPLATED = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")


def check(objects: Iterable[Object], nodes: Iterable[str], services: IPv4Network, there: Iterable[Object] = ()) -> None:
    """Raise InputError for the first object the lab cannot take.

    nodes: names of the lab's nodes; services: the Service subnet; there: the Services there are.
    """
    objects = list(objects)
    new = {_name(thing) for thing in objects if thing["kind"] == "Service"}
    old = [service for service in there if _name(service) not in new]
    taken = {s["spec"]["clusterIP"]: _name(s) for s in old if s["spec"].get("clusterIP")}
    ports = {p["nodePort"]: _name(s) for s in old for p in s["spec"].get("ports", ()) if p.get("nodePort")}
    known = {*nodes, *(o["metadata"]["name"] for o in objects if o["kind"] == "Node")}
    for thing in objects:
        if thing["kind"] == "Service":
            _service(thing, services, taken)
            _node_ports(thing, ports)
        elif thing["kind"] == "Pod":
            _pod(thing, _where(thing), known)
        elif thing["kind"] in _TEMPLATED:
            template = thing["spec"]["template"]
            _pod(template, f"{_where(thing)}: spec.template", known)


def check_change(old: Object | None, new: Object) -> None:
    """Raise InputError for a change that Kubernetes does not allow: a workload's selector, a Service's address."""
    if old is None:
        return
    if (
        new["kind"] in _TEMPLATED
        and "selector" in new["spec"]
        and old["spec"].get("selector") != new["spec"]["selector"]
    ):
        raise InputError(f"{_where(new)}: spec.selector", "cannot be changed", "the old selector, or delete it first")
    address = new["spec"].get("clusterIP") if new["kind"] == "Service" else None
    if address and old["spec"].get("clusterIP") not in (None, "", address):
        raise InputError(f"{_where(new)}: spec.clusterIP", "cannot be changed", old["spec"]["clusterIP"])


def _name(thing: Object) -> str:
    return f"{thing['metadata'].get('namespace', 'default')}/{thing['metadata']['name']}"


def _where(thing: Object) -> str:
    return f"{thing['kind']} {_name(thing)}"


def _node_ports(service: Object, taken: dict[int, str]) -> None:
    """Source: Kubernetes' API server, which says "provided port is already allocated"."""
    for i, port in enumerate(service["spec"].get("ports", ())):
        number, name = port.get("nodePort"), _name(service)
        if number and taken.setdefault(number, name) != name:
            where = f"{_where(service)}: spec.ports[{i}].nodePort"
            problem = f"{number}: the port is already allocated, to Service {taken[number]}"
            raise InputError(where, problem, "another port, or none")


def _service(service: Object, network: IPv4Network, taken: dict[str, str]) -> None:
    address = service["spec"].get("clusterIP")
    if not address or address == "None":
        return
    where, name = f"{_where(service)}: spec.clusterIP", _name(service)
    inside = IPv4Address(address) in network
    if not inside or IPv4Address(address) in (network.network_address, network.broadcast_address):
        raise InputError(where, f"{address} is no address of the Service subnet", f"one of {network}")
    if taken.setdefault(address, name) != name:
        raise InputError(where, f"{address} belongs to Service {taken[address]}", "another address, or none")


def _pod(pod: Mapping[str, Any], where: str, nodes: set[str]) -> None:
    spec, meta = pod["spec"], pod.get("metadata") or {}
    wanted = spec.get("nodeName")
    if wanted is not None and wanted not in nodes:
        raise InputError(
            f"{where}: spec.nodeName", f"there is no node {wanted!r}", f"one of: {', '.join(sorted(nodes))}"
        )
    containers = {c["name"] for c in spec["containers"]}
    for key, line in (meta.get("annotations") or {}).items():
        name, _, container = key.partition(f"{COMMAND}.")
        if key != COMMAND and not (name == "" and container):
            continue
        place = f"{where}: metadata.annotations[{key}]"
        if container and container not in containers:
            raise InputError(place, f"there is no container {container!r}", f"one of: {', '.join(sorted(containers))}")
        _command(line, place)


def _command(line: str, where: str) -> None:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise InputError(
            where, f"{line!r} cannot be split into words ({error})", "a program and its arguments"
        ) from error
    if not words:
        raise InputError(where, "is empty", "a program and its arguments")
    if shutil.which(words[0]) is None:
        raise InputError(where, f"the program {words[0]!r} is not installed here", "a program of this machine")
