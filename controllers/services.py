"""Services as the proxy modes see them: one value a Service port, and which endpoints a node's connections may reach.

Source of every rule: Kubernetes, "Virtual IPs and Service Proxies", "Service", "EndpointSlices", "Topology Aware
Routing"; KEP-1669 (terminating endpoints), KEP-2086 (internal traffic policy).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from controllers.flow.fields import ip_number

Object = Mapping[str, Any]

WEIGHTS = "mininetes.dev/weights"
SERVICE_NAME = "kubernetes.io/service-name"
# Labels by which a Service is left to another proxy, or to none (Kubernetes, "Well-Known Labels").
_NOT_OURS = ("service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless")
# Kubernetes API, SessionAffinityConfig: 3 hours.
_AFFINITY_SECONDS = 10800


class Endpoint(NamedTuple):
    """One address and port behind a Service port. ready, serving, terminating: its slice's conditions.

    zones, nodes: topology hints, empty for none; weight: of the schedulers that know weights (1 unless annotated).
    """

    ip: int
    port: int
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zones: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    weight: int = 1


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service. The state hands out the same object while nothing about it changes.

    key: namespace/name:port/protocol; protocol: tcp, udp or sctp; group: a number of its own, 1..2^30-1.
    node_port, health_port: 0 for none. source_ranges: of load_balancer_ips, empty for no limit.
    affinity: seconds, 0 for none. internal_local, external_local: the traffic policies.
    """

    key: str
    protocol: str
    cluster_ip: int
    port: int
    endpoints: tuple[Endpoint, ...]
    group: int
    node_port: int = 0
    external_ips: tuple[int, ...] = ()
    load_balancer_ips: tuple[int, ...] = ()
    source_ranges: tuple[str, ...] = ()
    affinity: int = 0
    internal_local: bool = False
    external_local: bool = False
    health_port: int = 0
    # Whether every node treats it alike: no address or choice of it depends on the node.
    is_same_everywhere: bool = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        hinted = any(e.zones or e.nodes for e in self.endpoints)
        object.__setattr__(self, "is_same_everywhere", not (self.is_external or self.internal_local or hinted))

    def __hash__(self) -> int:
        """Of the key alone, for compilers look ports up by the ten thousand; endpoints are many."""
        return hash(self.key)

    @property
    def is_external(self) -> bool:
        """Whether clients outside the cluster have an address for it."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)


class ByIdentity:
    """Hashes a mapping by which one it is: the state makes a new one when something in it changes."""

    __slots__ = ("mapping",)

    def __init__(self, mapping: Mapping[str, Any]) -> None:
        self.mapping = mapping

    def __hash__(self) -> int:
        return id(self.mapping)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ByIdentity) and self.mapping is other.mapping


def external(services: Mapping[str, ServicePort]) -> tuple[ServicePort, ...]:
    """Those that clients outside the cluster have an address for."""
    return _external(ByIdentity(services))


@lru_cache(maxsize=4)
def _external(services: ByIdentity) -> tuple[ServicePort, ...]:
    return tuple(port for port in services.mapping.values() if port.is_external)


@dataclass(frozen=True, slots=True)
class Reach:
    """What one node's connections to a Service port may reach.

    cluster: under the policy Cluster; local: under Local; any_endpoint: whether a client elsewhere could be served
    (a Local policy without local endpoints then drops, and rejects otherwise).
    """

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    any_endpoint: bool


def reach(port: ServicePort, node: str, zone: str) -> Reach:
    """The endpoints for connections that node `node` in zone `zone` ("" if it has none) translates. Pure."""
    close = _close([e for e in port.endpoints if e.ready], node, zone)
    cluster = tuple(close) or _still_serving(port.endpoints)
    here = [e for e in port.endpoints if e.node == node] if node else []
    local = tuple(e for e in here if e.ready) or _still_serving(here)
    return Reach(cluster, local, bool(cluster or local))


def _still_serving(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """Where no endpoint is ready, those that serve while they terminate (KEP-1669)."""
    return tuple(e for e in endpoints if e.serving and e.terminating)


def _close(ready: list[Endpoint], node: str, zone: str) -> list[Endpoint]:
    """Topology hints: heeded only where every ready endpoint has them and one names the node or its zone."""
    if all(e.nodes for e in ready) and any(node in e.nodes for e in ready):
        return [e for e in ready if node in e.nodes]
    if zone and all(e.zones for e in ready) and any(zone in e.zones for e in ready):
        return [e for e in ready if zone in e.zones]
    return ready


def ports_of(key: str, service: Object | None, slices: Iterable[Object]) -> dict[str, Callable[[int], ServicePort]]:
    """Port key -> maker of the ServicePort for its group number, of a Service that has a virtual address."""
    if service is None:
        return {}
    spec, labels = service["spec"], service["metadata"].get("labels") or {}
    address = spec.get("clusterIP")
    if not address or address == "None" or spec.get("type") == "ExternalName" or any(x in labels for x in _NOT_OURS):
        return {}
    slices, weights = list(slices), _weights(service)
    common = _common(service)
    found: dict[str, Callable[[int], ServicePort]] = {}
    for port in spec.get("ports", ()):
        protocol, name = port.get("protocol", "TCP").lower(), port.get("name", "")
        own: dict[str, Any] = {
            "key": f"{key}:{name or port['port']}/{protocol}",
            "protocol": protocol,
            "cluster_ip": ip_number(address),
            "port": port["port"],
            "node_port": port.get("nodePort", 0),
            "endpoints": _endpoints(slices, name, protocol, weights),
            **common,
        }
        found[own["key"]] = lambda group, own=own: ServicePort(group=group, **own)  # type: ignore[misc]
    return found


def _common(service: Object) -> dict[str, Any]:
    """What all ports of a Service share."""
    spec = service["spec"]
    affinity = 0
    if spec.get("sessionAffinity") == "ClientIP":
        config = spec.get("sessionAffinityConfig", {}).get("clientIP", {})
        affinity = config.get("timeoutSeconds", _AFFINITY_SECONDS)
    ingress = (service.get("status") or {}).get("loadBalancer", {}).get("ingress", ())
    return {
        "external_ips": tuple(map(ip_number, spec.get("externalIPs", ()))),
        # ipMode Proxy: the load balancer itself forwards; nodes must not take its address (KEP-1860).
        "load_balancer_ips": tuple(ip_number(i["ip"]) for i in ingress if i.get("ip") and i.get("ipMode") != "Proxy"),
        "source_ranges": tuple(r.strip() for r in spec.get("loadBalancerSourceRanges", ())),
        "affinity": affinity,
        "internal_local": spec.get("internalTrafficPolicy") == "Local",
        "external_local": spec.get("externalTrafficPolicy") == "Local",
        "health_port": spec.get("healthCheckNodePort", 0),
    }


def _weights(service: Object) -> Mapping[str, int]:
    """Pod name -> weight, from the Service's annotation: a JSON object. One that is none weighs nothing."""
    text = (service["metadata"].get("annotations") or {}).get(WEIGHTS)
    if text is None:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {k: v for k, v in found.items() if isinstance(v, int) and v >= 0} if isinstance(found, dict) else {}


