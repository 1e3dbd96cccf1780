"""The slow link is the one before the node, on whatever fabric; a queue's room is what its packets take to leave."""

from __future__ import annotations

from dataclasses import replace

import pytest

from scenarios.lab.bottleneck import Queue, before, handed_over
from topo import fabric, labfile
from topo.config import FabricConfig, LinkConfig


def test_only_the_nodes_link_is_slow_and_keeps_what_else_it_is() -> None:
    config = labfile.default_config(3)
    shape = FabricConfig(link=LinkConfig(mtu=9000), links={"leaf-1--spine-1": LinkConfig(100.0)})
    lab = before(before(replace(config, fabric=shape), "worker2", 50), "worker2", 20)
    assert fabric.link(lab.fabric, "leaf-1", "worker2") == LinkConfig(20, mtu=9000)
    assert fabric.link(lab.fabric, "leaf-2", "worker") == LinkConfig(mtu=9000)
    assert fabric.link(lab.fabric, "spine-1", "leaf-1") == LinkConfig(100.0) and len(lab.fabric.links) == 2


def test_a_full_queue_takes_as_long_as_its_packets_on_the_link() -> None:
    assert Queue("pfifo", 1000).room(100) == pytest.approx(121, abs=1)
    assert Queue("pfifo", 1000).room(100, most=100) == pytest.approx(12.1, abs=0.1)
    assert Queue("fq_codel").room(100) is None and Queue("fq_codel").arguments == ["fq_codel"]
    assert Queue("pfifo", 50).arguments == ["pfifo", "limit", "50"]


def test_a_kernels_switch_fills_a_queue_and_one_in_userspace_what_its_socket_holds() -> None:
    assert handed_over("system") is None and (handed_over("netdev") or 0) > 10
