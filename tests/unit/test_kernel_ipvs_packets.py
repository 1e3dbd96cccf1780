"""kube-proxy's own table of packets and verdicts, in mode kernel-ipvs: what differs is what its ipvs mode does."""

from __future__ import annotations

from typing import Any

import pytest
from ipvs_packets import Node, Packet
from kernel_tables import Kernel
from test_kube_proxy_flows import NODE_IP, SETUPS, cases, view_of

from controllers.kernel import ipvs_part
from controllers.kernel.ipvs_part import IpvsRules

GATEWAY_IP = "10.255.0.1"
Verdict = tuple[str, set[str], set[bool]]


def dnat(masquerade: bool, *reached: str) -> Verdict:
    return "DNAT", set(reached), {masquerade}


# With policy Local, who has an endpoint on its node is led to it, whoever asks: a virtual server knows no clients.
OWN = {
    7: (["pod to external IP", "pod to LB IP", "pod to NodePort"], "10.180.2.1:80"),
    17: (["pod to NodePort with eTP:Local", "pod to LB with eTP:Local", "node to LB with eTP:Local"], "10.180.0.2:80"),
    18: (["node to LB with eTP:Local"], "10.180.0.2:80"),
    19: (["pod to NodePort with eTP:Local", "pod to LB with eTP:Local", "node to LB with eTP:Local"], "10.180.0.2:80"),
    20: (["node to LB with eTP:Local"], "10.180.0.2:80"),
}
DIFFERENT: dict[tuple[int, str], Verdict] = {
    (number, name + (" hits both endpoints, unmasqueraded" if number == 7 else "")): dnat(False, real)
    for number, (names, real) in OWN.items()
    for name in names
}
# Without one, it is led to all of them, and the answer comes from whom a client outside never asked.
DIFFERENT[11, "external to LB"] = dnat(False, "10.0.1.5:80")
# The node reaches a cluster IP by that very address, which nobody could answer.
BOTH, LOCAL = ("10.180.0.1:80", "10.180.1.1:80"), ("10.180.0.2:80", "10.180.1.2:80")
DIFFERENT[18, "node to ClusterIP"] = dnat(True, *BOTH)
DIFFERENT[18, "node to ClusterIP with eTP:Local"] = dnat(True, *LOCAL)
DIFFERENT[18, "node to ClusterIP with iTP:Local"] = dnat(True, "10.180.0.3:80")


@pytest.mark.parametrize(("number", "deleted", "flow"), list(cases()))
def test_verdict(monkeypatch: pytest.MonkeyPatch, number: int, deleted: tuple[str, ...], flow: dict[str, Any]) -> None:
    kernel = Kernel()
    monkeypatch.setattr(ipvs_part, "run", kernel.run)
    monkeypatch.setattr("controllers.kernel.part.run", kernel.run)
    IpvsRules(1).sync(view_of(SETUPS[number], deleted, "kernel-ipvs"))
    node = Node(kernel, frozenset({NODE_IP, GATEWAY_IP}))
    is_own = flow["src"] == NODE_IP
    found = node.verdict(Packet(flow["protocol"].lower(), flow["src"], flow["dst"], flow["port"], is_own))
    expected = (flow["verdict"], set(flow.get("to", ())), {flow["masquerade"]} if flow["verdict"] == "DNAT" else set())
    assert found == DIFFERENT.get((number, flow["name"]), expected)


def test_nothing_is_called_different_that_is_not() -> None:
    asked = {(case.values[0], case.values[2]["name"]): case.values[2] for case in cases()}
    assert len(DIFFERENT) == 15
    for key, verdict in DIFFERENT.items():
        flow = asked[key]
        assert verdict != (flow["verdict"], set(flow.get("to", ())), {flow.get("masquerade")})
