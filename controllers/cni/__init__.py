"""Pod networks: one file each, which sets CNI to an object with a name, traits, a plan and flows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from controllers.flow.program import Fragment
from controllers.state import NodeView
from topo.cluster.network import PodNetwork


@dataclass(frozen=True, slots=True)
class Traits:
    """What a user compares CNIs by. overhead: bytes that encapsulation adds to each packet on the fabric."""

    encapsulation: str
    overhead: int
    routing: str
    description: str


class Cni(Protocol):
    """What a CNI must be. A plugin that needs no flows on the uplink gives an empty list there."""

    name: str
    traits: Traits

    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """How pods are attached on a fabric of that MTU. Raises InputError for options it does not know."""

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Flows of br-int: ARP towards pods, routes to other nodes' pods."""

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """Flows of br-ex, for pod packets that cross the fabric as they are."""
