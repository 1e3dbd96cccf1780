"""How a switch knows who is at the other end: by address, or by the identity that a CNI's packets carry.

The counterpart is `_peer` of controllers/features/policies.py, which makes a match of what is given here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from controllers.flow.fields import ip_text
from controllers.policy import clauses
from controllers.policy.model import Block, Others, Peer, Pod, PodGroup

# The pods and network sets of a group.
Members = Callable[[PodGroup], Iterable[Pod]]
# What stands before an identity's number, where networks stand alone.
IDENTITY = "identity "
# A peer -> what a packet of theirs can be known by.
SeenAs = Callable[[Peer, Members], Iterable[str]]


def by_address(peer: Peer, members: Members) -> Iterable[str]:
    """Networks, /32 for a pod."""
    if isinstance(peer, Block):
        return clauses.networks(peer)
    if isinstance(peer, Others):
        without = [network for pod in members(peer.without) for network in _networks(pod)]
        return Block(tuple(by_address(peer.of, members)), tuple(without)).covering()
    return [network for pod in members(peer) for network in _networks_within(pod, peer.within)]


def by_identity(identity_of: Callable[[str], int]) -> SeenAs:
    """Of a group chosen by labels alone, the identities: pods of equal labels share one. Others by address.

    identity_of: a pod's, by its key.
    """

    def seen_as(peer: Peer, members: Members) -> Iterable[str]:
        if not isinstance(peer, PodGroup) or peer.within is not None or peer.named is not None:
            return by_address(peer, members)
        pods = [pod for pod in members(peer) if not pod.networks]
        return sorted({f"{IDENTITY}{number}" for pod in pods if (number := identity_of(pod.key))})

    return seen_as


def groups_of(peer: Peer) -> tuple[PodGroup, ...]:
    """Whose coming and going a peer depends on."""
    if isinstance(peer, Others):
        return (*groups_of(peer.of), peer.without)
    return (peer,) if isinstance(peer, PodGroup) else ()


def _networks(pod: Pod) -> tuple[str, ...]:
    return pod.networks or ((f"{ip_text(pod.ip)}/32",) if pod.ip else ())


def _networks_within(pod: Pod, block: Block | None) -> tuple[str, ...]:
    """Of a pod the group has looked at its address already."""
    return block.common(pod.networks) if block is not None and pod.networks else _networks(pod)
