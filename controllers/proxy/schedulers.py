"""ipvs' schedulers as flows: each a class with a name and a way to choose, which registers itself by being here.

Source: ipvsadm(8), "scheduling-method"; kernel documentation, "IPVS"; Kubernetes, "Virtual IPs and Service Proxies".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from math import gcd, inf
from typing import Protocol
from zlib import crc32

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Action, Learn, Multipath, Resubmit
from controllers.flow.program import Writer, learned_cookie
from controllers.loads import Load
from controllers.proxy.choosing import CONNECTION, by_group, by_index
from controllers.proxy.frontends import EndpointSet
from controllers.services import Endpoint
from topo.cluster.errors import InputError


class Scheduler(Protocol):
    """How one of ipvs' schedulers chooses. counts: whether it looks at EndpointSet.loads."""

    name: str
    description: str
    counts: bool

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """As FlowProxy.choose."""


class RoundRobin:
    """rr: in turn. The switch learns whose turn is next from each connection, so the controller has no part in it."""

    name = "rr"
    description = "in turn; every first packet is looked up by itself, for the turn changes with it"
    counts = False

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """A cycle of endpoints, one step a connection."""
        return _in_turn(w, chosen, list(chosen.endpoints))


class WeightedRoundRobin:
    """wrr: in turn, an endpoint of weight 2 twice as often; one of weight 0 never."""

    name = "wrr"
    description = "in turn by weight, interleaved as ipvs does it"
    counts = False

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """The cycle of the weights."""
        return _in_turn(w, chosen, cycle(chosen.endpoints) or list(chosen.endpoints))


class SourceHashing:
    """sh: a source address always goes to the same endpoint, while the endpoints are the same."""

    name = "sh"
    description = "by a hash of the source address; a change of the endpoints moves most clients"
    counts = False

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """Modulo the number of endpoints."""
        order = list(chosen.endpoints)
        return by_index(w, chosen, order, (Multipath("nw_src", len(order), f.INDEX),))


class DestinationHashing:
    """dh: a destination address always goes to the same endpoint: all of a Service's cluster IP to one."""

    name = "dh"
    description = "by a hash of the destination address: one endpoint for each address of the Service"
    counts = False

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
    counts = False

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """A group that hashes the source address."""
        return by_group(w, chosen, (f.IP_SRC,))


class LeastConnection:
    """lc: to whom has the fewest connections; an established one counts for 256 others (ip_vs_lc)."""

    name = "lc"
    description = "to the endpoint with the fewest connections on this node"
    counts = True

    def choose(self, w: Writer, chosen: EndpointSet) -> tuple[Action, ...]:
        """In the order in which connections would go if none ended."""
        return _in_turn(w, chosen, ahead(chosen, self.cost))

    def cost(self, load: Load, weight: int) -> float:
        """How unwilling an endpoint is to take one more: the lowest takes it, of equal ones the first."""
        return load.active * 256 + load.inactive


class WeightedLeastConnection(LeastConnection):
    """wlc: the same, divided by the weight."""

    name = "wlc"
    description = "to the endpoint with the fewest connections for its weight"

    def cost(self, load: Load, weight: int) -> float:
        """Connections by weight; weight 0 takes none."""
        return (load.active * 256 + load.inactive) / weight if weight else inf


class ShortestExpectedDelay(LeastConnection):
    """sed: the established connections it would have with this one, divided by the weight."""

    name = "sed"
    description = "to the endpoint with the shortest expected delay: (connections + 1) / weight"

    def cost(self, load: Load, weight: int) -> float:
        """The delay in units of one connection."""
        return (load.active + 1) / weight if weight else inf


class NeverQueue(ShortestExpectedDelay):
    """nq: an idle endpoint first, however slow; else as sed."""

    name = "nq"
    description = "to an idle endpoint if there is one, else by shortest expected delay"

    def cost(self, load: Load, weight: int) -> float:
        """Nothing for an idle one."""
        return 0 if weight and not load.active else super().cost(load, weight)


SCHEDULERS: dict[str, Scheduler] = {
    s.name: s
    for s in (
        RoundRobin(),
        WeightedRoundRobin(),
        LeastConnection(),
        WeightedLeastConnection(),
        SourceHashing(),
        DestinationHashing(),
        ShortestExpectedDelay(),
        NeverQueue(),
        MaglevHashing(),
    )
}


def named(options: Mapping[str, object]) -> str:
    """The scheduler that the lab file names (mininetes.proxy), or rr. Raises InputError if there is none such."""
    name = str(options.get("scheduler", RoundRobin.name))
    if name not in SCHEDULERS:
        known = f"one of: {', '.join(SCHEDULERS)}"
        raise InputError("mininetes.proxy.scheduler", f"there is no scheduler {name!r}", known)
    return name


# How many connections are decided in advance, until the next count: at ten counts a second, 640 a second.
_AHEAD = 64


def ahead(chosen: EndpointSet, cost: Callable[[Load, int], float]) -> list[Endpoint]:
    """To whom the next connections go, each counted as soon as it is given, if no other begins or ends."""
    loads, order = list(chosen.loads), []
    places = range(len(loads))
    for _ in range(_AHEAD if len(loads) > 1 else 1):
        place = min(places, key=lambda i: cost(loads[i], chosen.endpoints[i].weight))
        loads[place] = loads[place]._replace(active=loads[place].active + 1)
        order.append(chosen.endpoints[place])
    return order


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

    digest = crc32(repr([(e.ip, e.port) for e in order]).encode())

    def next_turn(index: int) -> tuple[Action, ...]:
        # When the order changes, whose turn was next is forgotten with the flows that would say so.
        cookie = learned_cookie("turn", f"{chosen.number}", f"{index} of {digest}")
        following = (index + 1) % len(order)
        return (Learn(t.SERVICE_MEMORY, t.NORMAL, (f.SERVICE,), f.INDEX, following, cookie),)

    pick = (Multipath(CONNECTION, 1, f.INDEX), Resubmit(t.SERVICE_MEMORY))
    return by_index(w, chosen, order, pick, next_turn)
