"""Network policies with real packets: public cases, changes while connections run, and CNIs that enforce nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from running import ROOT, RunningLab, StartLab, mininetes

DATA = ROOT / "tests" / "data" / "policy"
CLIENT = Path(__file__).parent / "policy_client.py"
PODS = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: worker
  containers:
  - name: c
    image: x
    ports: [{containerPort: 8080, name: http}]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: friend, labels: {app: friend}}
spec: {nodeName: worker2, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger}}
spec: {nodeName: worker, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: guest, namespace: other, labels: {app: friend}}
spec: {nodeName: worker2, containers: [{name: c, image: x, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}]}
"""
ONLY_FRIENDS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-friends}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}, {namespaceSelector: {matchLabels: {kind: guest}}}]}]
"""
# Until what was applied must be in force, and what a busy machine of two cores may take for everything around it.
SOON, SLACK = 0.1, 0.3


@pytest.fixture(scope="module")
def lab(start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory) -> RunningLab:
    file = tmp_path_factory.mktemp("lab") / "pods.yaml"
    file.write_text(PODS)
    return start_lab("--cni", "calico", str(file))


@pytest.fixture(autouse=True)
def no_policies(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Each test begins without policies, and with the labels above."""
    if "lab" not in request.fixturenames:
        return
    lab = request.getfixturevalue("lab")
    lab.ask("delete", "networkpolicy", "only-friends", ok=False)
    lab.apply(PODS, tmp_path)


def ip(lab: RunningLab, name: str) -> str:
    return str(next(p["ip"] for p in lab.status()["pods"] if p["name"] == name))


def reaches(lab: RunningLab, source: str, address: str, port: int = 8080) -> bool:
    return bool(lab.exec(source, "curl", "-s", "-m", "0.7", f"http://{address}:{port}/", ok=False))


@pytest.mark.slow
def test_public_cases_pass(tmp_path: Path) -> None:
    files = [DATA / "named.json", DATA / "cyclonus" / "example.json"]
    files += [DATA / "recipes" / "cases.json", DATA / "k8s-docs" / "cases.json"]  # the last needs a lab of its own
    done = mininetes("policy", "check", *map(str, files), "--json", "--lab", "check-policy", timeout=200)
    found = json.loads(done.stdout)
    assert [c for c in found["cases"] if c["result"] != "passed"] == []
    assert (done.returncode, found["passed"]) == (0, 30 + 1 + 15 + 3)


@pytest.mark.slow
def test_a_cni_that_enforces_nothing_fails_and_says_why(tmp_path: Path) -> None:
    file = str(DATA / "named.json")
    done = mininetes("policy", "check", file, "--case", "deny all ingress", "--cni", "flannel", "--json", timeout=100)
    found = json.loads(done.stdout)
    assert (done.returncode, found["passed"]) == (1, 0) and found["failed"] == 1
    pairs = {d["pair"]: d["expected"] for d in found["cases"][0]["differences"]}
    assert pairs and set(pairs.values()) == {"refused"}
    assert "CNI flannel" in found["warnings"][0]


def test_a_policy_without_effect_is_a_visible_warning(start_lab: StartLab, tmp_path: Path) -> None:
    lab = start_lab("--cni", "flannel")
    lab.apply(ONLY_FRIENDS, tmp_path)
    (text,) = [w for w in lab.status()["warnings"] if "NetworkPolicy" in w]
    assert "only-friends: the policy has no effect: CNI flannel" in text


def test_what_is_applied_holds_at_once_and_labels_move_it(lab: RunningLab, tmp_path: Path) -> None:
    web = ip(lab, "web")
    assert reaches(lab, "stranger", web)
    lab.apply(ONLY_FRIENDS, tmp_path)
    assert reaches(lab, "friend", web) and not reaches(lab, "stranger", web)
    assert not reaches(lab, "other/guest", web)
    lab.apply(PODS.replace("app: stranger", "app: friend"), tmp_path)
    assert reaches(lab, "stranger", web)
    lab.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: other, labels: {kind: guest}}", tmp_path)
    assert reaches(lab, "other/guest", web)
    lab.ask("delete", "networkpolicy", "only-friends")
    assert reaches(lab, "stranger", web)


