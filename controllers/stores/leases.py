"""flannel's subnet leases in an etcd: which node has which slice of the pod subnet, and how packets get there.

Source: flannel, Documentation/reservations.md and configuration.md: keys /coreos.com/network/config and
/coreos.com/network/subnets/ADDRESS-LENGTH, leases of 24 hours that are renewed an hour before. Pods' traffic does not
depend on it: it is told what the lab's own store says, which has the leases as the nodes' pod CIDRs.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from controllers.flow.fields import ip_text
from controllers.state import Lab, Node, NodeView
from controllers.stores.etcd import Etcd

LOG = logging.getLogger("mininetes")
PREFIX = "/coreos.com/network"
# Seconds that a lease lasts, and after which it begins anew.
TTL, RENEWAL = 24 * 3600, 23 * 3600

# BackendData of a node, None for a backend that has none.
Data = Callable[[Node], Mapping[str, Any] | None]


def config(lab: Lab, node: Node, backend: Mapping[str, Any]) -> str:
    """The network's configuration. backend: Type and options."""
    length = int(node.pod_cidr.partition("/")[2])
    return _text({"Network": lab.pod_subnet, "SubnetLen": length, "Backend": dict(backend)})


def key(node: Node) -> str:
    """Where a node's lease is."""
    return f"{PREFIX}/subnets/{node.pod_cidr.replace('/', '-')}"


def value(node: Node, kind: str, data: Mapping[str, Any] | None) -> str:
    """A node's lease."""
    found = {"PublicIP": ip_text(node.ip), "PublicIPv6": None, "BackendType": kind}
    return _text(found | ({"BackendData": dict(data)} if data is not None else {}))


def _text(values: Mapping[str, Any]) -> str:
    """As flannel writes it."""
    return json.dumps(values, separators=(",", ":"))


class SubnetLeases:
    """One node's lease. The first node by name also writes the configuration and ends leases of nodes that left."""

    def __init__(self, pid: int, backend: Mapping[str, Any], data: Data) -> None:
        self._pid, self._backend, self._data = pid, backend, data
        self._etcd: Etcd | None = None
        self._lease = ""
        # Own value and everybody's keys, as etcd has them; None while nobody knows.
        self._held: tuple[str, frozenset[str]] | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def sync(self, view: NodeView) -> None:
        """Write what changed. Raises OSError if etcd does not answer."""
        everyone = (view.node, *view.peers)
        wanted = value(view.node, self._backend["Type"], self._data(view.node)), frozenset(map(key, everyone))
        with self._lock:
            if wanted == self._held:
                return
            before, self._held = self._held, None
            self._etcd = etcd = Etcd(self._pid, ip_text(view.outside[0].ip))
            if before is None:
                self._begin(etcd)
            etcd.put(key(view.node), wanted[0], self._lease)
            if view.node.name == min(node.name for node in everyone):
                etcd.put(f"{PREFIX}/config", config(view.lab, view.node, self._backend))
                for left in etcd.keys(f"{PREFIX}/subnets/"):
                    if left not in wanted[1]:
                        etcd.delete(left)
            self._held = wanted

    def close(self) -> None:
        """Another node takes the key away; this one's network is gone."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()

    def _begin(self, etcd: Etcd) -> None:
        self._lease = etcd.grant(TTL)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(RENEWAL, self._renew)
        self._timer.daemon = True
        self._timer.start()

    def _renew(self) -> None:
        with self._lock:
            try:
                if self._etcd is not None and self._held is not None:
                    self._etcd.keep_alive(self._lease)
            except OSError as error:
                LOG.warning("%s", error)
                self._held = None  # with the next change there is a new one
            self._timer = threading.Timer(RENEWAL, self._renew)
            self._timer.daemon = True
            self._timer.start()
