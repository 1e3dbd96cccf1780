"""What Mininet knows of a lab's hosts: those there are, and nothing of those that went."""

from __future__ import annotations

import gc
import weakref

import pytest

from topo import hosts


def test_a_host_that_is_removed_is_known_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts.Host, "startShell", lambda *_: None)  # no namespaces
    network, node = hosts.empty_network(), hosts.Host("worker")
    hosts.add(network, node)
    kept, removed = hosts.Host("kept"), hosts.Host("removed")
    for pod, interface in ((kept, "veth1"), (removed, "veth2")):
        hosts.add(network, pod)
        hosts.add_link(network, pod, "eth0", node, interface, "10.244.1.2")
    hosts.remove(network, removed)
    assert (network.hosts, network["worker"], network["kept"]) == ([node, kept], node, kept)
    assert node.intfNames() == ["worker:veth1"] and len(network.links) == 1
    known = weakref.ref(removed)
    del removed, pod
    gc.collect()
    assert known() is None
