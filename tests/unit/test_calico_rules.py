"""Calico's objects in manifests: what is taken, what is filled in, and one clear line for each mistake."""

from __future__ import annotations

from typing import Any

import pytest
from policy_world import policy
from test_policy_rules import edited, loaded

from controllers.policy.clauses import MOST_LOGS
from scenarios.lab import policies
from topo import manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Store

Object = dict[str, Any]
GOOD = policy(
    "NetworkPolicy.projectcalico.org",
    tier="default",
    order=10.5,
    selector="role == 'web' && !has(canary)",
    ingress=[
        {
            "action": "Allow",
            "protocol": "TCP",
            "source": {"nets": ["10.0.0.0/8", "10.0.0.1", "2001:db8::/32"], "notSelector": "app in {'a'}"},
            "destination": {"ports": [80, "90:99", "http"], "notPorts": [95]},
            "metadata": {"annotations": {"from": "anybody"}},
        },
        {
            "action": "Log",
            "protocol": "ICMP",
            "icmp": {"type": 8, "code": 0},
            "source": {"namespaceSelector": "global()"},
        },
        {"action": "Pass", "notProtocol": 47, "ipVersion": 4},
    ],
)
GLOBAL = policy("GlobalNetworkPolicy", namespaceSelector="has(team)", egress=[{"action": "Deny"}], applyOnForward=False)
SET = policy("GlobalNetworkSet", nets=["203.0.113.0/24"])


def test_good_ones_are_taken_and_types_filled_in() -> None:
    assert loaded(GOOD)["spec"]["types"] == ["Ingress"] and loaded(GOOD)["metadata"]["namespace"] == "x"
    assert loaded(GLOBAL)["spec"]["types"] == ["Egress"] and "namespace" not in loaded(GLOBAL)["metadata"]
    assert loaded(policy("GlobalNetworkPolicy"))["spec"]["types"] == ["Ingress"]
    assert loaded(SET) and loaded(policy("NetworkSet", nets=[]))


def test_policies_of_one_name_are_two_objects() -> None:
    store = Store()
    for thing in (GOOD, policy(podSelector={})):
        store.apply(loaded(thing))
    assert len(store.list("NetworkPolicy")) == len(store.list("NetworkPolicy.projectcalico.org")) == 1
    text = "\n---\n".join(map(str, (GOOD, policy(podSelector={}))))
    assert len(manifests.load_text(text, "f.yaml").objects) == 2
    with pytest.raises(InputError, match="is there twice"):
        manifests.load_text("\n---\n".join(map(str, (GOOD, GOOD))), "f.yaml")


