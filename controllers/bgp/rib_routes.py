"""The RIB that the controller keeps for each node, and its routes as flows; pure.

Every node announces its pods, and what the lab file has it announce, to all others of its AS; each node takes of that
what its import rules let in, and its best paths become routes: one next hop, or a group of all that are equally good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from zlib import crc32

from controllers.bgp import options as bgp
from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import Output, Resubmit, Set, ToGroup
from controllers.flow.program import Bucket, Fragment, Writer, match
from controllers.rib import Announcement, Rule, best_of, best_paths, judge
from controllers.state import Node, NodeView
from topo.cluster.wiring import PATCH_PORT, UPLINK_PORT, WIRE_PORT

# What a CNI has a node announce of its pods' addresses.
Prefixes = Callable[[NodeView, Node], Iterable[str]]


def pod_cidr(view: NodeView, node: Node) -> tuple[str]:
    """All of a node's pods as one prefix."""
    return (node.pod_cidr,)


def announced(view: NodeView, prefixes: Prefixes = pod_cidr) -> list[Announcement]:
    """What the other nodes that are ready announce, each itself the next hop. A node that goes withdraws it."""
    options = bgp.of(view.lab)
    found = []
    for node in view.peers:
        if node.ready:
            found += [Announcement(prefix, next_hop=node.ip, speaker=node.ip) for prefix in prefixes(view, node)]
            for one in options.own(node.name):
                path = Announcement(one.prefix, node.ip, node.ip, one.local_preference)
                found.append(replace(path, med=one.med, communities=one.communities))
    return found


def rules(view: NodeView) -> tuple[Rule, ...]:
    """What this node does with what it hears; what no rule of the lab file is about is let in."""
    return (*bgp.of(view.lab).imports, Rule(accept=True))


def routes(view: NodeView, prefixes: Prefixes = pod_cidr) -> dict[str, list[Node]]:
    """Prefix -> the equally good next hops; what this node announces too needs no route."""
    own = {one.prefix for one in bgp.of(view.lab).own(view.node.name)}
    by_address = {peer.ip: peer for peer in view.peers}
    found = best_paths(announced(view, prefixes), rules(view))
    return {p: [by_address[path.next_hop] for path in paths] for p, paths in found.items() if p not in own}


def held(view: NodeView, prefixes: Prefixes = pod_cidr) -> Mapping[str, Sequence[tuple[Announcement, bool]]]:
    """All paths that were let in by prefix, the best first, and whether each is one of the equally good."""
    by_prefix: dict[str, list[Announcement]] = {}
    for path in announced(view, prefixes):
        kept = judge(path, rules(view))
        if kept is not None:
            by_prefix.setdefault(kept.prefix, []).append(kept)
    found = {}
    for prefix, paths in by_prefix.items():
        best = best_of(paths)
        found[prefix] = [(p, True) for p in best] + [(p, False) for p in paths if p not in best]
    return found


def by_neighbours(feature: str, node: Node, hops: Sequence[Node], prefix: str) -> Fragment:
    """Any of several next hops on this subnet, a connection always by the same (RFC 2992 has addresses alone)."""
    w = Writer(feature, f"route to {prefix}")
    # Groups of Services have lower numbers; two prefixes of one number are found by the program's check.
    number = 1 << 31 | crc32(prefix.encode()) & 0x3FFFFFFF
    ways = ((Set(f.ETH_SRC, node.mac), Set(f.ETH_DST, hop.mac), Set(f.OUT_PORT, UPLINK_PORT)) for hop in hops)
    w.group(number, [Bucket((*way, Resubmit(t.L3_DEC_TTL))) for way in ways])
    length = int(prefix.partition("/")[2])
    w.flow(t.L3_FORWARDING, t.ROUTE + length, match("ip", nw_dst=prefix), ToGroup(number))
    return w.fragment()


def uplink(feature: str, view: NodeView) -> Iterable[Fragment]:
    """br-ex: what comes for this node's announced prefixes goes the way of what comes for its pods."""
    own = bgp.of(view.lab).own(view.node.name)
    if own:
        w = Writer(feature, f"announced by {view.node.name}")
        to = f.LOCAL if view.lab.attachment == "bridge" else PATCH_PORT
        for one in own:
            w.flow(t.UPLINK, t.NORMAL, match("ip", in_port=WIRE_PORT, nw_dst=one.prefix), Output(to))
        yield w.fragment()