def test_a_service_is_judged_by_the_pod_that_answers(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(ONLY_FRIENDS, tmp_path)
    address = lab.service("web")
    assert reaches(lab, "friend", address, 80) and not reaches(lab, "stranger", address, 80)
    # A pod reaches itself, through its Service too.
    assert reaches(lab, "web", address, 80)


def test_the_node_probes_a_pod_that_nobody_may_reach(lab: RunningLab, tmp_path: Path) -> None:
    deny = ONLY_FRIENDS.partition("  ingress:")[0] + "  ingress: []\n"
    lab.apply(deny, tmp_path)
    assert not reaches(lab, "friend", ip(lab, "web"))
    time.sleep(2.5)  # two periods of the readiness probe
    assert lab.pod("web")["ready"]
    assert reaches(lab, "worker", ip(lab, "web"))


def test_a_connection_that_is_denied_stops_and_one_that_stays_allowed_is_not_touched(
    lab: RunningLab, tmp_path: Path
) -> None:
    web = ip(lab, "web")
    clients = {name: talk(lab, name, web) for name in ("friend", "stranger")}
    time.sleep(1)
    lab.apply(ONLY_FRIENDS, tmp_path)
    applied = time.time()
    times = {name: [float(line) for line in client.communicate()[0].split()] for name, client in clients.items()}
    assert times["stranger"][0] < applied - 0.3
    assert times["stranger"][-1] < applied + SOON + SLACK
    gaps = [two - one for one, two in zip(times["friend"], times["friend"][1:], strict=False)]
    assert times["friend"][-1] > applied + 1 and max(gaps) < SLACK, max(gaps)


def test_a_connection_that_is_allowed_again_goes_on(lab: RunningLab, tmp_path: Path) -> None:
    client = talk(lab, "stranger", ip(lab, "web"), 5)
    time.sleep(0.7)
    lab.apply(ONLY_FRIENDS, tmp_path)
    denied = time.time()
    time.sleep(0.8)
    lab.ask("delete", "networkpolicy", "only-friends")
    allowed = time.time()
    times = [float(line) for line in client.communicate()[0].split()]
    assert not [t for t in times if denied + SOON + SLACK < t < allowed - SLACK]
    assert [t for t in times if t > allowed]


def talk(lab: RunningLab, source: str, address: str, seconds: float = 3) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scenarios", "exec", "--lab", lab.name, source, "--"]
    command += [sys.executable, str(CLIENT), address, "8080", str(seconds)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_explain_and_matrix_say_what_packets_do(lab: RunningLab, tmp_path: Path) -> None:
    lab.apply(ONLY_FRIENDS, tmp_path)
    assert reaches(lab, "friend", ip(lab, "web"))
    told = explain(lab, "friend", "web:http")
    ((side,),) = [[port["ingress"]] for port in told["ports"]]
    assert side["policies"] == ["NetworkPolicy default/only-friends"] and (side["allowed"], side["rule"]) == (True, 1)
    assert sum(flow["packets"] for flow in side["flows"]) > 0
    (port,) = explain(lab, "stranger", "web")["ports"]
    assert not port["allowed"] and "isolates it" in port["ingress"]["why"]
    assert [flow["table"] for flow in port["ingress"]["flows"]] == ["IngressPolicy"]
    page = tmp_path / "matrix.html"
    done = mininetes("policy", "matrix", "--lab", lab.name, "-n", "default", "--probe", "--html", str(page), "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0 and found["differences"] == []
    assert found["expected"]["TCP/8080"]["default/stranger"]["default/web"] is False
    assert page.read_text().count("class='no'") == 1


def explain(lab: RunningLab, source: str, target: str) -> dict:  # type: ignore[type-arg]
    done = mininetes("policy", "explain", "--lab", lab.name, "--json", source, target)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_scenario_measures_what_policies_cost(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(
        "from scenarios.policy_cost import PolicyCost\nSCENARIO = PolicyCost('policy-tiny', 'tiny', (0, 5), 1)\n"
    )
    results = tmp_path / "results"
    few = ("--repeats", "1", "--seconds", "0.02", "--results", str(results), "--json")
    done = mininetes("run", "policy-tiny", "--plugins", str(tmp_path), "--cni", "canal", *few)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    cost, matrix = found["tables"]
    assert [row[0] for row in cost["rows"]] == ["0", "5"] and int(cost["rows"][1][1]) > int(cost["rows"][0][1])
    assert all(cell != "-" for row in cost["rows"] for cell in row)
    cells = {cell for row in matrix["rows"] for cell in row[2:]}
    assert cells == {"", "+/+", "-/-"} and len(matrix["rows"]) == 2 * 6
