"""What the API server gives Services: cluster IPs, node ports, health check ports, LoadBalancer addresses.

Each is kept while the Service wants it, given back when it no longer does, and never given twice. What a manifest names
is claimed before anything is given out by itself.
Source: Kubernetes, "Service: type NodePort", "type LoadBalancer"; KEP-3070 and KEP-3668 (bands for chosen values).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address
from itertools import chain
from typing import Any

from topo.cluster.ipam import AddressPool, Exhausted
from topo.cluster.store import Key, Object, copied, key_of

NODE_PORTS = range(30000, 32768)
# Automatic ones come from above the band: min(max(16, size/32), 128) ports (KEP-3668).
_BAND = min(max(16, len(NODE_PORTS) // 32), 128)


class PortPool:
    """Node ports; the lower band is for ports that are chosen, until nothing else is left."""

    def __init__(self) -> None:
        self._used: set[int] = set()

    def take(self) -> int:
        """The lowest free one above the band, else the lowest of it. Raises Exhausted."""
        for port in chain(NODE_PORTS[_BAND:], NODE_PORTS[:_BAND]):
            if port not in self._used:
                self._used.add(port)
                return port
        raise Exhausted("every node port from 30000 to 32767 is in use")

    def claim(self, port: int) -> bool:
        """Take this very port; False if it is in use."""
        if port in self._used:
            return False
        self._used.add(port)
        return True

    def release(self, port: int) -> None:
        """Give it back."""
        self._used.discard(port)


class ServiceAllocator:
    """Remembers what each Service holds. load_balancers: None if no LoadBalancer address can be had.

    gave_back: whether anything became free that another Service may wait for; whoever serves those sets it to False.
    """

    def __init__(self, services: AddressPool, load_balancers: AddressPool | None) -> None:
        self._services, self._load_balancers, self._ports = services, load_balancers, PortPool()
        # What each Service holds, by what for: "ip", "health", "lb", or port_key of one of its ports.
        self._held: dict[Key, dict[str, Any]] = {}
        self.gave_back = False

    def claim(self, service: Object) -> list[str]:
        """Take what the Service names itself; a sentence for each thing that another one has."""
        held = self._held.setdefault(key_of(service), {})
        problems = []
        for name, value in _named(service):
            if held.get(name) == value:
                continue
            if value not in held.values() and not self._take(name, value):
                if name == "lb":  # the Service has none until this one is free; `settle` says so
                    self._give_back(held, name, held.pop(name, None))
                else:
                    problems.append(f"{value} is in use or cannot be given")
                continue
            old, held[name] = held.get(name), value
            self._give_back(held, name, old)
        return problems

    def settle(self, service: Object) -> tuple[Object, list[str]]:
        """The Service with all it should have, as a copy, and a sentence for each thing that is not to be had."""
        new, held = copied(service), self._held.setdefault(key_of(service), {})
        problems: list[str] = []
        wanted = _wanted(service)
        for name in [n for n in held if n not in wanted]:
            self._give_back(held, name, held.pop(name))
        for name in wanted:
            if name not in held:
                try:
                    held[name] = self._find(name, service, held)
                except Exhausted as error:
                    problems.append(str(error))
        _write(new, held)
        return new, problems

    def forget(self, key: Key) -> None:
        """Give back everything that a Service held."""
        held = self._held.pop(key, {})
        for name in list(held):
            self._give_back(held, name, held.pop(name))

    def _find(self, name: str, service: Object, held: dict[str, Any]) -> Any:
        spec = service["spec"]
        if name == "ip":
            return str(self._services.take())
        if name == "lb":
            if self._load_balancers is None:
                raise Exhausted("this lab has no LoadBalancer addresses: mininetes.loadBalancerPool names some")
            if spec.get("loadBalancerIP"):
                raise Exhausted(f"{spec['loadBalancerIP']} is in use or cannot be given")
            return str(self._load_balancers.take())
        if name == "health":
            return self._ports.take()
        # One port for two protocols has one node port (Kubernetes' API server: a DNS server's, for TCP and UDP).
        own = next(p for p in spec["ports"] if port_key(p) == name)
        for other in spec["ports"]:
            if other["port"] == own["port"] and port_key(other) in held and other is not own:
                return held[port_key(other)]
        return self._ports.take()

    def _take(self, name: str, value: Any) -> bool:
        if name == "ip":
            return self._services.claim(IPv4Address(value))
        if name == "lb":
            return self._load_balancers is not None and self._load_balancers.claim(IPv4Address(value))
        return self._ports.claim(value)

    def _give_back(self, held: dict[str, Any], name: str, value: Any) -> None:
        """Unless the Service holds it for something else too: two protocols may share a port."""
        if value is None or value in held.values():
            return
        self.gave_back = True
        if name == "ip":
            self._services.release(IPv4Address(value))
        elif name == "lb" and self._load_balancers is not None:
            self._load_balancers.release(IPv4Address(value))
        elif name != "lb":
            self._ports.release(value)


def port_key(port: Object) -> str:
    """What a Service's port is known by while its manifest changes: its name, which a single one need not have."""
    return f"port {port.get('name', '')}"


