"""What the scenarios that compare pod networks say of what is not as expected; and their CNIs' plans."""

from __future__ import annotations

from dataclasses import replace

import pytest

from controllers.cni import Traits
from scenarios import Outcome
from scenarios.cni_traits import SCENARIO as CNI_TRAITS
from scenarios.lab import networks
from scenarios.measure.wire import Packet, added, is_added, unlike
from scenarios.mtu import SCENARIO as MTU
from scenarios.report.results import TextTable
from topo.cluster.errors import InputError
from topo.labfile import default_config

VARIANTS = networks.known()
VXLAN = VARIANTS["flannel vxlan"][0].variants["vxlan"]
SEALED = VARIANTS["flannel wireguard"][0].variants["wireguard"]
ENDS, NODES = ("10.244.1.2", "10.244.2.2"), ("172.18.0.3", "172.18.0.4")
INNER = ("ip", "icmp", "data")


def packet(headers: tuple[str, ...], *pairs: tuple[str, str]) -> Packet:
    return Packet(headers, (100,) * len(pairs), tuple(a for a, _ in pairs), tuple(b for _, b in pairs), False)


WRAPPED = packet((*VXLAN.headers, *INNER), NODES, ENDS)


def test_a_packet_as_the_traits_say_is_nothing_to_speak_of() -> None:
    assert unlike(VXLAN, [WRAPPED], ENDS, NODES) == []
    assert unlike(SEALED, [packet(("ip", "udp", "wg"), NODES)], ENDS, NODES) == []
    assert unlike(replace(VXLAN, only_between_subnets=True), [packet(INNER, ENDS)], ENDS, NODES) == []


@pytest.mark.parametrize(
    ("traits", "packets", "said"),
    [
        (VXLAN, [], "no packet"),
        (VXLAN, [packet(INNER, ENDS)], "does not begin with ip:udp:vxlan:eth"),
        (VXLAN, [packet((*VXLAN.headers, *INNER), ENDS, NODES)], "addresses"),
        (replace(VXLAN, sealed=True), [WRAPPED], "can be read"),
        (replace(VXLAN, only_between_subnets=True), [WRAPPED], "addresses"),
        (SEALED, [packet(("ip", "udp", "data"), NODES)], "does not begin with ip:udp:wg"),
    ],
)
def test_a_packet_unlike_the_traits_is_named(traits: Traits, packets: list[Packet], said: str) -> None:
    assert said in unlike(traits, packets, ENDS, NODES)[0]


def test_what_is_added_is_exact_but_for_what_wireguard_fills_up() -> None:
    assert [is_added(VXLAN, cost) for cost in (49, 50, 51)] == [False, True, False]
    assert [is_added(SEALED, cost) for cost in (59, 60, 75, 76)] == [False, True, True, False]


def test_what_one_lab_found_unexpected_is_the_comparisons_failure() -> None:
    outcome = Outcome((), (), tables=(TextTable("", (), (("x",),)), TextTable("", ("to",), (("-",),))), failed=["lost"])
    found = CNI_TRAITS.compare({"flannel vxlan": outcome}, {"calico ipip": "no such kernel"})
    assert found.failed == ["flannel vxlan: lost"]
    assert "calico ipip is left out: no such kernel" in found.notes
    assert found.tables[1].rows[1][:2] == ("calico ipip", "left out: no such kernel")


def test_smaller_packets_that_cost_less_are_unexpected() -> None:
    def lab(mtu: str, cost: str) -> Outcome:
        row = ("1500", mtu, "1450", mtu, "-", "yes", "10.0", "0.01", cost)
        return Outcome((), (), tables=(TextTable("", (), (row,)),))

    right, small = {"f v: right": lab("1450", "1.08")}, {"f v: too small": lab("700", "1.18")}
    assert MTU.compare({**right, **small}, {}).failed == []
    assert len(MTU.compare({**right, "f v: too small": lab("700", "1.01")}, {}).failed) == 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_plan_leaves_room_for_what_is_added(variant: str) -> None:
    cni, options = VARIANTS[variant]
    traits = cni.traits_of(options)
    for fabric_mtu in (1500, 9000):
        planned = cni.plan(fabric_mtu, options).mtu
        assert planned == traits.mtu(fabric_mtu)
        assert planned + added(traits, one_subnet=False)[1] <= fabric_mtu or traits.fixed_mtu
    assert cni.plan(1500, {**options, "mtu": 1234}).mtu == 1234


def test_cnis_that_are_compared_are_named_by_cni_or_variant() -> None:
    config = replace(default_config(3), scenario={"cnis": "flannel udp,canal"})
    assert list(networks.chosen(config, "cnis")) == ["flannel udp", "canal vxlan"]
    assert set(networks.chosen(replace(config, scenario={"cnis": "all"}), "cnis")) == set(VARIANTS)
    with pytest.raises(InputError, match="unknown: 'nonsense'"):
        networks.chosen(replace(config, scenario={"cnis": "nonsense"}), "cnis")
