"""What proxy modes share in choosing an endpoint by flows: endpoints' numbers, affinity, translation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import ZONE, Action, Ct, Goto, Learn, Multipath, Nat, Resubmit, Set, ToGroup
from controllers.flow.kept import kept
from controllers.flow.program import Bucket, Writer, learned_cookie, match
from controllers.numbering import assign_numbers
from controllers.proxy.frontends import EndpointSet
from controllers.services import Endpoint

# The fields by which every connection counts for itself (ovs-actions(7), "multipath").
CONNECTION = "symmetric_l3l4+udp"


@kept
def to(endpoint: Endpoint) -> Ct:
    """Remember the connection as one to this endpoint, and make it so."""
    return Ct(ZONE, t.after(t.ENDPOINT_DNAT), commit=True, nat=Nat("dst", endpoint.ip, endpoint.port))


def numbers(endpoints: Iterable[Endpoint]) -> dict[Endpoint, int]:
    """A number from 1 to 65,535 for each, which others' coming and going does not change (but for a collision)."""
    names = {e: f"{f.ip_text(e.ip)}:{e.port}" for e in endpoints}
    assigned = assign_numbers(names.values(), bits=16)
    return {endpoint: assigned[name] for endpoint, name in names.items()}


def remembered(w: Writer, chosen: EndpointSet, numbered: dict[Endpoint, int]) -> tuple[Action, ...]:
    """Session affinity: a client goes on with its endpoint until it was away for the time-out.

    Gives what ServiceLB does first; EndpointChoice is then asked with Service set, and Endpoint too if one is known.
    The hash over one value is always 0: it is there so that no two connections share the switch's cached decision,
    which may be one from before the client was remembered, or would not remember it again.
    Source: Kubernetes, "Virtual IPs and Service Proxies", session affinity; the time runs from the last connection.
    """
    for_itself = Multipath(CONNECTION, 1, f.INDEX)
    for endpoint, number in numbered.items():
        cookie = learned_cookie("affinity", f"{chosen.number}", f"{endpoint.ip}:{endpoint.port}")
        idle = min(chosen.port.affinity, 65535)  # as long as a flow can wait (OpenFlow 1.5, section 7.3.4.2)
        memory = Learn(t.SERVICE_MEMORY, t.HIGH, (f.IP_SRC, f.SERVICE), f.ENDPOINT, number, cookie, idle)
        wanted = match("ip", Service=chosen.number, Endpoint=number)
        w.flow(t.ENDPOINT_DNAT, t.NORMAL, wanted, for_itself, memory, to(endpoint))
    return Set(f.SERVICE, chosen.number), for_itself, Resubmit(t.SERVICE_MEMORY)


def by_group(w: Writer, chosen: EndpointSet, hashed: tuple[f.Field, ...] = ()) -> tuple[Action, ...]:
    """The switch's own choice among the buckets of a group: even, or by weight and a hash of these fields alone."""
    has_memory = bool(chosen.port.affinity)
    if not has_memory and not hashed:
        w.group(chosen.number, _even([(to(endpoint),) for endpoint in chosen.endpoints]))
        return (ToGroup(chosen.number),)
    numbered = numbers(chosen.endpoints)
    ways: dict[Endpoint, tuple[Action, ...]] = {
        e: (Set(f.ENDPOINT, n), Resubmit(t.ENDPOINT_DNAT)) if has_memory else (to(e),) for e, n in numbered.items()
    }
    if hashed:
        buckets = [Bucket(way, e.weight, number=numbered[e]) for e, way in ways.items()]
    else:
        buckets = _even(list(ways.values()))
    w.group(chosen.number, buckets, hashed)
    if not has_memory:
        return (ToGroup(chosen.number),)
    w.flow(t.ENDPOINT_CHOICE, t.NORMAL, match("ip", Service=chosen.number, Endpoint=0), ToGroup(chosen.number))
    return (*remembered(w, chosen, numbered), Goto(t.ENDPOINT_CHOICE))


def _even(ways: list[tuple[Action, ...]]) -> list[Bucket]:
    """A bucket for each, so weighted that the switch deals its hashes out evenly.

    It makes as many slots as the weights' sum over the least of them, and gives each bucket whole slots; of the 16 it
    makes for three equal buckets one gets six. One more bucket of weight 1 asks for all the slots there are.
    """
    share = _SLOTS // len(ways)
    if len(ways) == 1 or share < 2:
        return [Bucket(way) for way in ways]
    first, *rest = ways
    return [Bucket(first, share - 1), *(Bucket(way, share) for way in rest), Bucket(first, 1)]


# The most that Open vSwitch makes (ofproto-dpif, MAX_SELECT_GROUP_HASH_VALUES).
_SLOTS = 256


def by_index(
    w: Writer,
    chosen: EndpointSet,
    order: Sequence[Endpoint],
    pick: tuple[Action, ...],
    also: Callable[[int], tuple[Action, ...]] = lambda index: (),
) -> tuple[Action, ...]:
    """One flow an index: `pick` writes Index, from 0; `order` says whose each is (some may be one endpoint's).

    also: what else each index does.
    """
    numbered = numbers(chosen.endpoints)
    is_known: dict[str, Any] = {"Endpoint": 0} if chosen.port.affinity else {}
    for index, endpoint in enumerate(order):
        then = (Set(f.ENDPOINT, numbered[endpoint]), Goto(t.ENDPOINT_DNAT)) if is_known else (to(endpoint),)
        wanted = match("ip", Service=chosen.number, Index=index, **is_known)
        w.flow(t.ENDPOINT_CHOICE, t.NORMAL, wanted, *also(index), *then)
    first = remembered(w, chosen, numbered) if is_known else (Set(f.SERVICE, chosen.number),)
    return (*first, *pick, Goto(t.ENDPOINT_CHOICE))
