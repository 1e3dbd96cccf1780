"""Objects become the model: every kind of selector, peer and port, and what the APIs default."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import policy_world
import pytest

from controllers.flow.fields import ip_number
from controllers.policy import read
from controllers.policy.evaluate import Cluster, End, Verdict, judge
from controllers.policy.model import NAME_LABEL, Block, NamedPort, Pod, Policy

A = Pod("x/a", {"app": "a", "tier": "front"}, ip_number("10.244.1.2"), "node-1", (NamedPort("web", "TCP", 80),))
B = Pod("x/b", {"app": "b"}, ip_number("10.244.1.3"), "node-1", (NamedPort("web", "TCP", 8080),))
C = Pod("y/c", {"app": "c"}, ip_number("10.244.2.2"), "node-2", (NamedPort("dns", "UDP", 53),))
HOST = Pod("x/host", {"app": "a"}, ip_number("172.18.0.2"), "node-1", host_network=True)
NODE_1, NODE_2 = End(ip_number("172.18.0.2"), None, "node-1"), End(ip_number("172.18.0.3"), None, "node-2")
WORLD = End(ip_number("203.0.113.9"))
NAMESPACES = {"x": {"team": "one", NAME_LABEL: "x"}, "y": {NAME_LABEL: "y"}}


def policy(spec: dict[str, Any], kind: str = "NetworkPolicy", name: str = "p") -> Policy:
    found = read.policy(policy_world.policy(kind, name, **spec))
    assert found is not None
    return found


def cluster(*policies: Policy) -> Cluster:
    pods = {p.key: p for p in (A, B, C, HOST)}
    return Cluster(NAMESPACES, pods, policies, {NODE_1.ip: "node-1", NODE_2.ip: "node-2"})


def ask(policies: list[Policy], source: Pod | End, target: Pod | End, where: str = "TCP/80") -> Verdict:
    protocol, _, port = where.partition("/")
    ends = [e if isinstance(e, End) else End(e.ip, e) for e in (source, target)]
    return judge(cluster(*policies), ends[0], ends[1], protocol, int(port))


def from_(*peers: Any, **more: Any) -> Policy:
    return policy({"podSelector": {}, "ingress": [{"from": list(peers), **more}]})


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ({}, "abc"),
        ({"matchLabels": {"app": "a"}}, "a"),
        ({"matchLabels": {"app": "a", "tier": "back"}}, ""),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a", "c"]}]}, "ac"),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["a"]}]}, "bc"),
        ({"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["front"]}]}, "bc"),
        ({"matchExpressions": [{"key": "tier", "operator": "Exists"}]}, "a"),
        ({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}, "bc"),
        (
            {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "tier", "operator": "In", "values": ["front"]}]},
            "a",
        ),
    ],
)
def test_every_kind_of_selector(selector: dict[str, Any], chosen: str) -> None:
    found = read.selector(selector)
    assert "".join(p.labels["app"] for p in (A, B, C) if found.matches(p.labels)) == chosen


def test_an_unknown_operator_is_an_error() -> None:
    with pytest.raises(ValueError, match="Near"):
        read.selector({"matchExpressions": [{"key": "a", "operator": "Near"}]}).matches({})


def test_a_pod_selector_alone_means_the_policys_own_namespace() -> None:
    assert ask([from_({"podSelector": {}})], A, B).allowed
    assert not ask([from_({"podSelector": {}})], C, B).allowed


def test_both_selectors_together_must_both_hold_and_apart_either() -> None:
    spaces, pods = {"matchLabels": {NAME_LABEL: "y"}}, {"matchLabels": {"app": "a"}}
    assert not ask([from_({"namespaceSelector": spaces, "podSelector": pods})], C, B).allowed
    assert not ask([from_({"namespaceSelector": spaces, "podSelector": pods})], A, B).allowed
    either = from_({"namespaceSelector": spaces}, {"podSelector": pods})
    assert ask([either], C, B).allowed and ask([either], A, B).allowed


def test_an_empty_namespace_selector_is_every_pod_and_nobody_outside() -> None:
    assert ask([from_({"namespaceSelector": {}})], C, B).allowed
    assert not ask([from_({"namespaceSelector": {}})], WORLD, B).allowed
    assert not ask([from_({"namespaceSelector": {}})], NODE_2, B).allowed


def test_an_address_block_less_its_exceptions() -> None:
    block = {"ipBlock": {"cidr": "203.0.113.0/24", "except": ["203.0.113.8/30"]}}
    assert not ask([from_(block)], WORLD, B).allowed
    assert ask([from_(block)], End(WORLD.ip + 4), B).allowed
    assert not ask([from_(block)], End(WORLD.ip + 256), B).allowed
    found = Block(("203.0.113.0/24",), ("203.0.113.8/30",)).covering()
    assert sum(IPv4Network(n).num_addresses for n in found) == 252
    assert Block(("10.0.0.0/8", "10.1.0.0/16"), ("0.0.0.0/0",)).covering() == ()


@pytest.mark.parametrize(
    ("ports", "allowed"),
    [
        ([{}], {"TCP/1", "TCP/80", "TCP/8080", "TCP/65535"}),
        ([{"port": 80}], {"TCP/80"}),
        ([{"protocol": "UDP", "port": 53}], {"UDP/53"}),
        ([{"protocol": "SCTP"}], {"SCTP/80"}),
        ([{"port": 80, "endPort": 8080}], {"TCP/80", "TCP/8080"}),
        ([{"port": "web"}], {"TCP/8080"}),
        ([{"port": "web", "protocol": "UDP"}], set()),
        ([{"port": 1}, {"protocol": "UDP"}], {"TCP/1", "UDP/53"}),
    ],
)
def test_ports(ports: list[dict[str, Any]], allowed: set[str]) -> None:
    every = ("TCP/1", "TCP/80", "TCP/8080", "TCP/65535", "UDP/53", "SCTP/80", "ICMP/0")
    assert {p for p in every if ask([from_(ports=ports)], A, B, p).allowed} == allowed
    # The same towards B, said of those who ask; a name is always the destination's.
    to = policy({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"ports": ports}]})
    assert {p for p in every if ask([to], A, B, p).allowed} == allowed


def test_rules_without_ports_allow_icmp_too() -> None:
    assert ask([from_({"podSelector": {}})], A, B, "ICMP/0").allowed


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"ingress": []}, True, False),
        ({"egress": [{}]}, True, True),
        ({"egress": []}, True, False),
        ({"policyTypes": ["Egress"]}, False, True),
        ({"policyTypes": ["Ingress"], "egress": [{}]}, True, False),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, False, True),
    ],
)
def test_policy_types_and_their_defaults(spec: dict[str, Any], ingress: bool, egress: bool) -> None:
    found = policy({"podSelector": {}, **spec})
    assert (found.ingress is not None, found.egress is not None) == (ingress, egress)


def test_policies_add_up_and_both_ends_must_allow() -> None:
    deny = policy({"podSelector": {}}, name="deny")
    allow = policy({"podSelector": {"matchLabels": {"app": "b"}}, "ingress": [{}]}, name="allow")
    assert ask([deny, allow], A, B).allowed and not ask([deny, allow], B, A).allowed
    shut = policy({"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"]}, name="shut")
    verdict = ask([deny, allow, shut], A, B)
    assert not verdict.allowed and verdict.ingress.allowed and verdict.egress.policy == "NetworkPolicy x/shut"
    assert verdict.ingress.policy == "NetworkPolicy x/allow" and verdict.ingress.rule == 0
    assert verdict.ingress.selected_by == ("NetworkPolicy x/deny", "NetworkPolicy x/allow")


def test_itself_its_node_and_the_host_network() -> None:
    deny = policy({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})
    assert ask([deny], A, A).allowed
    assert ask([deny], NODE_1, A).allowed and ask([deny], A, NODE_1).allowed
    assert not ask([deny], NODE_2, A).allowed and not ask([deny], A, NODE_2).allowed
    # A pod on the host's network is its node: not selected, and no peer by its labels.
    assert ask([deny], End(HOST.ip, HOST, "node-1"), NODE_2).allowed
    only_a = policy({"podSelector": {}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]})
    other = Pod("x/host", {"app": "a"}, NODE_2.ip, "node-2", host_network=True)
    assert not ask([only_a], End(other.ip, other, "node-2"), A).allowed


def test_admin_rules_come_first_in_order_and_pass_on() -> None:
    subject = {"namespaces": {"matchLabels": {NAME_LABEL: "x"}}}
    from_y = {"from": [{"namespaces": {"matchLabels": {NAME_LABEL: "y"}}}]}

    def admin(name: str, priority: int, action: str) -> Policy:
        rules = [{"name": name, "action": action, **from_y}]
        spec = {"priority": priority, "subject": subject, "ingress": rules}
        return policy(spec, "AdminNetworkPolicy", name)

    baseline = policy(
        {"subject": subject, "ingress": [{"action": "Deny", **from_y}]}, "BaselineAdminNetworkPolicy", "default"
    )
    shut = policy({"podSelector": {}}, name="shut")
    assert not ask([admin("late", 9, "Allow"), admin("early", 3, "Deny")], C, B).allowed
    assert ask([admin("late", 9, "Deny"), admin("early", 3, "Allow"), shut, baseline], C, B).allowed
    assert not ask([admin("late", 9, "Allow"), admin("early", 3, "Pass"), shut], C, B).allowed
    assert ask([admin("late", 9, "Deny"), admin("early", 3, "Pass")], C, B).allowed
    assert not ask([admin("early", 3, "Pass"), baseline], C, B).allowed
    # What a NetworkPolicy says leaves nothing to the baseline; where no rule speaks, nothing is isolated.
    assert ask([from_(), baseline], C, B).allowed and ask([baseline], A, B).allowed


def test_admin_ports_and_networks() -> None:
    def egress(**rule: Any) -> Policy:
        spec = {
            "priority": 1,
            "subject": {"pods": {"namespaceSelector": {}, "podSelector": {}}},
            "egress": [{"action": "Deny", **rule}],
        }
        return policy(spec, "AdminNetworkPolicy", "a")

    everybody = {"networks": ["0.0.0.0/0"]}
    assert not ask([egress(to=[everybody])], A, WORLD).allowed
    one = egress(to=[everybody], ports=[{"portNumber": {"protocol": "UDP", "port": 53}}])
    assert not ask([one], A, C, "UDP/53").allowed and ask([one], A, C, "TCP/53").allowed
    many = egress(to=[everybody], ports=[{"portRange": {"protocol": "TCP", "start": 8000, "end": 8999}}])
    assert not ask([many], A, B, "TCP/8080").allowed and ask([many], A, B, "TCP/80").allowed
    named = egress(
        to=[{"pods": {"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "b"}}}}],
        ports=[{"namedPort": "web"}],
    )
    assert not ask([named], A, B, "TCP/8080").allowed and ask([named], A, B, "TCP/80").allowed


def test_pods_and_namespaces_as_they_stand_in_the_store() -> None:
    thing = {
        "metadata": {"name": "a", "namespace": "x", "labels": {"app": "a"}},
        "spec": {
            "nodeName": "n",
            "containers": [
                {"name": "c", "ports": [{"name": "web", "containerPort": 80}, {"containerPort": 81}]},
                {"name": "d", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]},
            ],
        },
        "status": {"podIP": "10.244.1.2", "phase": "Running"},
    }
    found = read.pod(thing)
    assert (found.key, found.ip, found.node, found.host_network) == ("x/a", A.ip, "n", False)
    assert found.ports == (NamedPort("web", "TCP", 80), NamedPort("dns", "UDP", 53))
    thing["status"] = {"podIP": "10.244.1.2", "phase": "Succeeded"}
    assert read.pod(thing).ip == 0
    assert read.namespace_labels("x", None) == {NAME_LABEL: "x"}
    assert read.policy({"apiVersion": "v1", "kind": "Pod"}) is None
