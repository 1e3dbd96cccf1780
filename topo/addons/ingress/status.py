"""What the controller writes into the Ingresses it serves: the addresses at which clients reach it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

Object = dict[str, Any]
Name = tuple[str, str]  # namespace, name


def addresses(objects: Iterable[Object], service: Name) -> list[dict[str, str]]:
    """Those of the controller's own LoadBalancer Service, or of the nodes its ready pods run on while it has none.

    Each is {"ip": ADDRESS} or {"hostname": NAME}, as in an Ingress's status.
    """
    objects = list(objects)
    own = next((o for o in objects if o["kind"] == "Service" and _name(o) == service), {})
    given = own.get("status", {}).get("loadBalancer", {}).get("ingress") or []
    if found := [{k: one[k]} for one in given for k in ("ip", "hostname") if one.get(k)]:
        return found
    label = {"kubernetes.io/service-name": service[1]}.items()
    nodes = {
        endpoint.get("nodeName")
        for one in objects
        if one["kind"] == "EndpointSlice" and one["metadata"].get("namespace") == service[0]
        if label <= (one["metadata"].get("labels") or {}).items()
        for endpoint in one.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
    }
    return [
        {"ip": address["address"]}
        for node in objects
        if node["kind"] == "Node" and node["metadata"]["name"] in nodes
        for address in node.get("status", {}).get("addresses") or ()
        if address["type"] == "InternalIP"
    ]


def changes(
    objects: Iterable[Object], served: Collection[Name], told: Collection[Name], where: list[dict[str, str]]
) -> Iterator[tuple[Name, Mapping[str, Any]]]:
    """New status of each Ingress whose own is out of date. told: those this controller wrote to before.

    An Ingress that has become another controller's loses our addresses; others are left alone.
    """
    for thing in objects:
        if thing["kind"] != "Ingress":
            continue
        name = _name(thing)
        wanted = where if name in served else []
        have = thing.get("status", {}).get("loadBalancer", {}).get("ingress") or []
        if have != wanted and (name in served or name in told):
            yield name, {"loadBalancer": {"ingress": wanted} if wanted else {}}


def _name(thing: Object) -> Name:
    return thing["metadata"].get("namespace", ""), thing["metadata"]["name"]
