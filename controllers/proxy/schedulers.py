"""ipvs' schedulers as flows: each a class with a name and a way to choose, which registers itself by being here.

Source: ipvsadm(8), "scheduling-method"; kernel documentation, "IPVS"; Kubernetes, "Virtual IPs and Service Proxies".
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import gcd
from typing import Protocol

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Action, Learn, Multipath, Resubmit
from controllers.flow.program import Writer, learned_cookie
from controllers.proxy.choosing import CONNECTION, by_group, by_index
from controllers.proxy.frontends import EndpointSet
from controllers.services import Endpoint


class Scheduler(Protocol):
    """How one of ipvs' schedulers chooses."""

    name: str
    description: str

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """As Balancer.choose."""


class RoundRobin:
    """rr: in turn. The switch learns whose turn is next from each connection, so the controller has no part in it."""

    name = "rr"
    description = "in turn; every first packet is looked up by itself, for the turn changes with it"

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """A cycle of endpoints, one step a connection."""
        return _in_turn(w, chosen, list(chosen.endpoints))


class WeightedRoundRobin:
    """wrr: in turn, an endpoint of weight 2 twice as often; one of weight 0 never."""

    name = "wrr"
    description = "in turn by weight, interleaved as ipvs does it"

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """The cycle of the weights."""
        return _in_turn(w, chosen, cycle(chosen.endpoints) or list(chosen.endpoints))


class SourceHashing:
    """sh: a source address always goes to the same endpoint, while the endpoints are the same."""

    name = "sh"
    description = "by a hash of the source address; a change of the endpoints moves most clients"

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """Modulo the number of endpoints."""
        order = list(chosen.endpoints)
        return by_index(w, chosen, order, (Multipath("nw_src", len(order), f.INDEX),))


class DestinationHashing:
    """dh: a destination address always goes to the same endpoint: all of a Service's cluster IP to one."""

    name = "dh"
    description = "by a hash of the destination address: one endpoint for each address of the Service"

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """Modulo the number of endpoints."""
        order = list(chosen.endpoints)
        return by_index(w, chosen, order, (Multipath("nw_dst", len(order), f.INDEX),))


class MaglevHashing:
    """mh: by source address, and an endpoint's coming or going moves only as many clients as it must.

    The switch's rendezvous hashing has the two properties of Maglev's table (Eisenbud and others, NSDI 2016, section
    3.4), even load and little disruption, without a table; every node chooses alike.
    """

    name = "mh"
    description = "consistent hash of the source address: a change moves only its own share of the clients"

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """A group that hashes the source address."""
        return by_group(w, chosen, source_only=True)


SCHEDULERS: dict[str, Scheduler] = {
    s.name: s for s in (RoundRobin(), WeightedRoundRobin(), SourceHashing(), DestinationHashing(), MaglevHashing())
}


def cycle(endpoints: tuple[Endpoint, ...]) -> list[Endpoint]:
    """The order in which ipvs' wrr takes weighted endpoints, once through; empty if no weight is more than 0.

    Each round takes those whose weight reaches a level, which falls by the weights' common divisor (ip_vs_wrr).
    """
    step = reduce(gcd, (e.weight for e in endpoints), 0)
    if not step:
        return []
    highest = max(e.weight for e in endpoints)
    return [e for level in range(highest, 0, -step) for e in endpoints if e.weight >= level]


def _in_turn(w: Writer, chosen: EndpointSet, order: Sequence[Endpoint]) -> tuple[Action, ...]:
    """Index is what memory says is next, or 0; the flow of each index makes memory say the one after it.

    The hash over one value is always 0: it is there so that no two connections share the switch's cached decision.
    """

    def next_turn(index: int) -> tuple[Action, ...]:
        # Of another number of turns nothing is remembered, for the next might be one too many.
        cookie = learned_cookie("turn", f"{chosen.number}", f"{index} of {len(order)}")
        following = (index + 1) % len(order)
        return (Learn(t.SERVICE_MEMORY, t.NORMAL, (f.SERVICE,), f.INDEX, following, cookie),)

    pick = (Multipath(CONNECTION, 1, f.INDEX), Resubmit(t.SERVICE_MEMORY))
    return by_index(w, chosen, order, pick, next_turn)
