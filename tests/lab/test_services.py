"""Services from the outside: who answers whom, how evenly, how soon not, and what a connection survives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import MANIFESTS, RunningLab, StartLab
from inside import HAIRPIN, Answer, Target, ask, session

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: main
        image: none
        ports: [{{containerPort: 80}}, {{containerPort: 53}}, {{containerPort: 53, protocol: UDP}}]
        readinessProbe: {{httpGet: {{port: 80}}, periodSeconds: 1, failureThreshold: 1}}
---
"""
SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports:
  - {{name: http, port: 80}}
  - {{name: other, port: 8080, targetPort: 80}}
  - {{name: dns-tcp, port: 53}}
  - {{name: dns, port: 53, protocol: UDP}}
---
"""
NAMED = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: named}}}}
spec: {{containers: [{{name: main, image: none, ports: [{{name: web, containerPort: {port}}}]}}]}}
---
"""
FIXED = """
apiVersion: v1
kind: Service
metadata: {name: named}
spec: {selector: {app: named}, ports: [{port: 80, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty}
spec: {selector: {app: nobody}, ports: [{name: t, port: 80}, {name: u, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: worker, containers: [{name: main, image: none}]}
"""
# The chi-square distribution's 0.1 % critical value for three degrees of freedom.
CRITICAL = 16.27
UNKNOWN = "10.96.77.77"


@pytest.fixture(scope="module", params=("flannel", "calico"))
def lab(
    request: pytest.FixtureRequest, start_lab: StartLab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningLab]:
    file = tmp_path_factory.mktemp("lab") / "objects.yaml"
    workloads = [("web", 4), ("one", 1), ("three", 3)]
    text = "".join(DEPLOYMENT.format(name=n, replicas=r) + SERVICE.format(name=n) for n, r in workloads)
    file.write_text(text + NAMED.format(name="named-a", port=8081) + NAMED.format(name="named-b", port=9091) + FIXED)
    started = start_lab("--cni", request.param, str(file))
    yield started
    started.ask("down", ok=False)


def service(lab: RunningLab, name: str) -> dict[str, Any]:
    return dict(next(s for s in lab.status()["services"] if s["name"] == name))


def endpoints(lab: RunningLab, name: str) -> int:
    return len(service(lab, name)["endpoints"])


def pods_of(lab: RunningLab, prefix: str) -> dict[str, str]:
    """Name and address of the pods that run."""
    pods = lab.status()["pods"]
    return {p["name"]: p["ip"] for p in pods if p["name"].startswith(f"{prefix}-") and p["phase"] == "Running"}


def many(lab: RunningLab, name: str, count: int, protocol: str = "TCP", port: int = 80) -> list[Answer]:
    """So many connections of the client to a Service, all of which must be answered."""
    answers = ask(lab, "client", [(protocol, service(lab, name)["clusterIP"], port)] * count)
    assert {a.error for a in answers} == {""}
    return answers


def post(lab: RunningLab, address: str, health: str) -> None:
    """Make a stand-in healthy or unhealthy."""
    lab.exec("client", "curl", "-s", "-m", "3", "-X", "POST", f"http://{address}/{health}")


def scale(lab: RunningLab, name: str, replicas: int, tmp_path: Path) -> None:
    lab.apply(DEPLOYMENT.format(name=name, replicas=replicas), tmp_path)
    lab.eventually(lambda: endpoints(lab, name) == replicas)


@pytest.mark.parametrize(
    ("protocol", "port", "target"), [("TCP", 80, 80), ("TCP", 8080, 80), ("TCP", 53, 53), ("UDP", 53, 53)]
)
def test_each_port_of_a_service_is_its_own(lab: RunningLab, protocol: str, port: int, target: int) -> None:
    answers = many(lab, "web", 20, protocol, port)
    assert {(a.port, a.client) for a in answers} == {(target, lab.pod("client")["ip"])}
    assert {a.pod for a in answers} <= set(pods_of(lab, "web"))


def test_a_named_port_is_each_pods_own_number(lab: RunningLab) -> None:
    assert {(a.pod, a.port) for a in many(lab, "named", 40)} == {("named-a", 8081), ("named-b", 9091)}


