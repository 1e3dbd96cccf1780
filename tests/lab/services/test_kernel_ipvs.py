"""Every case in mode kernel-ipvs, and what only the kernel's virtual servers do."""

import pytest

from services.cases import *  # noqa: F403
from services.world import NO_ANSWER, World, endpoints, ip, service, states

MODE = "kernel-ipvs"


@states("pod-service-sctp", "endpoint-service-sctp")
def test_sctp(lab: World) -> None:
    """Of the client's own node: Linux loses what goes on through VXLAN (docs/services.md)."""
    asked = lab.at("sctp-1").who(("sctp", ip(19), 80), n=20)
    if "Protocol not supported" in asked:
        pytest.skip("this kernel has no SCTP")
    assert "sctp-1" in asked and set(asked) <= {"sctp-1", "sctp-2", "timeout"}, asked


def test_a_removed_endpoint_keeps_its_connections_until_they_end_and_gets_no_new_one(lab: World) -> None:
    target, at = ("tcp", ip(121), 80), lab.at("c0")
    one, two, three = (lab.endpoint(name) for name in ("echo-1", "echo-2", "echo-3"))
    lab.apply(service("drains", 121, ""), endpoints("drains", one, two))
    at.until(target, {"echo-1", "echo-2"})
    names = ["first", "second"]
    gone = names[at.do("hold", target=target, names=names).index("echo-2")]
    lab.apply(endpoints("drains", one))
    lab.eventually(lambda: _counts(lab, "echo-2")[:2] == (0, 1))
    assert at.who(target, n=3, keep=gone) == ["echo-2"] * 3
    assert at.who(target, n=6) == ["echo-1"] * 6
    at.do("release", names=names)
    # A connection that was reset is kept for ten seconds (ip_vs_proto_tcp).
    lab.eventually(lambda: _counts(lab, "echo-2") == (0, 0, 0), seconds=20)
    lab.apply(endpoints("drains", one, three))
    lab.eventually(lambda: _counts(lab, "echo-2") == ())
    assert set(at.who(target, n=6)) == {"echo-1", "echo-3"}


def _counts(lab: World, name: str) -> tuple[int, ...]:
    """Weight, active and inactive connections of an endpoint of Service drains on c0's node; empty if it has none."""
    shown = lab.run("control-plane", "ipvsadm", "-L", "-n", "-t", f"{ip(121)}:80")
    for words in map(str.split, shown.splitlines()):
        if words[:2] == ["->", f"{lab.ips[name]}:8080"]:
            return int(words[3]), int(words[4]), int(words[5])
    return ()


def test_a_cluster_ip_is_an_address_of_the_node_that_leads_to_nothing_else(lab: World) -> None:
    """Whatever listens on the node's every address, as its agent's health checks do (KUBE-IPVS-FILTER)."""
    found = lab.get("Service", "lb-local")
    assert found is not None
    number = found["spec"]["healthCheckNodePort"]
    assert lab.at("c0").do("get", address="172.18.0.4", port=number, path="/healthz") == 200
    assert set(lab.at("c0").who(("tcp", ip(1), 22))) <= NO_ANSWER
    assert f"{ip(1)}/32" in lab.run("worker", "ip", "-4", "-brief", "address", "show", "dev", "kube-ipvs0")
