"""Manifests: real applications load, every kind of mistake is named with its place, and nothing else ever escapes."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from topo import manifests
from topo.cluster.errors import InputError

DATA = Path(__file__).parents[2] / "scenarios" / "data" / "manifests"

SERVICE = """\
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: {tier: front}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: web, nodePort: 30080}
  - {name: dns, port: 53, protocol: UDP}
"""
DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      nodeSelector: {zone: a}
      containers:
      - name: main
        image: nginx
        ports:
        - {name: web, containerPort: 8080}
        - {name: dns, containerPort: 53, protocol: UDP}
        readinessProbe:
          httpGet: {path: /, port: web}
          periodSeconds: 5
      - name: side
        image: busybox
"""
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - {name: c, image: i}\n"
JOB = (
    "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  template:\n    spec:\n"
    "      restartPolicy: Never\n      containers: [{name: c, image: i}]\n"
)
SLICE = (
    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: s}\naddressType: IPv4\n"
    "ports: [{name: a, port: 80}, {name: b, port: 81}]\nendpoints:\n- addresses: [10.0.0.1]\n"
)
STATEFUL = DEPLOYMENT.replace("Deployment", "StatefulSet").replace("replicas: 2", "serviceName: db")
NODE = "apiVersion: v1\nkind: Node\nmetadata: {name: one}\nspec: {taints: [{key: a/b, effect: NoSchedule}]}\n"


def load(text: str) -> manifests.Manifests:
    return manifests.load_text(text, "f.yaml")


def one(text: str) -> dict[str, Any]:
    (thing,) = load(text).objects
    return thing


def error(text: str) -> str:
    with pytest.raises(InputError) as caught:
        load(text)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- what loads ---