@pytest.mark.parametrize(("protocol", "port"), [("TCP", 80), ("UDP", 53)])
def test_load_is_spread_evenly_over_the_endpoints(lab: RunningLab, protocol: str, port: int) -> None:
    pods = pods_of(lab, "web")
    # Ports of their own, one after the other, make the same hashes in each run of the same lab.
    answers = ask(lab, "client", [(protocol, service(lab, "web")["clusterIP"], port)] * 400, source=20000)
    assert {a.error for a in answers} == {""}
    counts = Counter(a.pod for a in answers)
    assert set(counts) == set(pods)
    expected = len(answers) / len(pods)
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < CRITICAL, counts


@pytest.mark.parametrize(("protocol", "port"), [("TCP", 80), ("UDP", 53)])
def test_the_only_endpoint_reaches_itself(lab: RunningLab, protocol: str, port: int) -> None:
    (name,) = pods_of(lab, "one")
    answers = ask(lab, name, [(protocol, service(lab, "one")["clusterIP"], port)] * 10)
    assert {(a.pod, a.client, a.error) for a in answers} == {(name, HAIRPIN, "")}


@pytest.mark.parametrize(("protocol", "port"), [("TCP", 80), ("UDP", 53)])
def test_one_endpoint_of_three_reaches_itself_and_the_others(lab: RunningLab, protocol: str, port: int) -> None:
    pods = pods_of(lab, "three")
    for name, address in pods.items():
        answers = ask(lab, name, [(protocol, service(lab, "three")["clusterIP"], port)] * 60)
        seen = {(a.pod, a.client) for a in answers}
        assert seen == {(other, HAIRPIN if other == name else address) for other in pods}, name


@pytest.mark.parametrize(("protocol", "port"), [("TCP", 80), ("UDP", 53)])
def test_a_service_without_endpoint_refuses_at_once(lab: RunningLab, protocol: str, port: int) -> None:
    address = service(lab, "empty")["clusterIP"]
    for answer in ask(lab, "client", [(protocol, address, port)] * 5):
        assert answer.error == "ECONNREFUSED" and answer.seconds < 0.5


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_an_address_or_port_of_no_service_refuses_at_once(lab: RunningLab, protocol: str) -> None:
    for address, port in ((UNKNOWN, 80), (service(lab, "web")["clusterIP"], 81)):
        for answer in ask(lab, "client", [(protocol, address, port)] * 3):
            assert answer.error == "ECONNREFUSED" and answer.seconds < 0.5, (address, port)


@pytest.mark.parametrize("node", ["control-plane", "worker", "worker2"])
def test_nodes_reach_services(lab: RunningLab, node: str) -> None:
    address = service(lab, "web")["clusterIP"]
    answers = ask(lab, node, [("TCP", address, 80)] * 20 + [("UDP", address, 53)] * 20)
    assert {a.error for a in answers} == {""}
    assert {a.pod for a in answers} <= set(pods_of(lab, "web"))
    refused = ask(lab, node, [("TCP", service(lab, "empty")["clusterIP"], 80), ("UDP", UNKNOWN, 53)])
    assert [a.error for a in refused] == ["ECONNREFUSED"] * 2
    assert max(a.seconds for a in refused) < 0.5


def test_a_pod_leaves_while_it_is_unhealthy_and_comes_back(lab: RunningLab) -> None:
    name, address = next(iter(pods_of(lab, "web").items()))
    post(lab, address, "unhealthy")
    try:
        # A period of the probe is one second; what it takes to ask is on top of it.
        lab.eventually(lambda: address not in service(lab, "web")["endpoints"], 2.5)
        assert name not in {a.pod for a in many(lab, "web", 60)}
    finally:
        post(lab, address, "healthy")
    lab.eventually(lambda: address in service(lab, "web")["endpoints"], 2.5)
    assert name in {a.pod for a in many(lab, "web", 60)}


def test_a_service_follows_its_deployments_size(lab: RunningLab, tmp_path: Path) -> None:
    for replicas in (6, 2, 0, 4):
        scale(lab, "web", replicas, tmp_path)
        if replicas:
            assert {a.pod for a in many(lab, "web", 30 * replicas)} == set(pods_of(lab, "web"))
        else:
            answer = ask(lab, "client", [("TCP", service(lab, "web")["clusterIP"], 80)])[0]
            assert answer.error == "ECONNREFUSED"


