"""What the cluster itself must refuse before an object is stored: what depends on the lab, not on the object alone."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.cluster.wiring import COMMAND
from topo.control.allocation import NODE_PORTS
from topo.manifest_rules import DNS_LABEL, is_label

_TEMPLATED = ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet", "Job")


def check(
    objects: Iterable[Object],
    nodes: Iterable[str],
    services: IPv4Network,
    there: Iterable[Object] = (),
    machines: Collection[str] = (),
) -> None:
    """Raise InputError for the first object the lab cannot take.

    nodes: names of the lab's nodes; services: the Service subnet; there: the Services there are; machines: names of
    those that are no nodes.
    """
    objects = list(objects)
    new = {_name(thing) for thing in objects if thing["kind"] == "Service"}
    old = [service for service in there if _name(service) not in new]
    taken = {s["spec"]["clusterIP"]: _name(s) for s in old if s["spec"].get("clusterIP")}
    ports = {number: _name(s) for s in old for _, number in _ports_of_nodes(s)}
    known = {*nodes, *(o["metadata"]["name"] for o in objects if o["kind"] == "Node")}
    for thing in objects:
        if thing["kind"] == "Service":
            _service(thing, services, taken)
            _node_ports(thing, ports)
        elif thing["kind"] == "Node":
            _node(thing, machines)
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
    if new["kind"] == "Service":
        _same_address(old["spec"], new)


def _same_address(old: Mapping[str, Any], new: Object) -> None:
    """Source: Kubernetes' API server: an address, or having none, is for life, except of an ExternalName Service."""
    spec, have = new["spec"], old.get("clusterIP")
    where = f"{_where(new)}: spec.clusterIP"
    if "ExternalName" in (old.get("type"), spec.get("type")):
        return
    if spec.get("clusterIP") and have not in (None, "", spec["clusterIP"]):
        raise InputError(where, "cannot be changed", have or "")
    if have == "None" and spec.get("type") in ("NodePort", "LoadBalancer"):
        raise InputError(where, f"a {spec['type']} Service cannot be headless", "to delete it first")


def _name(thing: Object) -> str:
    return f"{thing['metadata'].get('namespace', 'default')}/{thing['metadata']['name']}"


def _where(thing: Object) -> str:
    return f"{thing['kind']} {_name(thing)}"


def _node(node: Object, machines: Collection[str]) -> None:
    """Its name is a machine's here, and that of a folder with sockets, whose paths are short (unix(7))."""
    name = node["metadata"]["name"]
    if not is_label(name):
        raise InputError(f"Node {name}: metadata.name", "cannot be a machine's name", DNS_LABEL)
    if name in machines:
        raise InputError(f"Node {name}: metadata.name", "is a switch's or the client's", "a name of its own")


def _ports_of_nodes(service: Object) -> Iterator[tuple[str, int]]:
    """(field, number) of every port of the nodes that a Service names."""
    spec = service["spec"]
    for i, port in enumerate(spec.get("ports", ())):
        if port.get("nodePort"):
            yield f"spec.ports[{i}].nodePort", port["nodePort"]
    if spec.get("healthCheckNodePort"):
        yield "spec.healthCheckNodePort", spec["healthCheckNodePort"]


def _node_ports(service: Object, taken: dict[int, str]) -> None:
    """Source: Kubernetes' API server, which says "provided port is already allocated"."""
    for field, number in _ports_of_nodes(service):
        where, name = f"{_where(service)}: {field}", _name(service)
        if number not in NODE_PORTS:
            raise InputError(where, f"{number} is out of range", f"{NODE_PORTS.start} to {NODE_PORTS.stop - 1}")
        if taken.setdefault(number, name) != name:
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
    containers = {c["name"] for c in (*spec["containers"], *(spec.get("initContainers") or ()))}
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
