"""Which proxy mode goes with a CNI: its own if none is asked for, and none that would go past what the CNI does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from views import CNIS, PROXIES

from scenarios.lab import assemble
from topo import labfile
from topo.cluster.errors import InputError
from topo.lab import Parts

DSR = {"mode": "geneve", "loadBalancer": {"mode": "dsr"}}


def parts(cni: str, proxy_mode: str = "", **options: Any) -> Parts:
    config = replace(labfile.default_config(2), cni=cni, cni_options=options, proxy_mode=proxy_mode)
    return assemble.parts(config, assemble.Choices(datapath="netdev"))


def test_a_cni_may_bring_the_mode_that_is_the_default_with_it() -> None:
    assert [parts(cni).proxy_mode for cni in ("flannel", "cilium", "weave")] == ["ovs", "cilium", "ovs"]
    assert parts("cilium", "ipvs").proxy_mode == "ipvs"


def test_an_option_that_the_chosen_mode_does_not_heed_is_refused() -> None:
    assert parts("cilium", **DSR).proxy_mode == parts("cilium", "cilium", **DSR).proxy_mode == "cilium"
    with pytest.raises(InputError, match="loadBalancer: proxy mode ovs does not heed it"):
        parts("cilium", "ovs", **DSR)


def test_identities_are_carried_by_tunnels_alone() -> None:
    assert [parts("cilium", mode=mode).carries_identities for mode in ("vxlan", "geneve", "native")] == [
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("cni", "options", "said"),
    [
        ("weave", {}, "one link for all"),
        ("cilium", {"mode": "geneve"}, "would need geneve"),
        ("cilium", {"mode": "native", "encryption": "wireguard"}, "past what would seal them"),
    ],
)
def test_pods_on_linux_bridges_have_only_what_their_node_can_do(cni: str, options: dict[str, Any], said: str) -> None:
    config = replace(labfile.default_config(2), cni=cni, cni_options=options)
    with pytest.raises(InputError, match=said):
        assemble._network(CNIS[cni], PROXIES["kernel-iptables"], config)