def test_a_deleted_pod_is_replaced_at_another_address(lab: RunningLab) -> None:
    before = pods_of(lab, "three")
    name, address = next(iter(before.items()))
    lab.ask("delete", "pod", name)
    lab.eventually(lambda: name not in pods_of(lab, "three") and endpoints(lab, "three") == 3)
    after = pods_of(lab, "three")
    assert len(after) == 3 and address not in after.values()
    assert {a.pod for a in many(lab, "three", 90)} == set(after)


def test_a_deleted_service_refuses_and_works_again_when_remade(lab: RunningLab, tmp_path: Path) -> None:
    address = service(lab, "one")["clusterIP"]
    lab.ask("delete", "service", "one")

    def error() -> str:
        return ask(lab, "client", [("TCP", address, 80)])[0].error

    lab.eventually(lambda: error() == "ECONNREFUSED")
    lab.apply(SERVICE.format(name="one"), tmp_path)
    lab.eventually(lambda: endpoints(lab, "one") == 1)
    assert {a.pod for a in many(lab, "one", 5)} == set(pods_of(lab, "one"))


def test_a_connection_survives_endpoints_that_come_and_go(lab: RunningLab, tmp_path: Path) -> None:
    with session(lab, "client", service(lab, "three")["clusterIP"], 80) as connection:

        def partner() -> str:
            connection.say("x")
            return str(connection.json()["pod"])

        mine = partner()
        assert mine in pods_of(lab, "three")
        scale(lab, "three", 5, tmp_path)
        assert partner() == mine
        other = next(name for name in pods_of(lab, "three") if name != mine)
        lab.ask("delete", "pod", other)
        lab.eventually(lambda: other not in pods_of(lab, "three") and endpoints(lab, "three") == 5)
        assert partner() == mine
        address = pods_of(lab, "three")[mine]
        post(lab, address, "unhealthy")
        try:
            lab.eventually(lambda: endpoints(lab, "three") == 4)
            assert mine not in {a.pod for a in many(lab, "three", 60)}
            assert partner() == mine
        finally:
            post(lab, address, "healthy")
    scale(lab, "three", 3, tmp_path)


@pytest.mark.parametrize(("manifest", "services"), [("online-boutique", 12), ("guestbook", 4), ("cassandra", 1)])
def test_every_service_of_an_application_answers(lab: RunningLab, manifest: str, services: int) -> None:
    before = lab.status()
    lab.ask("apply", "-f", str(MANIFESTS / f"{manifest}.yaml"), "--wait", "30")
    status = lab.status()
    owner = {pod["ip"]: pod["name"] for pod in status["pods"]}
    new = [s for s in status["services"] if s["name"] not in {old["name"] for old in before["services"]}]
    assert len(new) == services and all(one["endpoints"] for one in new)
    wanted: list[tuple[Target, set[str]]] = []
    for one in new:
        ports = [(protocol, int(port)) for port, protocol in (text.split("/") for text in one["ports"])]
        anybody = {owner[address] for address in one["endpoints"]}
        headless = {address: {owner[address]} for address in one["endpoints"]}
        addresses = headless if one["clusterIP"] == "None" else {one["clusterIP"]: anybody}
        wanted += [((protocol, a, port), allowed) for protocol, port in ports for a, allowed in addresses.items()]
    answers = ask(lab, "client", [target for target, _ in wanted])
    for answer, (target, allowed) in zip(answers, wanted, strict=True):
        assert answer.pod in allowed and answer.client == lab.pod("client")["ip"], (target, answer)
    lab.ask("delete", "-f", str(MANIFESTS / f"{manifest}.yaml"))
    lab.eventually(lambda: {p["name"] for p in lab.status()["pods"]} == {p["name"] for p in before["pods"]})


def test_a_headless_service_lists_the_pods_of_its_stateful_set(lab: RunningLab) -> None:
    manifest = str(MANIFESTS / "cassandra.yaml")
    lab.ask("apply", "-f", manifest, "--wait", "30")
    shown, pods = service(lab, "cassandra"), pods_of(lab, "cassandra")
    assert shown["clusterIP"] == "None"
    assert set(pods) == {f"cassandra-{i}" for i in range(3)}
    assert set(shown["endpoints"]) == set(pods.values())
    lab.ask("delete", "-f", manifest)
    lab.eventually(lambda: not pods_of(lab, "cassandra"))
