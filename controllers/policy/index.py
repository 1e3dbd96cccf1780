"""Which policies concern which pods and which nodes, kept up with every change.

What one node must hold (NodePolicies) is a function of the objects alone: a new index that is told of the same objects
gives the same. All that is kept besides is found again by being asked for the same thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from zlib import crc32

from controllers.identities import Identities
from controllers.policy import clauses, peers, read, read_calico
from controllers.policy.clauses import PORT, SOURCE_PORT, Conjunction, Draft, PortMatch
from controllers.policy.evaluate import Cluster
from controllers.policy.groups import Group
from controllers.policy.model import DIRECTIONS, INGRESS, NAMESPACED, Pod, PodGroup, Policy

Object = Mapping[str, Any]
# Of which conjunction, and which of its clauses.
Member = tuple[Conjunction, int]
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """A pod of the node that policies govern in one direction. isolated: what nothing allows is denied."""

    direction: str
    pod: str
    ip: int
    isolated: bool
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PeerAddress:
    """Who is at the other end, as the switch can know it (controllers/policy/peers.py)."""

    direction: str
    network: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True, eq=False)
class PeerPort:
    """Ports of the destination, or of the source."""

    direction: str
    clause: str
    match: PortMatch
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class NodePolicies:
    """Everything policies ask of one node's switch. Parts that did not change are the same objects as before."""

    subjects: tuple[Subject, ...] = ()
    addresses: tuple[PeerAddress, ...] = ()
    ports: tuple[PeerPort, ...] = ()
    conjunctions: tuple[Conjunction, ...] = ()


_NONE = NodePolicies()


