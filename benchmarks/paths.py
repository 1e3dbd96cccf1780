"""The paths that `make regression` watches: a Service beside its own pod, on another node of one lab."""

from __future__ import annotations

from pathlib import Path

from scenarios.measure.regression import Beside
from scenarios.testing.lab import Lab

BASELINES = Path(__file__).parents[1] / "results" / "baseline" / "ratios.yaml"
# Repeats of each kind, enough that the mean ratio's 95 % interval is narrower than the tolerance on a quiet machine.
KINDS = {"tcp_rr": 25, "tcp_crr": 25, "udp_rr": 25, "tcp_throughput": 9}
TOLERANCE = 0.2
_PODS = """
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


def service(lab: Lab) -> str:
    """Put the pods and the Service into the lab; the Service's address."""
    lab.apply(_PODS)
    return str(next(s["clusterIP"] for s in lab.status()["services"] if s["name"] == "server"))


def measure(lab: Lab, address: str, kind: str) -> Beside:
    """The way to the Service, in turn with the way to its pod."""
    return lab.measure(kind, "caller", "server", address=address, beside=("caller", "server"), repeats=KINDS[kind])


def baseline(kind: str) -> str:
    """Its name in results/baseline/ratios.yaml."""
    return f"service-{kind}"