RULE = "spec/ingress/0"
MISTAKES = [
    (GOOD, "spec/selectr", "", "spec.selectr: unknown field"),
    (GOOD, "spec/order", "first", "spec.order: 'first' is wrong; expected a number"),
    (GOOD, "spec/tier", "platform", "spec.tier: tier 'platform' is not enforced here; expected default"),
    (GOOD, "spec/serviceAccountSelector", "all()", "spec.serviceAccountSelector: is not enforced here"),
    (GOOD, "spec/selector", "role = 'web'", "spec.selector: \"role = 'web'\" is no selector: at character 6"),
    (GOOD, "spec/selector", "global()", "global() is only for the namespaceSelector of a source or destination"),
    (GOOD, "spec/namespaceSelector", "all()", "spec.namespaceSelector: unknown field"),
    (GOOD, "spec/types", ["Ingress", "Both"], "spec.types[1]: 'Both' is no policy type"),
    (GOOD, "spec/types", ["Ingress", "Ingress"], "spec.types[1]: 'Ingress' is no policy type, or is there twice"),
    (GOOD, f"{RULE}/action", "Drop", "spec.ingress[0].action: unknown action 'Drop'; expected one of Allow, Deny"),
    (GOOD, f"{RULE}/protocol", "IP", "spec.ingress[0].protocol: unknown protocol 'IP'"),
    (GOOD, f"{RULE}/protocol", 256, "spec.ingress[0].protocol: unknown protocol 256"),
    (GOOD, f"{RULE}/protocol", "ICMP", "spec.ingress[0].destination.ports: are there without a protocol"),
    (GOOD, f"{RULE}/icmp", {"type": 8}, "spec.ingress[0].icmp: is there without the protocol"),
    (GOOD, f"{RULE}/ipVersion", 5, "spec.ingress[0].ipVersion: 5 is no version"),
    (GOOD, f"{RULE}/http", {"methods": ["GET"]}, "spec.ingress[0].http: is not enforced here"),
    (GOOD, f"{RULE}/source/nets/0", "10.0.0.0/33", "source.nets[0]: '10.0.0.0/33' is no network"),
    (GOOD, f"{RULE}/source/notSelector", "has(", "source.notSelector: 'has(' is no selector"),
    (GOOD, f"{RULE}/source/ports", ["http"], "source.ports[0]: a port's name is not enforced here in this place"),
    (GOOD, f"{RULE}/source/services", {"name": "web"}, "source.services: is not enforced here"),
    (GOOD, f"{RULE}/source/serviceAccounts", {"selector": "all()"}, "serviceAccounts.selector: is not enforced here"),
    (GOOD, f"{RULE}/destination/ports/1", "99:90", "destination.ports[1]: '99:90' is no port and no range"),
    (GOOD, f"{RULE}/destination/ports/1", "1:2:3", "destination.ports[1]: '1:2:3' is no port and no range"),
    (GOOD, f"{RULE}/destination/ports/1", "Web", "destination.ports[1]: 'Web' is no port's name"),
    (GOOD, f"{RULE}/destination/notPorts/0", "http", "notPorts[0]: a port's name is not enforced here in this place"),
    (GOOD, "spec/ingress/1/icmp", {"code": 1}, "icmp.code: is there without a type"),
    (GOOD, "spec/ingress/1/icmp/type", 255, "icmp.type: 255 is out of range"),
    (GLOBAL, "metadata/namespace", "x", "metadata.namespace: a GlobalNetworkPolicy is in no namespace"),
    (GLOBAL, "spec/preDNAT", True, "spec.preDNAT: is true without applyOnForward"),
    (SET, "spec/nets/0", "example.com", "spec.nets[0]: 'example.com' is no network"),
]


@pytest.mark.parametrize(("thing", "path", "value", "said"), MISTAKES)
def test_a_mistake_is_one_line_with_its_place(thing: Object, path: str, value: Any, said: str) -> None:
    with pytest.raises(InputError) as caught:
        loaded(edited(thing, path, value))
    text = str(caught.value)
    assert "\n" not in text and said in text and text.startswith("f.yaml:")


EVERY = [f"{kind}/{direction}" for kind in policies.KINDS for direction in ("ingress", "egress")]


@pytest.mark.parametrize(
    ("thing", "enforced", "said"),
    [
        (GOOD, EVERY, []),
        (GOOD, ["NetworkPolicy/ingress"], ["the policy has no effect: CNI ovs with proxy mode ovs"]),
        (SET, EVERY, []),
        (SET, ["NetworkPolicy/ingress"], ["the set has no effect: CNI ovs with proxy mode ovs"]),
        (
            policy("GlobalNetworkPolicy", doNotTrack=True, applyOnForward=True),
            EVERY,
            ["the policy has no effect: with doNotTrack it is for host endpoints"],
        ),
    ],
)
def test_what_has_no_effect_is_said(thing: Object, enforced: list[str], said: list[str]) -> None:
    found = list(policies.warnings(loaded(thing), enforced, "ovs", "ovs"))
    assert len(found) == len(said)
    assert all(text.startswith(start) for text, start in zip(found, said, strict=True))


def test_more_log_rules_than_a_packet_can_pass_are_refused() -> None:
    store = Store()
    many = policy("GlobalNetworkPolicy", "many", ingress=[{"action": "Log"}] * MOST_LOGS)
    policies.check(store, [many])
    store.apply(many)
    policies.check(store, [many])
    with pytest.raises(InputError, match=f"makes {MOST_LOGS + 1} ingress rules with action Log"):
        policies.check(store, [policy("GlobalNetworkPolicy", "more", ingress=[{"action": "Log"}])])