class PolicyIndex:
    """Watch events in, what each node must hold out."""

    def __init__(self) -> None:
        self.policies: dict[tuple[str, str], Policy] = {}
        self.pods: dict[str, Pod] = {}
        self.identities = Identities()
        self._namespaces: dict[str, Object] = {}
        self._pods_in: dict[str, dict[str, Pod]] = {}
        self._drafts: dict[tuple[str, str], tuple[Draft, ...]] = {}
        self._conjunctions: dict[str, Conjunction] = {}
        self._drafted: dict[str, Draft] = {}
        # The groups of each: first its subjects', then its peers'.
        self._groups_in: dict[Conjunction, tuple[Group, ...]] = {}
        self._groups: dict[PodGroup, Group] = {}
        # What the peers of each are known by, and from which changes of their groups that was found.
        self._networks: dict[tuple[Conjunction, bool], tuple[tuple[int, ...], tuple[str, ...]]] = {}
        # Where to look for the groups of a pod: (namespace or "", a label it must have or None).
        self._places: dict[tuple[str, tuple[str, str] | None], dict[PodGroup, None]] = {}
        self._groups_of: dict[str, tuple[PodGroup, ...]] = {}
        self._named: Counter[tuple[str, str, int]] = Counter()
        self._version = 0
        # Whether conjunctions must be made anew, and whether those of named ports must be, too.
        self._stale = False
        self._renamed = False
        # Whom policies isolate: direction, the policy's kind with it, its pods. In a direction of these, only what some
        # policy allows is allowed.
        self._closing: list[tuple[str, str, Group]] = []
        self._nodes: dict[str, tuple[Any, NodePolicies]] = {}
        # What each node's policies were made from last time; and the parts they were made of.
        self._made_from: dict[str, tuple[Any, ...]] = {}
        self._kept: dict[str, Mapping[tuple[Any, ...], Any]] = {}

    def apply(self, kind: str, event: str, thing: Object) -> None:
        """Take one event. Kinds that policies do not speak of change nothing."""
        gone = event == "DELETED"
        if kind == "Pod":
            found = read.pod(thing)
            self._pod(found.key, None if gone else found)
        elif kind == "Namespace":
            name = thing["metadata"]["name"]
            before = self._labels(name)
            if gone:
                self._namespaces.pop(name, None)
            else:
                self._namespaces[name] = thing
            if self._labels(name) != before:
                for pod in self._pods_in.get(name, {}).values():
                    self.identities.put(pod, self._labels(name))
                    self._regroup(pod)
        elif kind in read_calico.SETS:
            found = read_calico.network_set(thing)
            self._pod(found.key, None if gone else found)
        elif (policy := read.policy(thing)) is not None:
            key = kind, policy.key
            if self.policies.get(key) != (None if gone else policy):
                self._policy(key, None if gone else policy)

    def cluster(self, nodes: Mapping[int, str]) -> Cluster:
        """All of it as the evaluator takes it. nodes: whose each node address is."""
        names = {*self._namespaces, *(p.namespace for p in self.pods.values() if p.namespace)}
        labels = {name: self._labels(name) for name in names}
        return Cluster(labels, self.pods, list(self.policies.values()), nodes)

    def _labels(self, namespace: str) -> dict[str, str]:
        return read.namespace_labels(namespace, self._namespaces.get(namespace))

    def _pod(self, key: str, pod: Pod | None) -> None:
        before = self.pods.get(key)
        if before == pod:
            return
        if before is not None:
            self._count(before, -1)
            self._leave(before)
            del self.pods[key], self._pods_in[before.namespace][key]
        if pod is not None:
            self.pods[key] = self._pods_in.setdefault(pod.namespace, {})[key] = pod
            self._count(pod, 1)
            self.identities.put(pod, self._labels(pod.namespace))
            self._regroup(pod)
        else:
            self.identities.take(key)
        self._version += 1

    def _count(self, pod: Pod, step: int) -> None:
        """A named port's number that is new, or the last of its kind, makes other conjunctions of some rules."""
        for port in () if pod.host_network else pod.ports:
            key = port.name, port.protocol, port.number
            before = self._named[key]
            self._named[key] += step
            if not before or not self._named[key]:
                self._named += Counter()  # leaves out what is none
                self._stale = self._renamed = True

    def _leave(self, pod: Pod) -> None:
        for group in self._groups_of.pop(pod.key, ()):
            self._groups[group].take(pod)

    def _regroup(self, pod: Pod) -> None:
        """Find the groups a pod belongs to."""
        labels = self._labels(pod.namespace)
        found = []
        for namespace in dict.fromkeys((pod.namespace, "")):
            for label in (None, *pod.endpoint_labels.items()):
                there = self._places.get((namespace, label), ())
                found += [group for group in there if group.contains(pod, labels)]
        if tuple(found) == self._groups_of.get(pod.key):
            return
        self._leave(pod)
        self._groups_of[pod.key] = tuple(found)
        for group in found:
            self._groups[group].put(pod)
        self._version += 1

    def _policy(self, key: tuple[str, str], policy: Policy | None) -> None:
        before = self.policies.pop(key, None)
        if policy is not None:
            self.policies[key] = policy
            self._want(policy.subject, 1)
        if before is not None:
            self._want(before.subject, -1)
        self._redraft(key, policy)
        self._stale = True
        self._version += 1

    def _redraft(self, key: tuple[str, str], policy: Policy | None) -> None:
        named: dict[tuple[str, str], list[int]] = {}
        for name, protocol, number in self._named:
            named.setdefault((name, protocol), []).append(number)
        after = tuple(clauses.drafts(policy, named)) if policy is not None else ()
        before = self._drafts.pop(key, ())
        if policy is not None:
            self._drafts[key] = after
        if before == after:
            return
        for many, step in ((after, 1), (before, -1)):
            for draft in many:
                for group in _groups(draft):
                    self._want(group, step)

    def _want(self, group: PodGroup, step: int) -> None:
        """Keep a group for as long as something asks for it."""
        have = self._groups.get(group)
        place = group.namespace, _needed(group)
        if have is None:
            have = self._groups[group] = Group()
            self._places.setdefault(place, {})[group] = None
            for namespace in (group.namespace,) if group.namespace else self._pods_in:
                labels = self._labels(namespace)
                if not group.may_be_in(namespace, labels):
                    continue
                for pod in (p for p in self._pods_in.get(namespace, {}).values() if group.contains(p, labels)):
                    have.put(pod)
                    self._groups_of[pod.key] = (*self._groups_of.get(pod.key, ()), group)
        have.wanted += step
        if not have.wanted:
            del self._groups[group], self._places[place][group]
            for key in (key for there in have.nodes.values() for key in there):
                self._groups_of[key] = tuple(g for g in self._groups_of[key] if g != group)

    def _refresh(self) -> None:
        """Number and rank the conjunctions; those that stay as they were stay the same objects."""
        if not self._stale:
            return
        self._stale = False
        for key, policy in self.policies.items() if self._renamed else ():
            if any(p.name for d in DIRECTIONS for r in policy.rules(d) or () for p in r.ports or ()):
                self._redraft(key, policy)
        self._renamed = False
        # In the order of their keys, for nothing may depend on the order of events.
        every = sorted((d for drafts in self._drafts.values() for d in drafts), key=lambda d: d.key)
        numbers, ranks = _numbers(draft.key for draft in every), clauses.ranked(every)
        before, self._conjunctions = self._conjunctions, {}
        drafted, self._drafted = self._drafted, {draft.key: draft for draft in every}
        for name, draft in self._drafted.items():
            number, place, have = numbers[name], ranks[name], before.get(name)
            if have is None or drafted[name] is not draft or (have.number, have.rank, have.log) != (number, *place):
                made = draft.made(number, place)
                have = have if have is not None and _same(have, made) else made
            self._conjunctions[name] = have
        known = self._groups_in
        self._groups_in = {c: self._members(c, known.get(c, ())) for c in self._conjunctions.values()}
        self._networks = {key: kept for key, kept in self._networks.items() if key[0] in self._groups_in}
        self._closing = [
            (direction, f"{policy.key.partition(' ')[0]}/{direction}", self._groups[policy.subject])
            for policy in self.policies.values()
            if policy.closes and policy.tier == NAMESPACED
            for direction in DIRECTIONS
            if policy.rules(direction) is not None
        ]
        self._version += 1

    def _members(self, c: Conjunction, known: tuple[Group, ...]) -> tuple[Group, ...]:
        """The groups of a conjunction: those known, unless one of them went, and perhaps came again."""
        if known and all(group.wanted for group in known):
            return known
        return tuple(self._groups[g] for g in (c.subject, *(g for p in c.peers or () for g in peers.groups_of(p))))

    def node(self, name: str, enforced: Collection[str], by_identity: bool = False) -> NodePolicies:
        """What the node must hold. enforced: what has an effect, as KIND/DIRECTION.

        by_identity: who sent a packet is known by the identity that it carries.
        """
        self._refresh()
        if not self._groups_in and not self._closing:
            return _NONE
        identities = self.identities.version if by_identity else 0
        stamp, enforced = (self._version, tuple(enforced), identities), frozenset(enforced)
        have = self._nodes.get(name)
        if have is None or have[0] != stamp:
            here = [c for c, groups in self._groups_in.items() if name in groups[0].nodes and c.effect in enforced]
            isolated = {
                (direction, pod)
                for direction, effect, group in self._closing
                if name in group.nodes and effect in enforced
                for pod in group.nodes[name]
            }
            source = (*here, frozenset(isolated), identities, *self._changes(here, isolated))
            if have is None or self._made_from.get(name) != source:
                have = stamp, self._node(name, here, isolated, by_identity)
            self._made_from[name] = source
            have = self._nodes[name] = stamp, have[1]
        return have[1]

    def _changes(self, here: Iterable[Conjunction], isolated: Iterable[tuple[str, str]]) -> list[int]:
        """The latest of all groups of these conjunctions, and the addresses of pods that may have none."""
        groups = dict.fromkeys(g for c in here for g in self._groups_in[c])
        return [g.change for g in groups] + [self.pods[key].ip for _, key in sorted(isolated)]

    def _node(
        self, name: str, here: Sequence[Conjunction], isolated: Collection[tuple[str, str]], by_identity: bool
    ) -> NodePolicies:
        senders = peers.by_identity(self.identities.of) if by_identity else peers.by_address
        subjects: dict[tuple[str, str], list[Member]] = {}
        others: dict[tuple[str, str], list[Member]] = {}
        ports: dict[tuple[str, str, PortMatch], list[Member]] = {}
        for c in here:
            member: Member = c, 1
            for pod in self._groups_in[c][0].nodes[name]:
                subjects.setdefault((c.direction, pod), []).append(member)
            # The clauses that there are count from 1 in this order.
            if c.peers is not None:
                member, seen_as = (c, 2), senders if c.direction == INGRESS else peers.by_address
                for network in self._seen(c, seen_as, by_identity):
                    others.setdefault((c.direction, network), []).append(member)
            number = 1 + (c.peers is not None)
            for what, matches in ((PORT, c.ports), (SOURCE_PORT, c.sources)):
                if matches is not None:
                    number += 1
                    member = c, number
                    for match in matches:
                        ports.setdefault((c.direction, what, match), []).append(member)
        governed = [key for key in sorted({*subjects, *isolated}) if self.pods[key[1]].ip]
        keep = _Keep(self._kept.get(name, {}))
        found = NodePolicies(
            tuple(
                keep.same(Subject, *key, self.pods[key[1]].ip, key in isolated, tuple(subjects.get(key, ())))
                for key in governed
            ),
            tuple(keep.same(PeerAddress, *key, tuple(others[key])) for key in sorted(others)),
            tuple(keep.same(PeerPort, *key, tuple(ports[key])) for key in sorted(ports)),
            tuple(here),
        )
        self._kept[name] = keep.used
        return found

    def _seen(self, c: Conjunction, seen_as: peers.SeenAs, by_identity: bool) -> tuple[str, ...]:
        """How the switch knows a conjunction's peers; found anew only if their groups changed."""
        stamp = (self.identities.version if by_identity else 0, *[g.change for g in self._groups_in[c][1:]])
        have = self._networks.get((c, by_identity))
        if have is None or have[0] != stamp:
            found = dict.fromkeys(n for peer in c.peers or () for n in seen_as(peer, self._in_group))
            have = self._networks[c, by_identity] = stamp, tuple(found)
        return have[1]

    def _in_group(self, group: PodGroup) -> list[Pod]:
        return [self.pods[key] for there in self._groups[group].nodes.values() for key in there]


