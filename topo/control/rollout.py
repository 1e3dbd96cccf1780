"""Deployments: how many pods each of its ReplicaSets should have while a new template takes the old one's place.

Source: Kubernetes, "Deployments" (RollingUpdate, Recreate, maxSurge, maxUnavailable); the steps are those of
pkg/controller/deployment/rolling.go. One difference: when a Deployment is scaled in the middle of a rollout, the change
goes to the new ReplicaSet and not to each in proportion.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from topo.cluster.store import Object, copied
from topo.control.children import Plan, child, is_available, is_over, owned, share, template_hash


def deployment(owner: Object, children: Sequence[Object], now: datetime) -> Plan:
    """children: its ReplicaSets, oldest first, and their pods."""
    spec, wanted = owner["spec"], owner["spec"].get("replicas", 1)
    sets = [c for c in children if c["kind"] == "ReplicaSet"]
    name = f"{owner['metadata']['name']}-{template_hash(spec['template'])}"
    current = next((s for s in sets if s["metadata"]["name"] == name), None)
    old = [s for s in sets if s is not current]
    if spec.get("paused"):
        return _scale(sets, _paused(sets, current, wanted))
    strategy = spec.get("strategy") or {}
    if strategy.get("type") == "Recreate":
        sizes = {_name(s): 0 for s in old}
        may_grow = all(is_over(p) for s in old for p in owned(s, children))
        size = wanted if may_grow else min(wanted, _size(current) if current else 0)
    else:
        surge, unavailable = limits(strategy.get("rollingUpdate") or {}, wanted)
        size = _new_size(_size(current) if current else 0, sum(map(_size, old)), wanted, surge)
        sizes = _old_sizes(owner, current, size, old, children, wanted - unavailable, now)
    # An old ReplicaSet goes with its last pod: there is nothing here that would roll back to it.
    empty = tuple(s for s in old if _size(s) == 0 and not owned(s, children))
    if current is None:
        waits = strategy.get("type") == "Recreate" and size < wanted
        made = () if waits else (_replica_set(owner, name, size),)
        return Plan(create=made, delete=empty, scale=_scale(old, sizes).scale)
    return Plan(delete=empty, scale=_scale(sets, {**sizes, name: size}).scale)


def limits(rolling: Object, wanted: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) in pods: 25 % each by default, the one rounded up, the other down, never both 0."""
    surge = share(rolling.get("maxSurge", "25%"), wanted, up=True)
    unavailable = share(rolling.get("maxUnavailable", "25%"), wanted, up=False)
    return (surge, unavailable) if surge or unavailable else (0, 1)


def _new_size(now: int, old: int, wanted: int, surge: int) -> int:
    if now > wanted:
        return wanted
    return now + max(0, min(wanted + surge - now - old, wanted - now))


def _old_sizes(
    owner: Object,
    current: Object | None,
    new_size: int,
    old: Sequence[Object],
    children: Sequence[Object],
    least: int,
    now: datetime,
) -> dict[str, int]:
    """First what does not run anyway, then as many as there are available ones beyond `least`, the oldest first."""
    min_ready = owner["spec"].get("minReadySeconds", 0)

    def available(one: Object, size: int) -> int:
        # A ReplicaSet that was told to shrink but has not yet done so keeps the ready ones.
        return min(size, sum(is_available(p, min_ready, now) for p in owned(one, children)))

    sizes = {_name(s): _size(s) for s in old}
    new = available(current, new_size) if current else 0
    budget = sum(sizes.values()) + new_size - least - (new_size - new)
    if budget <= 0:
        return sizes
    for one in old:
        cut = max(0, min(budget, sizes[_name(one)] - available(one, sizes[_name(one)])))
        sizes[_name(one)] -= cut
        budget -= cut
    spare = new + sum(available(s, sizes[_name(s)]) for s in old) - least
    for one in old:
        cut = max(0, min(spare, sizes[_name(one)]))
        sizes[_name(one)] -= cut
        spare -= cut
    return sizes


def _paused(sets: Sequence[Object], current: Object | None, wanted: int) -> dict[str, int]:
    """No rollout goes on, but a change of the number is followed, by the newest ReplicaSet that has pods."""
    sizes = {_name(s): _size(s) for s in sets}
    growing = next((s for s in reversed(sets) if _size(s)), current or (sets[-1] if sets else None))
    if growing is not None:
        sizes[_name(growing)] = max(0, sizes[_name(growing)] + wanted - sum(sizes.values()))
    return sizes


def _scale(sets: Sequence[Object], sizes: dict[str, int]) -> Plan:
    have = {_name(s): s["spec"].get("replicas") for s in sets}
    return Plan(scale={name: size for name, size in sizes.items() if have[name] != size})


def _replica_set(owner: Object, name: str, size: int) -> Object:
    spec, digest = owner["spec"], name.rpartition("-")[2]
    template = copied(spec["template"])
    meta = template.setdefault("metadata", {})
    meta["labels"] = {**(meta.get("labels") or {}), "pod-template-hash": digest}
    selector = copied(spec["selector"])
    selector["matchLabels"] = {**(selector.get("matchLabels") or {}), "pod-template-hash": digest}
    body = {"replicas": size, "selector": selector, "template": template}
    if spec.get("minReadySeconds"):
        body["minReadySeconds"] = spec["minReadySeconds"]
    return child(owner, "ReplicaSet", name, meta["labels"], {}, spec=body)


def _name(one: Object) -> str:
    return str(one["metadata"]["name"])


def _size(one: Object) -> int:
    return int(one["spec"].get("replicas", 1))
