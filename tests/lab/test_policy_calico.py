"""Calico's policies with real packets, and cases made at random: what the evaluator says, packets do."""

from __future__ import annotations

import json
import time
from pathlib import Path

import policy_generator
import pytest
from running import RunningLab, StartLab, mininetes
from test_policy import PODS, SLACK, SOON, explain, ip, reaches, talk

ORDERED = """
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web}
spec:
  order: 10
  selector: app == 'web'
  ingress:
  - {action: Log, source: {selector: "app starts with 'str'"}}
  - {action: Deny, protocol: TCP, source: {selector: app == 'stranger'}, destination: {ports: ["8000:8090"]}}
  - {action: Allow}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {matchLabels: {app: web}}}
"""


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("lab") / "pods.yaml"
    file.write_text(PODS)
    return start_lab("--cni", "canal", "--no-dns", str(file))


def test_order_decides_running_connections_too_and_what_is_logged_is_counted(lab: RunningLab, tmp_path: Path) -> None:
    web = ip(lab, "web")
    clients = {name: talk(lab, name, web, 6) for name in ("friend", "stranger")}
    time.sleep(1)
    lab.apply(ORDERED, tmp_path)
    applied = time.time()
    times = {name: [float(line) for line in client.communicate()[0].split()] for name, client in clients.items()}
    assert times["stranger"][0] < applied - 0.3 and times["stranger"][-1] < applied + SOON + SLACK
    gaps = [two - one for one, two in zip(times["friend"], times["friend"][1:], strict=False)]
    assert times["friend"][-1] > applied + SOON and max(gaps) < SLACK, max(gaps)
    assert not reaches(lab, "stranger", web) and reaches(lab, "friend", web)
    (rule,) = json.loads(mininetes("policy", "log", "--lab", lab.name, "--json").stdout)
    assert (rule["policy"], rule["direction"], rule["rule"]) == (
        "NetworkPolicy.projectcalico.org default/web",
        "ingress",
        1,
    )
    # Of the connection before the policy it counts nothing, of the refused one each attempt.
    assert rule["nodes"]["worker"] >= 1 and not rule["nodes"]["worker2"]
    (port,) = explain(lab, "stranger", "web")["ports"]
    assert port["ingress"]["policy"] == "NetworkPolicy.projectcalico.org default/web" and port["ingress"]["rule"] == 2
    assert port["ingress"]["logged"][0]["packets"] == rule["nodes"]["worker"]
    assert sum(flow["packets"] for flow in port["ingress"]["flows"]) > 0
    lab.ask("delete", "cnp", "web")
    assert not reaches(lab, "friend", web)  # Kubernetes' own of the same name is still there
    lab.ask("delete", "netpol", "web")
    assert reaches(lab, "stranger", web)


def test_where_calico_is_not_its_policies_have_no_effect_and_apply_says_so(start_lab: StartLab, tmp_path: Path) -> None:
    lab = start_lab("--cni", "ovs", "--no-dns", "--nodes", "1")
    file = tmp_path / "policy.yaml"
    file.write_text(ORDERED)
    done = lab.ask("apply", "-f", str(file))
    (line,) = done.stderr.splitlines()
    assert "NetworkPolicy.projectcalico.org web: the policy has no effect: CNI ovs" in line
    assert [w for w in lab.status()["warnings"] if "the policy has no effect: CNI ovs" in w]


@pytest.mark.slow
def test_packets_do_what_the_evaluator_says_of_cases_made_at_random(tmp_path: Path) -> None:
    file = tmp_path / "made.json"
    file.write_text(json.dumps(policy_generator.made(7, 4)))
    done = mininetes("policy", "check", str(file), "--cni", "calico", "--json", "--lab", "check-made", timeout=300)
    found = json.loads(done.stdout)
    assert [c for c in found["cases"] if c["result"] != "passed"] == []
    assert (done.returncode, found["passed"]) == (0, 4) and found["pairs"] > 1000
