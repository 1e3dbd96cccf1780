"""Policies in manifests: what is taken, what is filled in, and one clear line for each mistake."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from policy_world import policy

from scenarios.netpol.cases import load
from topo import manifests
from topo.cluster.errors import InputError

Object = dict[str, Any]
DATA = Path(__file__).parents[1] / "data" / "policy"
GOOD = policy(
    podSelector={"matchLabels": {"app": "a"}},
    ingress=[
        {
            "from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
            "ports": [{"port": 80, "endPort": 90}],
        }
    ],
)
SUBJECT = {"pods": {"namespaceSelector": {}, "podSelector": {}}}
ADMIN = policy(
    "AdminNetworkPolicy",
    priority=5,
    subject=SUBJECT,
    ingress=[{"name": "r", "action": "Pass", "from": [{"namespaces": {}}], "ports": [{"namedPort": "web"}]}],
    egress=[{"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}], "ports": [{"portRange": {"start": 1, "end": 2}}]}],
)
BASELINE = policy(
    "BaselineAdminNetworkPolicy", "default", subject=SUBJECT, ingress=[{"action": "Deny", "from": [SUBJECT]}]
)


def loaded(thing: Object) -> Object:
    return manifests.load_text(json.dumps(thing), "f.yaml").objects[0]


def edited(thing: Object, path: str, value: Any) -> Object:
    """A copy with a field set; path: keys and indices with slashes between."""
    new = at = copy.deepcopy(thing)
    *steps, last = [int(s) if s.isdigit() else s for s in path.split("/")]
    for step in steps:
        at = at[step]  # type: ignore[index]
    at[last] = value  # type: ignore[index]
    return new


def test_every_policy_of_the_cases_is_taken() -> None:
    every = [p for f in sorted(DATA.rglob("*.json")) for c in load(f) for s in c.steps for p in s.policies]
    every = [p for p in every if "${" not in str(p)]
    assert len(every) > 300
    for one in every:
        assert loaded(one)["metadata"]["name"] == one["metadata"]["name"]


def test_defaults_are_filled_in() -> None:
    spec = loaded(GOOD)["spec"]
    assert spec["policyTypes"] == ["Ingress"] and spec["ingress"][0]["ports"][0]["protocol"] == "TCP"
    assert loaded(edited(GOOD, "spec/egress", [{}]))["spec"]["policyTypes"] == ["Ingress", "Egress"]
    admin = loaded(ADMIN)
    assert "namespace" not in admin["metadata"]
    assert admin["spec"]["egress"][0]["ports"][0]["portRange"]["protocol"] == "TCP"
    assert loaded(BASELINE)


PORT, RULE = "spec/ingress/0/ports/0", "spec/ingress/0"
MISTAKES = [
    (GOOD, "spec/podSelectr", {}, "spec.podSelectr: unknown field"),
    (GOOD, "spec/policyTypes", ["Both"], "spec.policyTypes[0]: unknown policy type 'Both'; expected one of Ingress"),
    (GOOD, "spec/podSelector/matchLabels/app", "-", "spec.podSelector.matchLabels.app: '-' is no label value"),
    (
        GOOD,
        "spec/podSelector/matchExpressions",
        [{"key": "a", "operator": "Near"}],
        "spec.podSelector.matchExpressions[0].operator: unknown operator",
    ),
    (GOOD, f"{PORT}/protocol", "ICMP", "spec.ingress[0].ports[0].protocol: unknown protocol 'ICMP'"),
    (GOOD, f"{PORT}/port", 70000, "spec.ingress[0].ports[0].port: 70000 is no port"),
    (GOOD, f"{PORT}/port", "Web", "spec.ingress[0].ports[0].port: 'Web' is no port's name"),
    (GOOD, f"{PORT}/endPort", 79, "spec.ingress[0].ports[0].endPort: 79 is no end of a range from 80"),
    (GOOD, PORT, {"port": "web", "endPort": 90}, "endPort: is there without a port's number"),
    (GOOD, PORT, {"endPort": 90}, "endPort: is there without a port's number"),
    (GOOD, f"{RULE}/from/0", {}, "spec.ingress[0].from[0]: the peer says nothing"),
    (GOOD, f"{RULE}/from/1/podSelector", {}, "spec.ingress[0].from[1].ipBlock: is there beside podSelector"),
    (GOOD, f"{RULE}/from/1/ipBlock/cidr", "10.0.0.0", "ipBlock.cidr: '10.0.0.0' is no CIDR"),
    (GOOD, f"{RULE}/from/1/ipBlock/except/0", "11.0.0.0/16", "except[0]: 11.0.0.0/16 is no part of 10.0.0.0/8"),
    (GOOD, f"{RULE}/from/1/ipBlock/except/0", "10.0.0.0/8", "except[0]: 10.0.0.0/8 is no part of 10.0.0.0/8"),
    (ADMIN, "spec/priority", 1001, "spec.priority: 1001 is out of range; expected 0 to 1000"),
    (ADMIN, "spec/subject", {}, "spec.subject: has nothing; expected one of namespaces, pods"),
    (ADMIN, f"{RULE}/action", "Log", "spec.ingress[0].action: unknown action 'Log'"),
    (ADMIN, f"{RULE}/from", [], "spec.ingress[0].from: the rule has no peers"),
    (ADMIN, f"{RULE}/from/0", {}, "spec.ingress[0].from[0]: has nothing"),
    (ADMIN, f"{RULE}/from/0/networks", ["0.0.0.0/0"], "spec.ingress[0].from[0].networks: unknown field"),
    (ADMIN, "spec/egress/0/to/0", {"nodes": {}}, "spec.egress[0].to[0].nodes: is experimental and not enforced"),
    (ADMIN, "spec/egress/0/to/0/networks/0", "all", "networks[0]: 'all' is no CIDR"),
    (ADMIN, "spec/egress/0/ports/0/portRange/end", 1, "portRange.end: 1 is not after 1"),
    (ADMIN, f"{PORT}", {"portNumber": {"port": 0}}, "portNumber.port: 0 is no port"),
    (ADMIN, "metadata/namespace", "x", "metadata.namespace: a AdminNetworkPolicy is in no namespace"),
    (BASELINE, "metadata/name", "mine", "metadata.name: 'mine' is no name for a BaselineAdminNetworkPolicy"),
    (BASELINE, f"{RULE}/action", "Pass", "spec.ingress[0].action: unknown action 'Pass'"),
    (BASELINE, "spec/priority", 1, "spec.priority: unknown field"),
]


@pytest.mark.parametrize(("thing", "path", "value", "said"), MISTAKES)
def test_a_mistake_is_one_line_with_its_place(thing: Object, path: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(edited(thing, path, value))
    text = str(caught.value)
    assert "\n" not in text and said in text and text.startswith("f.yaml:")