def _has_node_ports(spec: Object) -> bool:
    kind = spec.get("type", "ClusterIP")
    return kind == "NodePort" or (kind == "LoadBalancer" and spec.get("allocateLoadBalancerNodePorts") is not False)


def _is_ours_to_balance(spec: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass")


def _named(service: Object) -> Iterable[tuple[str, Any]]:
    """What the Service itself says it has, of what it should have."""
    spec, wanted = service["spec"], set(_wanted(service))
    address = spec.get("clusterIP")
    found: list[tuple[str, Any]] = [("ip", address)] if address and address != "None" else []
    found += [(port_key(p), p["nodePort"]) for p in spec.get("ports", ()) if p.get("nodePort")]
    found += [("health", spec["healthCheckNodePort"])] if spec.get("healthCheckNodePort") else []
    found += [("lb", spec["loadBalancerIP"])] if spec.get("loadBalancerIP") else []
    return [(name, value) for name, value in found if name in wanted]


def _wanted(service: Object) -> list[str]:
    """Everything a Service of its type has."""
    spec = service["spec"]
    if spec.get("type") == "ExternalName" or spec.get("clusterIP") == "None":
        return []
    names = ["ip"]
    # A port that names one of its own has it whatever the Service allocates.
    names += [port_key(p) for p in spec.get("ports", ()) if _has_node_ports(spec) or _names_its_own(spec, p)]
    if _is_ours_to_balance(spec):
        names.append("lb")
    if spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local":
        names.append("health")
    return names


def _names_its_own(spec: Object, port: Object) -> bool:
    return spec.get("type") == "LoadBalancer" and bool(port.get("nodePort"))


def _write(service: Object, held: dict[str, Any]) -> None:
    """Put what is held into the object, and take out what is not."""
    spec = service["spec"]
    if "ip" in held:
        spec["clusterIP"], spec["clusterIPs"] = held["ip"], [held["ip"]]
    elif spec.get("clusterIP") != "None":
        spec.pop("clusterIP", None)
        spec.pop("clusterIPs", None)
    for port in spec.get("ports", ()):
        if port_key(port) in held:
            port["nodePort"] = held[port_key(port)]
        else:
            port.pop("nodePort", None)
    if "health" in held:
        spec["healthCheckNodePort"] = held["health"]
    else:
        spec.pop("healthCheckNodePort", None)
    if "lb" in held:
        service.setdefault("status", {})["loadBalancer"] = {"ingress": [{"ip": held["lb"]}]}
    elif not spec.get("loadBalancerClass") and "loadBalancer" in service.get("status", {}):
        service["status"]["loadBalancer"] = {}
