"""The pods' MTU where the fabric's is another, and where the lab file says one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cni.world import PODS, started
from scenarios.measure import wire

JUMBO, EXPLICIT = 9000, 1234
# A way of each kind: by the switch's tunnel, as it is, by a program of the node, by Linux' own bridge.
CASES = [
    ("flannel vxlan", JUMBO, None),
    ("calico bgp", JUMBO, None),
    ("calico ipip", JUMBO, EXPLICIT),
    ("flannel wireguard", 1500, EXPLICIT),
]


@pytest.mark.parametrize(("variant", "fabric", "explicit"), CASES)
def test_the_largest_packet_is_what_the_fabric_or_the_lab_file_says(
    variant: str, fabric: int, explicit: int | None, tmp_path: Path
) -> None:
    chosen = {} if explicit is None else {"mtu": explicit}
    with started(variant, tmp_path, PODS, fabric, **chosen) as lab:
        size = explicit or lab.says.mtu(fabric)
        with lab.captured("worker", size, 4) as packets:
            assert lab.ping("asking", lab.ips["across"], size) == "answered"
        assert lab.ping("asking", lab.ips["across"], size + 1) == "Message too long"
        costs = {packet.size - size for packet in packets}
        assert costs and all(wire.is_added(lab.says, cost) for cost in costs), costs
        assert lab.unlike(packets) == []


@pytest.mark.parametrize("variant", ["flannel vxlan", "calico bgp"])
def test_packets_too_large_for_the_path_vanish_and_those_that_fit_pass(variant: str, tmp_path: Path) -> None:
    with started(variant, tmp_path, PODS, mtu=1600) as lab:
        room = 1500 - wire.added(lab.says)[1]
        assert lab.ping("asking", lab.ips["across"], room) == "answered"
        assert lab.ping("asking", lab.ips["across"], room + 1) == "no answer in time"
        assert lab.ping("asking", lab.ips["beside"], 1600) == "answered"
