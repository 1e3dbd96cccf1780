"""What a lab is made of, as plain values: nodes, fabric, subnets, CNI and proxy mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from typing import Literal

Options = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """One link of the fabric. None means: not limited, not changed.

    bandwidth: Mbit/s in each direction (HTB on both ends).
    delay: milliseconds added in each direction; loss: percent in each direction (both netem).
    mtu: bytes of IP packet, 576..65000.
    """

    bandwidth: float | None = None
    delay: float | None = None
    loss: float | None = None
    mtu: int = 1500


@dataclass(frozen=True, slots=True)
class FabricConfig:
    """The underlay. star: one switch. leaf-spine: nodes are spread over the leaves in turn. two-racks, two-sites: two
    switches with one link between them.

    routing: "l2" if all nodes share one subnet, "l3" if every rack has its own and the switches are routers; "" for
    what is usual of the shape.
    links: names "A--B" (alphabetical or not; node or switch names) that differ from `link`.
    """

    shape: Literal["star", "leaf-spine", "two-racks", "two-sites"] = "leaf-spine"
    leaves: int = 2
    spines: int = 2
    link: LinkConfig = LinkConfig()
    links: Mapping[str, LinkConfig] = field(default_factory=dict)
    routing: Literal["", "l2", "l3"] = ""

    @property
    def routed(self) -> bool:
        """Whether every rack is a subnet of its own."""
        return self.routing == "l3" or (not self.routing and self.shape in ("two-racks", "two-sites"))


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """One Kubernetes node. role follows kind's Cluster config."""

    name: str
    role: Literal["control-plane", "worker"] = "worker"
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LabConfig:
    """A whole lab. Equal values build equal labs.

    node_cidr_bits: prefix length of each node's slice of pod_subnet.
    load_balancer_pool: addresses of Services of type LoadBalancer, inside node_subnet; None for the last of it.
    honour_initial_delay: wait a probe's initialDelaySeconds for stand-in containers too
      (they are ready at once, so by default their first probe runs at once).
    ingress: run an Ingress controller from the start; else one runs only if the manifests have an Ingress for it.
    dns: run the cluster's DNS, at the tenth address of service_subnet.
    dns_upstream: ADDRESS[:PORT] of the resolver asked for names outside the cluster; "" for the machine `client`.
    proxy_mode: "" for the one that goes with the CNI.
    scenario: what was asked of the scenario that the lab is for, by its options' names.
    """

    nodes: tuple[NodeConfig, ...]
    name: str = "default"
    pod_subnet: IPv4Network = IPv4Network("10.244.0.0/16")
    service_subnet: IPv4Network = IPv4Network("10.96.0.0/16")
    node_subnet: IPv4Network = IPv4Network("172.18.0.0/16")
    node_cidr_bits: int = 24
    proxy_mode: str = ""
    proxy_options: Options = field(default_factory=dict)
    cni: str = "flannel"
    cni_options: Options = field(default_factory=dict)
    bgp: Options = field(default_factory=dict)
    fabric: FabricConfig = FabricConfig()
    honour_initial_delay: bool = False
    load_balancer_pool: IPv4Network | None = None
    ingress: bool = False
    dns: bool = True
    dns_upstream: str = ""
    scenario: Mapping[str, str] = field(default_factory=dict)
