"""`make regression`: paths of a lab beside others of the same moment, against the ratios in results/baseline/."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from scenarios.testing.lab import Lab

PODS = """
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec: {nodeName: worker, containers: [{name: idle, image: none}]}
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec: {nodeName: worker2, containers: [{name: idle, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec:
  selector: {app: server}
  ports: [{name: rr, port: 7001}, {name: rr-udp, port: 7001, protocol: UDP}, {name: iperf, port: 5201}]
"""
Check = Callable[..., None]


@pytest.fixture(scope="module")
def service(lab: Lab) -> str:
    """The address of a Service whose one endpoint is on another node than the client."""
    lab.apply(PODS)
    return str(next(s["clusterIP"] for s in lab.status()["services"] if s["name"] == "server"))


@pytest.mark.parametrize(("kind", "repeats"), [("tcp_rr", 15), ("tcp_crr", 15), ("udp_rr", 15), ("tcp_throughput", 5)])
def test_a_service_beside_its_pod(lab: Lab, service: str, assert_no_regression: Check, kind: str, repeats: int) -> None:
    measured = lab.measure(kind, "caller", "server", address=service, beside=("caller", "server"), repeats=repeats)
    assert_no_regression(measured, f"service-{kind}", tolerance=0.5)