def _endpoints(
    slices: list[Object], name: str, protocol: str, weights: Mapping[str, int] | None = None
) -> tuple[Endpoint, ...]:
    """Every endpoint of one Service port over all its slices, sorted, each address and port once.

    Source: Kubernetes API, EndpointSlice: a missing ready or serving condition counts as true; ports match by name.
    """
    found: dict[tuple[int, int], Endpoint] = {}
    for part in slices:
        if part.get("addressType", "IPv4") != "IPv4":
            continue
        numbers = [
            p["port"]
            for p in part.get("ports") or ()
            if (p.get("name") or "") == name and p.get("protocol", "TCP").lower() == protocol and "port" in p
        ]
        for thing in part.get("endpoints") or () if numbers else ():
            state, hints = thing.get("conditions") or {}, thing.get("hints")
            ready = state.get("ready") is not False
            ip, node = ip_number(thing["addresses"][0]), thing.get("nodeName", "")
            how = ready, state.get("serving", ready) is not False, state.get("terminating") is True
            near = _hinted(hints) if hints else ((), ())
            weight = weights.get((thing.get("targetRef") or {}).get("name", ""), 1) if weights else 1
            for number in numbers:
                one = Endpoint(ip, number, node, *how, *near, weight)
                if ready or (one.ip, one.port) not in found:
                    found[one.ip, one.port] = one
    return tuple(sorted(found.values()))


def _hinted(hints: Object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The zones and the nodes that an endpoint is meant for."""
    zones = tuple(zone["name"] for zone in hints.get("forZones", ()))
    return zones, tuple(node["name"] for node in hints.get("forNodes", ()))
