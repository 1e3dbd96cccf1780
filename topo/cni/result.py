"""What plugins answer to ADD: reading it, and writing it for the version that was asked for; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address, ip_interface
from typing import Any

from topo.cni import versions
from topo.cni.errors import CniError, Code


@dataclass(frozen=True, slots=True)
class Interface:
    """One that an attachment made. sandbox: CNI_NETNS for the container's, "" for the host's."""

    name: str
    mac: str = ""
    sandbox: str = ""
    mtu: int | None = None


@dataclass(frozen=True, slots=True)
class Address:
    """One that an attachment gave. interface: index of the one that has it."""

    address: IPv4Interface | IPv6Interface
    gateway: IPv4Address | IPv6Address | None = None
    interface: int | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """One that an attachment made. gateway: None for that of the address of its family."""

    dst: str
    gateway: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """A success. dns: as it came, for nobody here changes it."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: Mapping[str, Any] | None = None

    def inside(self, netns: str) -> Sequence[Interface]:
        """The container's interfaces."""
        return [one for one in self.interfaces if one.sandbox and (one.sandbox == netns or not netns)]

    def of(self, interface: Interface) -> Sequence[Address]:
        """The addresses of one interface; one without an index is the container's."""
        return [one for one in self.ips if one.interface is None or self.interfaces[one.interface] == interface]

    def object(self, version: str) -> dict[str, Any]:
        """As JSON has it. Before 1.0.0 each address says its family."""
        found: dict[str, Any] = {"cniVersion": version}
        if self.interfaces:
            found["interfaces"] = [_interface(one, version) for one in self.interfaces]
        found["ips"] = [_address(one, version) for one in self.ips]
        if self.routes:
            found["routes"] = [
                {"dst": one.dst, **({"gw": str(one.gateway)} if one.gateway else {})} for one in self.routes
            ]
        found["dns"] = dict(self.dns or {})
        return found


def read(value: Any) -> Result:
    """What a plugin said. Raises CniError where it is no result."""
    try:
        interfaces = tuple(
            Interface(str(one["name"]), str(one.get("mac", "")), str(one.get("sandbox") or ""), one.get("mtu"))
            for one in value.get("interfaces") or ()
        )
        ips = tuple(
            Address(ip_interface(one["address"]), _gateway(one.get("gateway")), one.get("interface"))
            for one in value.get("ips") or ()
        )
        routes = tuple(Route(str(one["dst"]), _gateway(one.get("gw"))) for one in value.get("routes") or ())
        if any(one.interface is not None and not 0 <= one.interface < len(interfaces) for one in ips):
            raise ValueError("an address of an interface that is not listed")
        return Result(interfaces, ips, routes, value.get("dns"))
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CniError(Code.UNDECODABLE, "no CNI result", f"{type(error).__name__}: {error}") from error


def _gateway(text: str | None) -> IPv4Address | IPv6Address | None:
    return ip_address(text) if text else None


def _interface(one: Interface, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": one.name}
    found |= {"mac": one.mac} if one.mac else {}
    found |= {"mtu": one.mtu} if one.mtu and versions.at_least(version, versions.GC_SINCE) else {}
    return found | ({"sandbox": one.sandbox} if one.sandbox else {})


def _address(one: Address, version: str) -> dict[str, Any]:
    found: dict[str, Any] = {"address": str(one.address)}
    if not versions.at_least(version, versions.NO_IP_VERSION_SINCE):
        found["version"] = str(one.address.version)
    found |= {"gateway": str(one.gateway)} if one.gateway else {}
    return found | ({"interface": one.interface} if one.interface is not None else {})
