"""Security identities: one number for all pods with the same labels, in the same namespace, as Cilium gives them.

Source: Cilium, "Terminology" (labels of an identity, special identities) and "Limiting Identity-Relevant Labels". No
label is left out here, as Cilium's defaults do with those of controllers (pod-template-hash): a policy may name any.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from controllers.numbering import assign_numbers
from controllers.policy.model import Labels, Pod

# Reserved ones (Cilium, "Special Identities").
HOST, WORLD, REMOTE_NODE = 1, 2, 6
RESERVED: Mapping[int, str] = {HOST: "reserved:host", WORLD: "reserved:world", REMOTE_NODE: "reserved:remote-node"}
# The first that a set of labels may get; with 15 bits of hash, the last is 33,022, and a VNI has room for all.
FIRST, _BITS = 256, 15


def labels_of(pod: Pod, namespace_labels: Labels) -> str:
    """The labels that make a pod's identity, as Cilium writes them."""
    found = {f"k8s:{key}={value}" for key, value in pod.labels.items()}
    found |= {f"k8s:io.cilium.k8s.namespace.labels.{key}={value}" for key, value in namespace_labels.items()}
    found.add(f"k8s:io.cilium.k8s.policy.serviceaccount={pod.account}")
    found.add(f"k8s:io.kubernetes.pod.namespace={pod.namespace}")
    return ",".join(sorted(found))


class Identities:
    """The identity of every pod with a network of its own; a function of the pods told of, never of their history."""

    def __init__(self) -> None:
        self._labels: dict[str, str] = {}
        self._pods: Counter[str] = Counter()
        self._numbers: dict[str, int] = {}
        self._stale = False
        # Counts changes of what any pod's identity is.
        self.version = 0

    def put(self, pod: Pod, namespace_labels: Labels) -> None:
        """A pod that is new, or has other labels."""
        labels = "" if pod.host_network or not pod.ip else labels_of(pod, namespace_labels)
        if labels != self._labels.get(pod.key, ""):
            self.take(pod.key)
            if labels:
                self._labels[pod.key] = labels
                self._count(labels, 1)

    def take(self, key: str) -> None:
        """A pod that is gone."""
        if (labels := self._labels.pop(key, "")) != "":
            self._count(labels, -1)

    def _count(self, labels: str, step: int) -> None:
        self.version += 1
        before = len(self._pods)
        self._pods[labels] += step
        if not self._pods[labels]:
            del self._pods[labels]
        self._stale |= len(self._pods) != before

    def _all(self) -> dict[str, int]:
        if self._stale:
            numbers = assign_numbers(self._pods, _BITS)
            self._numbers, self._stale = {name: number + FIRST - 1 for name, number in numbers.items()}, False
        return self._numbers

    def of(self, key: str) -> int:
        """A pod's identity, or 0 for a pod that has none."""
        return self._all().get(self._labels.get(key, ""), 0)

    def table(self) -> dict[int, tuple[str, list[str]]]:
        """Number -> labels and pods, those of pods alone."""
        found: dict[int, tuple[str, list[str]]] = {number: (labels, []) for labels, number in self._all().items()}
        for key in sorted(self._labels):
            found[self.of(key)][1].append(key)
        return dict(sorted(found.items()))
