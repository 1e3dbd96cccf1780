"""Pod networks: one file each, which sets CNI to an object with a name, variants, a plan and flows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controllers.cni.options import choice, only
from controllers.flow.program import Fragment
from controllers.proxy import NodePart
from controllers.state import Lab, NodeView
from topo.cluster.network import PodNetwork


@dataclass(frozen=True, slots=True)
class Traits:
    """What a user compares CNIs by, of one variant.

    overhead: bytes that encapsulation adds to each packet on the fabric. layer: "L2" if pods of different nodes share
    a link, "L3" if they are routed. policy: which directions of policies it enforces, policy_kinds: of which kinds.
    encryption: what it can encrypt with. needs: what the machine must have. source: where the real one is described.
    """

    encapsulation: str
    overhead: int
    routing: str
    description: str
    layer: str = "L3"
    policy: tuple[str, ...] = ()
    encryption: tuple[str, ...] = ()
    needs: str = ""
    source: str = ""
    policy_kinds: tuple[str, ...] = ("NetworkPolicy",)

    @property
    def enforces(self) -> tuple[str, ...]:
        """What has an effect, as KIND/DIRECTION."""
        return tuple(f"{kind}/{direction}" for kind in self.policy_kinds for direction in self.policy)


# Calico, "Tutorial: Kubernetes AdminNetworkPolicy"; Antrea and OVN-Kubernetes implement the same API.
WITH_ADMIN_POLICIES = ("NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
INGRESS_AND_EGRESS = ("ingress", "egress")


class Cni(ABC):
    """A CNI: name, its variants by name (the first is the default), and the option by which one is chosen."""

    name: str
    variants: Mapping[str, Traits]
    option: str = "mode"
    # Further options that the lab file may give.
    options: tuple[str, ...] = ("mtu",)

    @property
    def traits(self) -> Traits:
        """Of the default variant."""
        return next(iter(self.variants.values()))

    def variant(self, options: Mapping[str, object]) -> str:
        """The variant that these options choose. Raises InputError for options or variants that there are not."""
        only(self.name, options, (self.option, *self.options))
        return choice(self.name, options, self.option, tuple(self.variants))

    @abstractmethod
    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """How pods are attached on a fabric of that MTU. Raises InputError for options it does not know."""

    @abstractmethod
    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Flows of br-int: ARP towards pods, routes to other nodes' pods."""

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        """Flows of br-ex, for pod packets that cross the fabric as they are; none for an overlay."""
        return ()

    def node_part(self, lab: Lab, pid: int, run: Path) -> NodePart | None:
        """What it does on a node beside flows, a routing daemon say; None for nothing.

        pid: a process in the node's namespaces. run: the node's own folder for files.
        """
        return None


def options_of(view: NodeView) -> Mapping[str, object]:
    """What the lab file says of the CNI."""
    given: Mapping[str, object] = view.lab.options.get("cni", {})
    return given