class _Keep:
    """Gives back what was made last time of the same values, so that who compares by identity sees no change."""

    def __init__(self, before: Mapping[tuple[Any, ...], Any]) -> None:
        self._before = before
        self.used: dict[tuple[Any, ...], Any] = {}

    def same(self, kind: Callable[..., _T], *values: Any) -> _T:
        """The value of this kind."""
        key = kind, *values
        found = self.used[key] = self._before.get(key) or kind(*values)
        return found


def _groups(draft: Draft) -> list[PodGroup]:
    return [draft.subject, *(group for p in draft.peers or () for group in peers.groups_of(p))]


def _needed(group: PodGroup) -> tuple[str, str] | None:
    """A label that every pod of the group has, if there is one."""
    return next(iter(group.pods.equal), None)


def _same(one: Conjunction, two: Conjunction) -> bool:
    return all(getattr(one, name) == getattr(two, name) for name in Conjunction.__slots__)


def _numbers(keys: Iterable[str]) -> dict[str, int]:
    """A number in 1..2^30-1 for each key, which others' coming and going does not change (but for a collision)."""
    taken: dict[int, str] = {}
    for start, key in sorted((crc32(key.encode()) & 0x3FFFFFFF or 1, key) for key in keys):
        while start in taken:
            start = start % 0x3FFFFFFF + 1
        taken[start] = key
    return {key: number for number, key in taken.items()}
