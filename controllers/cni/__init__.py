"""Pod networks: one file each, which sets CNI to an object with a name, variants, a plan and flows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from controllers.cni.options import choice, mtu, only
from controllers.cni.ways import Way
from controllers.flow.program import Fragment
from controllers.policy import read_calico
from controllers.proxy import NodePart
from controllers.state import Lab, Node, NodeView
from topo.cluster.network import Daemon, PodNetwork


@dataclass(frozen=True, slots=True)
class Traits:
    """What a user compares CNIs by, of one variant.

    overhead: bytes that encapsulation adds to each packet on the fabric. layer: "L2" if pods of different nodes share
    a link, "L3" if they are routed. policy: which directions of policies it enforces, policy_kinds: of which kinds.
    encryption: what it can encrypt with. needs: what the machine must have. source: where the real one is described.

    The rest is what packets must show; tests/lab/cni holds every CNI to it, scenario cni-traits shows it.
    headers: what stands before a pod's packet on the fabric, outermost first, as tshark(1) names it in frame.protocols.
    udp_port: the tunnel's, 0 for none. sealed: nobody on the fabric can read what is inside. only_between_subnets:
    nodes of one subnet exchange packets as they are. fixed_mtu: of pods whatever the fabric's, 0 for the fabric's less
    overhead and margin. margin: bytes that it leaves unused beyond the overhead. crosses: pods reach pods of other
    nodes. nodes_reach: whose pods a node reaches. masquerades: towards whom a pod has its node's address.
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
    headers: tuple[str, ...] = ()
    udp_port: int = 0
    sealed: bool = False
    only_between_subnets: bool = False
    fixed_mtu: int = 0
    margin: int = 0
    crosses: bool = True
    # "own": pods on the node itself; "others": pods on other nodes.
    nodes_reach: tuple[str, ...] = ("own", "others")
    # "pods": those on other nodes; "nodes": other nodes; "outside": whatever is no part of the cluster.
    masquerades: tuple[str, ...] = ("nodes", "outside")

    def mtu(self, fabric_mtu: int) -> int:
        """The pods' MTU on a fabric of that MTU, if the lab file says none."""
        return self.fixed_mtu or fabric_mtu - self.overhead - self.margin

    @property
    def enforces(self) -> tuple[str, ...]:
        """What has an effect, as KIND/DIRECTION."""
        return tuple(f"{kind}/{direction}" for kind in self.policy_kinds for direction in self.policy)


# Calico, "Tutorial: Kubernetes AdminNetworkPolicy"; Antrea and OVN-Kubernetes implement the same API.
WITH_ADMIN_POLICIES = ("NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
# Calico's own beside them, which nothing but Calico enforces.
CALICO_POLICIES = (*WITH_ADMIN_POLICIES, *read_calico.POLICIES)
INGRESS_AND_EGRESS = ("ingress", "egress")


class Cni(ABC):
    """A CNI: name, its variants by name (the first is the default), and the option by which one is chosen."""

    name: str
    variants: Mapping[str, Traits]
    option: str = "mode"
    # Whether it knows pods by security identities (controllers/identities.py).
    identities: bool = False
    # The proxy mode if none is asked for, and those of its options that only this one heeds.
    proxy: str = "ovs"
    proxy_options: tuple[str, ...] = ()
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

    def traits_of(self, options: Mapping[str, object]) -> Traits:
        """The traits of what these options choose. Raises InputError."""
        return self.variants[self.variant(options)]

    def way(self, view: NodeView, peer: Node) -> Way:
        """How packets of the view's node get to the peer's pods."""
        traits = self.traits_of(options_of(view))
        if traits.only_between_subnets and view.node.subnet == peer.subnet:
            return Way.NEIGHBOUR
        return Way.TUNNEL if traits.overhead else Way.NEIGHBOUR

    def mtu(self, fabric_mtu: int, options: Mapping[str, object]) -> int:
        """The pods' MTU: what the lab file says, else the variant's. Raises InputError if it is none."""
        return mtu(options, self.traits_of(options).mtu(fabric_mtu))

    @abstractmethod
    def plan(self, fabric_mtu: int, options: Mapping[str, object]) -> PodNetwork:
        """How pods are attached on a fabric of that MTU. Raises InputError for options it does not know."""

    @abstractmethod
    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """Flows of br-int: ARP towards pods, routes to other nodes' pods."""

    def announced_prefixes(self, view: NodeView, node: Node) -> Iterable[str]:
        """What a node announces of its pods' addresses, where nodes announce them: all as one prefix."""
        return (node.pod_cidr,)

    def devices(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """Kinds of devices of the node's kernel (ip-link(8)) that it uses where they are (topo.system.has_device)."""
        return ()

    def carries_identities(self, options: Mapping[str, object]) -> bool:
        """Whether a packet to another node says which identity has sent it, so that policies can ask for that there."""
        return False

    def stand_ins(self, options: Mapping[str, object]) -> tuple[str, ...]:
        """What it does otherwise than the real one because this machine or emulation could not, a sentence each."""
        return ()

    def outside(self, address: str, options: Mapping[str, object]) -> tuple[Daemon, ...]:
        """Programs of its own in the machine outside the cluster, whose address that is."""
        return ()

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