def test_online_boutique() -> None:
    found = manifests.load([DATA / "online-boutique.yaml"])
    assert len(found.objects) + len(found.ignored) == 35
    assert Counter(t["kind"] for t in found.objects) == {"Deployment": 12, "Service": 12}
    assert Counter(i.kind for i in found.ignored) == {"ServiceAccount": 11}
    frontend = next(t for t in found.objects if t["kind"] == "Service" and t["metadata"]["name"] == "frontend")
    assert frontend["metadata"]["namespace"] == "default"
    assert frontend["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]


def test_cassandra_and_guestbook() -> None:
    found = manifests.load([DATA / "cassandra.yaml", DATA / "guestbook.yaml"])
    assert Counter(t["kind"] for t in found.objects) == {"StatefulSet": 1, "Deployment": 3, "Service": 4}
    (ignored,) = found.ignored
    assert (ignored.kind, ignored.name) == ("StorageClass", "fast")
    assert ignored.where.startswith(f"{DATA / 'cassandra.yaml'}:")


def test_two_applications_with_one_name_clash() -> None:
    with pytest.raises(InputError, match=r"online-boutique.yaml:\d+.*there twice, first in .*guestbook.yaml:\d+"):
        manifests.load([DATA])


def test_defaults_are_the_api_servers() -> None:
    service, deployment = load(f"{SERVICE}---\n{DEPLOYMENT}").objects
    assert service["spec"]["ports"][0] == {
        "name": "http", "port": 80, "targetPort": "web", "nodePort": 30080, "protocol": "TCP"
    }  # fmt: skip
    assert service["spec"]["ports"][1] == {"name": "dns", "port": 53, "targetPort": 53, "protocol": "UDP"}
    ports = deployment["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert [p["protocol"] for p in ports] == ["TCP", "UDP"]
    assert deployment["metadata"] == {"name": "web", "namespace": "default"}
    assert "namespace" not in one(NODE)["metadata"]


def test_host_network_ports_become_host_ports() -> None:
    thing = one(POD.replace("spec:", "spec:\n  hostNetwork: true").replace("image: i", "ports: [{containerPort: 80}]"))
    assert thing["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "protocol": "TCP", "hostPort": 80}]


def test_lists_empty_documents_and_json() -> None:
    things = {"apiVersion": "v1", "kind": "List", "items": [yaml.safe_load(SERVICE), yaml.safe_load(NODE)]}
    assert [t["kind"] for t in load(json.dumps(things, indent="\t")).objects] == ["Service", "Node"]
    pods = "apiVersion: v1\nkind: PodList\nitems: [{metadata: {name: a}, spec: {containers: [{name: c}]}}]"
    assert one(pods)["kind"] == "Pod"
    for empty in ("", "---\n---\n# nothing\n", "apiVersion: v1\nkind: List\n"):
        assert load(empty) == manifests.Manifests((), ())
    assert len(load(f"---\n---\n{POD}---\n").objects) == 1


def test_other_kinds_are_ignored_but_counted() -> None:
    found = load(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n---\napiVersion: serving.knative.dev/v1\nkind: Service\n"
    )
    assert found == manifests.Manifests(
        (), (manifests.Ignored("ConfigMap", "c", "f.yaml:1"), manifests.Ignored("Service", "", "f.yaml:5"))
    )


def test_a_caller_may_add_kinds() -> None:
    budget = "apiVersion: policy/v1\nkind: PodDisruptionBudget\nmetadata: {name: p}\nspec: {maxUnavailable: 1}\n"
    kinds = {"PodDisruptionBudget": "policy/v1"}
    assert load(budget).ignored[0].kind == "PodDisruptionBudget"
    assert manifests.load_text(budget, "f", kinds).objects[0]["metadata"]["namespace"] == "default"
    with pytest.raises(InputError, match="unknown field 'maxUnavailble'; expected maxUnavailable"):
        manifests.load_text(budget.replace("Unavailable", "Unavailble"), "f", kinds)


def test_nulls_are_absent_fields() -> None:
    text = SERVICE.replace("labels: {tier: front}", "labels: {tier: }\n  annotations:")
    thing = one(text.replace("targetPort: web", "targetPort: "))
    assert thing["metadata"] == {"name": "web", "namespace": "default", "labels": {"tier": ""}}
    assert thing["spec"]["ports"][0]["targetPort"] == 80


def test_aliases_are_copied_apart() -> None:
    a, b = load(
        "apiVersion: v1\nkind: List\nitems:\n"
        "- &x {apiVersion: v1, kind: Namespace, metadata: {name: a, labels: &l {k: v}}}\n"
        "- {<<: *x, metadata: {name: b, labels: *l}}\n"
    ).objects
    a["metadata"]["labels"]["k"] = "changed"
    assert b == {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b", "labels": {"k": "v"}}}


def test_folder_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "b.yml").write_text(POD)
    (tmp_path / "a.json").write_text(json.dumps(yaml.safe_load(NODE)))
    (tmp_path / "c.txt").write_text("{")
    assert [t["kind"] for t in manifests.load([tmp_path]).objects] == ["Node", "Pod"]


# --- what does not ---

Edit = tuple[str, str, str]

# fmt: off
SERVICE_ERRORS: list[Edit] = [
    ("port: 80,", "port: 0,", "f.yaml:10: document 1, spec.ports[0].port: 0 is no port; expected 1 to 65535"),
    ("port: 80,", "port: 65536,", "65536 is no port"),
    ("port: 80,", 'port: "80",', "spec.ports[0].port: '80' is wrong; expected an integer"),
    ("port: 80,", "prot: 80,", "spec.ports[0].prot: unknown field 'prot'; expected port"),
    ("port: 80,", "", "spec.ports[0].port: the field is missing; expected an integer"),
    ("port: 80,", "port: 99999999999,", "expected an integer of 32 bits"),
    ("name: dns", "name: http", "spec.ports[1].name: the name 'http' is taken by ports[0]"),
    ("name: dns, ", "", "spec.ports[1].name: the port has no name; expected a name for each of several ports"),
    ("name: dns", "name: D", "'D' is no port's name"),
    ("port: 53, protocol: UDP", "port: 80", "f.yaml:11: document 1, spec.ports[1].port: the port '80/TCP' is taken"),
    ("protocol: UDP", "protocol: ICMP", "unknown protocol 'ICMP'; expected one of TCP, UDP, SCTP"),
    ("protocol: UDP", "nodePort: 30080", "the node port '30080/TCP' is taken"),
    ("nodePort: 30080", "nodePort: 8080", "8080 is out of range; expected 30000 to 32767"),
    ("type: NodePort", "type: ClusterIP", "a ClusterIP Service has no node ports"),
    ("type: NodePort", "type: Nodeport", "f.yaml:7: document 1, spec.type: unknown type 'Nodeport'"),
    ("type: NodePort", "type: NodePort\n  clusterIP: None", "a NodePort Service cannot be headless"),
    ("type: NodePort", "type: NodePort\n  clusterIP: 10.0.0",
     "'10.0.0' is no IPv4 address; expected an IPv4 address, \"None\""),
    ("type: NodePort", "type: NodePort\n  clusterIP: fd00::1", "'fd00::1' is no IPv4 address"),
    ("type: NodePort", "type: NodePort\n  clusterIPs: [10.0.0.1]", "'10.0.0.1' differs from clusterIP"),
    ("type: NodePort", "type: NodePort\n  externalIPs: [x]", "spec.externalIPs[0]: 'x' is no IPv4 address"),
    ("type: NodePort", "type: NodePort\n  loadBalancerSourceRanges: [10.0.0.1]", "'10.0.0.1' is no CIDR"),
    ("type: NodePort", "type: NodePort\n  sessionAffinity: Client", "unknown sessionAffinity 'Client'"),
    ("type: NodePort", "type: NodePort\n  sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}",
     "0 is out of range; expected 1 to 86400"),
    ("type: NodePort", "type: NodePort\n  externalTrafficPolicy: local", "unknown externalTrafficPolicy 'local'"),
    ("type: NodePort", "type: ExternalName", "spec.externalName: '' is no DNS name"),
    ("targetPort: web", "targetPort: a-name-too-long-for-a-port", "'a-name-too-long-for-a-port' is no port's name"),
    ("targetPort: web", "targetPort: 70000", "spec.ports[0].targetPort: 70000 is no port"),
    ("targetPort: web", "targetPort: [1]", "[1] is wrong; expected a string or an integer"),
    ("selector: {app: web}", "selector: {app: -web}", "spec.selector.app: '-web' is no label value"),
    ("selector: {app: web}", "selector: {app: 1}", "1 is wrong; expected a string (in quotes)"),
    ("  - {name: http, port: 80, targetPort: web, nodePort: 30080}", "  - null", "spec.ports[0]: null in a list"),
    ("name: web\n", "name: 1web\n",
     "f.yaml:4: document 1, metadata.name: '1web' is no name for a Service; expected at most 63"),
    ("name: web\n", f"name: {'w' * 64}\n", "RFC 1035"),
    ("name: web\n", "generateName: web-\n", "generateName makes up no name here; expected a name"),
    ("name: web\n", "name: web\n  namespace: a.b\n", "'a.b' is no namespace's name"),
    ("tier: front", "tier: a b", "metadata.labels.tier: 'a b' is no label value"),
    ("tier: front", "a/b/c: front", "metadata.labels[a/b/c]: 'a/b/c' is no key"),
    ("kind: Service", "kind: service", "unknown kind 'service'; expected Service"),
    ("kind: Service", "kind: [a]", "['a'] is no kind; expected a string"),
    ("apiVersion: v1\n", "", "apiVersion is missing; expected a string, as v1"),
    ("apiVersion: v1\n", "apiVersion: apps/v1\n", "apiVersion: 'apps/v1' has no Service; expected v1"),
    ("spec:", "spce:", "f.yaml:6: document 1, spce: unknown field 'spce'; expected spec"),
]
DEPLOYMENT_ERRORS: list[Edit] = [
    ("apps/v1", "extensions/v1beta1", "'extensions/v1beta1' has no Deployment; expected apps/v1"),
    ("replicas: 2", "replicas: -1", "spec.replicas: -1 is negative"),
    ("replicas: 2", "replica: 2", "unknown field 'replica'; expected replicas"),
    ("replicas: 2", "strategy: {type: Rolling}", "spec.strategy.type: unknown type 'Rolling'"),
    ("  selector: {matchLabels: {app: web}}\n", "", "spec.selector: the field is missing; expected a mapping"),
    ("{matchLabels: {app: web}}", "{}", "spec.selector: the Deployment selects no labels"),
    ("{matchLabels: {app: web}}", "{matchLabels: {app: api}}", "f.yaml:8: document 1, spec.template.metadata.labels"),
    ("{matchLabels: {app: web}}", "{matchExpressions: [{key: app, operator: Is}]}", "unknown operator 'Is'; expected"),
    ("{matchLabels: {app: web}}", "{matchExpressions: [{key: app, operator: In}]}", "does not fit operator 'In'"),
    ("{matchLabels: {app: web}}", "{matchExpressions: [{key: -, operator: Exists}]}", "'-' is no key"),
    ("containers:", "contaners:", "spec.template.spec.contaners: unknown field 'contaners'; expected containers"),
    ("name: side", "name: main", "spec.template.spec.containers[1].name: the name 'main' is taken"),
    ("name: side", "name: Side", "'Side' is no container's name"),
    ("containerPort: 8080", "containerPort: 0", "f.yaml:15: document 1, spec.template.spec.containers[0].ports[0].con"),
    ("containerPort: 8080", "containerPort: http", "ports[0].containerPort: 'http' is wrong; expected an integer"),
    ("containerPort: 8080", "containerPort: 80, hostIP: x", "'x' is no IP address"),
    ("containerPort: 8080", "containerPort: 80, hostPort: 70000", "hostPort: 70000 is no port"),
    ("containerPort: 53", "protocol: UDP, containerPort: 5, hostPort: 9}\n        - {containerPort: 9, hostPort: 9",
     "host port 9/UDP is taken"),
    ("name: dns", "name: web", "containers[0].ports[1].name: the name 'web' is taken by ports[0]"),
    ("name: dns", "name: '53'", "'53' is no port's name; expected at most 15"),
    ("protocol: UDP", "protocol: udp", "unknown protocol 'udp'"),
    ("port: web}", "port: 0}", "readinessProbe.httpGet.port: 0 is no port"),
    ("port: web}", "port: web}\n          tcpSocket: {port: 1}", "the probe has httpGet and tcpSocket"),
    ("          httpGet: {path: /, port: web}\n", "", "the probe has no handler"),
    ("path: /,", "scheme: ftp,", "unknown scheme 'ftp'"),
    ("periodSeconds: 5", "periodSeconds: -5", "-5 is negative"),
    ("zone: a", "zone: a/b", "spec.template.spec.nodeSelector.zone: 'a/b' is no label value"),
    ("nodeSelector:", "restartPolicy: Never\n      nodeSelector:", "'Never' cannot be the policy of a Deployment"),
    ("nodeSelector:", "hostname: a.b\n      nodeSelector:", "'a.b' is no hostname"),
    ("nodeSelector:", "dnsPolicy: Cluster\n      nodeSelector:", "unknown dnsPolicy 'Cluster'"),
    ("nodeSelector:", "hostAliases: [{ip: x}]\n      nodeSelector:", "hostAliases[0].ip: 'x' is no IP address"),
    ("nodeSelector:", "tolerations: [{operator: Is}]\n      nodeSelector:", "unknown operator 'Is'"),
]
OTHER_ERRORS: list[tuple[str, str, str, str]] = [
    (DEPLOYMENT.replace("nodeS", "hostNetwork: true\n      nodeS"), "8080}", "8080, hostPort: 1}",
     "hostPort: differs from containerPort on the host's network"),
    (POD, "  containers:\n  - {name: c, image: i}", "  containers: []", "spec.containers: there are no containers"),
    (POD, "metadata: {name: p}", "metadata: {generateName: p-}", "metadata.name: generateName makes up no name here"),
    (POD, "metadata: {name: p}", "metadata: {name: A}", "'A' is no name for a Pod; expected at most 253"),
    (POD, "metadata: {name: p}", "", "metadata.name: the Pod has no name"),
    (POD, "metadata: {name: p}", "metadata: 1", "metadata: 1 is wrong; expected a mapping"),
    (JOB, "restartPolicy: Never", "dnsPolicy: Default",
     "'Always' cannot be the policy of a Job; expected Never or OnFailure"),
    (STATEFUL, "serviceName: db", "serviceName: d.b", "'d.b' is no Service's name"),
    (STATEFUL, "serviceName: db", "podManagementPolicy: Par", "unknown podManagementPolicy 'Par'"),
    (STATEFUL, "metadata: {name: web}", "metadata: {name: w.b}", "'w.b' is no name for a StatefulSet"),
    (SLICE, "IPv4", "IPv5", "unknown addressType 'IPv5'"),
    (SLICE, "10.0.0.1", "10.0.0.256", "endpoints[0].addresses[0]: '10.0.0.256' is no IPv4 address"),
    (SLICE, "[10.0.0.1]", "[]", "0 addresses; expected 1 to 100"),
    (SLICE, "name: b", "name: a", "ports[1].name: the name 'a' is taken"),
    (SLICE, "port: 80", "port: 0", "ports[0].port: 0 is no port"),
    (NODE, "metadata: {name: one}", "metadata: {name: one, namespace: a}", "a Node is in no namespace"),
    (NODE, "NoSchedule", "Never", "unknown effect 'Never'"),
    (NODE, "taints:", "podCIDR: 10.0.0.0, taints:", "'10.0.0.0' is no CIDR"),
    (POD, POD, f"{POD}---\n{POD}",
     "f.yaml:10: document 2, metadata.name: Pod default/p is there twice, first in f.yaml:1"),
    (POD, POD, "- 1", "f.yaml:1: document 1: [1] is no object"),
    (POD, POD, "hello", "'hello' is no object"),
    (POD, POD, "apiVersion: v1\nkind: List\nitems: {}", "items: {} is no list"),
    (POD, POD, "apiVersion: v1\nkind: List\nitems: [1]", "items[0]: 1 is no object"),
]
# fmt: on


@pytest.mark.parametrize(("old", "new", "expected"), SERVICE_ERRORS)
def test_service_errors(old: str, new: str, expected: str) -> None:
    assert old in SERVICE
    assert expected in error(SERVICE.replace(old, new))


@pytest.mark.parametrize(("old", "new", "expected"), DEPLOYMENT_ERRORS)
def test_deployment_errors(old: str, new: str, expected: str) -> None:
    assert old in DEPLOYMENT
    assert expected in error(DEPLOYMENT.replace(old, new))


@pytest.mark.parametrize(("text", "old", "new", "expected"), OTHER_ERRORS, ids=[e[3][:40] for e in OTHER_ERRORS])
def test_other_errors(text: str, old: str, new: str, expected: str) -> None:
    assert old in text
    assert expected in error(text.replace(old, new))


def test_headless_and_external_name_need_no_ports() -> None:
    head = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: "
    assert one(head + "{clusterIP: None}")["spec"]["type"] == "ClusterIP"
    assert one(head + "{type: ExternalName, externalName: example.org.}")
    assert "spec.ports: the Service has no ports" in error(head + "{}")
    assert "an ExternalName Service has no cluster IP" in error(
        head + "{type: ExternalName, externalName: a, clusterIP: 1.1.1.1}"
    )


def test_a_folder_without_manifests(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the folder has no manifests; expected"):
        manifests.load([tmp_path])


def test_place_is_the_one_in_the_list_item() -> None:
    good = "- {apiVersion: v1, kind: Namespace, metadata: {name: a}}\n"
    text = f"---\napiVersion: v1\nkind: List\nitems:\n{good}- apiVersion: v1\n  kind: Pod\n"
    assert error(text).startswith("f.yaml:6: document 1, items[1].metadata.name: ")


# --- whatever comes ---

TEXTS = [*(f.read_text() for f in sorted(DATA.glob("*.yaml"))), SERVICE, DEPLOYMENT, JOB, SLICE, NODE, STATEFUL]
DOCUMENTS: list[Any] = [d for text in TEXTS for d in yaml.safe_load_all(text) if d and d["kind"] in manifests.KINDS]
ODD = st.sampled_from(
    [None, "", "a b", "None", -1, 0, 2**31, 2**64, 1.5, True, [], {}, [None], {"a": None}, "é", "x" * 300]
)
JSON = st.recursive(
    ODD | st.integers() | st.text(max_size=8),
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=5), s),
)
NOISE = [
    "\t", "  ", ":", "- ", "&a ", "*a", "<<: ", "{", "[", "]", "!t ", "'", '"', "---\n", "\x00", "\ud800", "\n", "é",
]  # fmt: skip


def spots(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a tree."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [spot for key in keys for spot in spots(value[key])]


@st.composite
def mutants(draw: st.DrawFn) -> str:
    """Real documents with fields deleted, renamed and replaced, or with their text damaged."""
    if draw(st.booleans()):
        text = draw(st.sampled_from(TEXTS))[: draw(st.integers(200, 3000))]
        for _ in range(draw(st.integers(0, 4))):
            at = draw(st.integers(0, len(text)))
            text = text[:at] + draw(st.sampled_from(NOISE)) + text[at + draw(st.integers(0, 10)) :]
        return text
    thing = copy.deepcopy(draw(st.sampled_from(DOCUMENTS)))
    for _ in range(draw(st.integers(1, 4))):
        found = spots(thing)
        if not found:
            break
        container, key = draw(st.sampled_from(found))
        what = draw(st.sampled_from(["delete", "replace", "rename", "swap"]))
        if what == "replace":
            container[key] = copy.deepcopy(draw(JSON))  # a drawn value is shared between examples
        elif what == "swap":
            container[key] = copy.deepcopy(draw(st.sampled_from([c[k] for c, k in found])))
        else:
            value = container.pop(key)
            if what == "rename" and isinstance(container, dict):
                container[draw(st.text(max_size=8))] = value
    return json.dumps(thing, ensure_ascii=False) if draw(st.booleans()) else str(yaml.safe_dump(thing))


@settings(max_examples=500, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(mutants())
def test_a_damaged_manifest_loads_or_is_an_input_error(text: str) -> None:
    try:
        found = load(text)
    except InputError as caught:
        assert str(caught).startswith("f.yaml")
    else:
        for thing in found.objects:
            assert thing["metadata"]["name"]
            json.dumps(thing)
