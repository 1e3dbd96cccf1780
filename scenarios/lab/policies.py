"""What a lab can say of network policies: which have no effect in it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from topo.cluster.store import Object

KINDS = ("NetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
_DIRECTIONS = ("ingress", "egress")


def warnings(thing: Object, enforces: Collection[str], cni: str, proxy: str) -> Iterator[str]:
    """A sentence if an object is a policy, or has a direction, that is not enforced here; enforces: KIND/DIRECTION."""
    kind, spec = thing["kind"], thing.get("spec", {})
    if kind not in KINDS:
        return
    if kind == "NetworkPolicy":
        wanted = [d for d in _DIRECTIONS if d.capitalize() in spec.get("policyTypes", ["Ingress"])]
    else:
        wanted = [d for d in _DIRECTIONS if spec.get(d)]
    missing = [d for d in wanted if f"{kind}/{d}" not in enforces]
    if not missing:
        return
    what = "the policy" if missing == wanted else f"what it says of {missing[0]}"
    yield f"{what} has no effect: CNI {cni} with proxy mode {proxy} does not enforce it"
