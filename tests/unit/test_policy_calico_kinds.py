"""Calico's policies: what their words mean, and that flows do what the evaluator says of clusters made at random."""

from __future__ import annotations

from typing import Any

import policy_switches
import policy_world
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policy_world import policy

from controllers.flow.fields import ip_number
from controllers.policy import read, read_calico
from controllers.policy.evaluate import Cluster, Decision, End, judge
from controllers.policy.model import NamedPort, Pod
from scenarios.netpol.cases import World
from topo.cluster import selectors
from topo.cluster.selectors import BadSelector

CALICO, GLOBAL = "NetworkPolicy.projectcalico.org", "GlobalNetworkPolicy"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", "abc"),
        ("all()", "abc"),
        ("has(tier)", "ab"),
        ("! has( tier )", "c"),
        ("app == 'a'", "a"),
        ('app!="a"', "bc"),
        ("tier != 'front'", "bc"),
        ("app in {'a', \"c\"}", "ac"),
        ("app in { }", ""),
        ("app not in {'a',}", "bc"),
        ("tier contains 'ro'", "a"),
        ("tier starts with 'ba'", "b"),
        ("tier ends  with 'ck'", "b"),
        ("has(tier) && app == 'a' || app == 'c'", "ac"),
        ("has(tier) && (app == 'a' || app == 'c')", "a"),
        ("!(app == 'a') && !!has(tier)", "b"),
        ("odd.example/k-1 == 'it\"s'", "c"),
        ("not not in {'x'}", "abc"),
    ],
)
def test_selectors(text: str, chosen: str) -> None:
    pods = {
        "a": {"app": "a", "tier": "front"},
        "b": {"app": "b", "tier": "back"},
        "c": {"app": "c", "odd.example/k-1": 'it"s'},
    }
    found = selectors.parse(text)
    assert "".join(name for name, labels in pods.items() if found.matches(labels)) == chosen
    again = selectors.parse(str(found))
    assert [again.matches(labels) for labels in pods.values()] == [found.matches(labels) for labels in pods.values()]


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("app = 'a'", 5, "is no part"),
        ("app == a", 8, "a string in quotes"),
        ("app in {'a'", 12, "}"),
        ("app == 'a' app", 12, "&&, || or the end"),
        ("has()", 5, "a label's key"),
        ("(app == 'a'", 12, ")"),
        ("app", 4, "=="),
        ("app == 'a", 8, "is no part"),
        ("&& app == 'a'", 1, "a label's key"),
    ],
)
def test_a_mistake_in_a_selector_is_named_with_its_place(text: str, place: int, expected: str) -> None:
    with pytest.raises(BadSelector) as caught:
        selectors.parse(text)
    assert f"character {place}:" in str(caught.value) and expected in str(caught.value)


def test_global_is_for_namespace_selectors_alone() -> None:
    with pytest.raises(BadSelector, match="only for the namespaceSelector"):
        selectors.parse("global()")
    named = {"projectcalico.org/name": "x"}
    assert not selectors.parse_namespaces("global()").matches(named)
    assert selectors.parse_namespaces("all()").matches(named) and not selectors.parse_namespaces("all()").matches({})


def pod(key: str, address: str, web: int = 80, **labels: str) -> Pod:
    return Pod(key, labels, ip_number(address), "n", (NamedPort("web", "TCP", web),))


A, B = pod("x/a", "10.244.1.2", app="a", tier="front"), pod("x/b", "10.244.1.3", 8080, app="b")
C = pod("y/c", "10.244.2.2", app="c", tier="front")
WORLD = End(ip_number("203.0.113.9"))
SPACES = {"x": {"team": "one"}, "y": {}}
MADE = [
    policy("NetworkSet", "partners", nets=["203.0.113.0/28"]) | {"metadata": {"name": "partners", "namespace": "x"}},
    policy("GlobalNetworkSet", "world", nets=["203.0.113.9", "2001:db8::/32"]),
]
for made in MADE:
    made["metadata"]["labels"] = {"kind": made["kind"]}


def cluster(*objects: dict[str, Any]) -> Cluster:
    pods = {p.key: p for p in (A, B, C)} | {s.key: s for s in map(read_calico.network_set, MADE)}
    return Cluster(SPACES, pods, [p for o in objects if (p := read.policy(o)) is not None])


def decided(
    objects: list[dict[str, Any]], source: Pod | End, target: Pod | End, where: str = "TCP/80", source_port: int = 40000
) -> tuple[Decision, Decision]:
    protocol, _, port = where.partition("/")
    ends = [e if isinstance(e, End) else End(e.ip, e) for e in (source, target)]
    found = judge(cluster(*objects), ends[0], ends[1], protocol, int(port), source_port)
    return found.egress, found.ingress


def reaching(rule: dict[str, Any], kind: str = CALICO, where: str = "TCP/80", source_port: int = 40000) -> str:
    """Who reaches b if this is the one ingress rule of its policy: a, c, or the world w."""
    one = policy(kind, selector="app == 'b'", ingress=[{"action": "Allow", **rule}])
    who = {"a": A, "c": C, "w": WORLD}
    return "".join(name for name, end in who.items() if decided([one], end, B, where, source_port)[1].allowed)


@pytest.mark.parametrize(
    ("source", "of_namespace", "everywhere"),
    [
        ({}, "acw", "acw"),
        ({"selector": "all()"}, "aw", "acw"),  # network sets, too: of a NetworkPolicy those of its namespace
        ({"selector": "has(tier)"}, "a", "ac"),
        ({"selector": "has(tier)", "namespaceSelector": "all()"}, "ac", "ac"),
        ({"namespaceSelector": "team == 'one'"}, "aw", "aw"),
        ({"namespaceSelector": "projectcalico.org/name == 'y'"}, "c", "c"),
        ({"namespaceSelector": "global()"}, "w", "w"),
        ({"notSelector": "app == 'a'"}, "w", "cw"),
        ({"selector": "has(tier)", "notSelector": "app == 'a'"}, "", "c"),
        ({"nets": ["10.244.0.0/16"], "notNets": ["10.244.2.0/24"]}, "a", "a"),
        ({"notNets": ["10.244.1.2"]}, "cw", "cw"),
        ({"selector": "has(tier)", "nets": ["10.244.2.0/24"]}, "", "c"),
        ({"notSelector": "has(tier)", "nets": ["0.0.0.0/0"]}, "w", "w"),
        # By address: that of a pod of a set that is left out is left out, too.
        ({"selector": "kind == 'NetworkSet'", "notSelector": "kind == 'GlobalNetworkSet'"}, "", ""),
        ({"selector": "kind == 'NetworkSet'"}, "w", "w"),
        ({"selector": "kind == 'GlobalNetworkSet'"}, "", "w"),
        ({"selector": "kind == 'GlobalNetworkSet'", "notNets": ["203.0.113.9/32"]}, "", ""),
        ({"serviceAccounts": {"names": ["default"]}}, "a", "ac"),
        ({"serviceAccounts": {"names": ["other"]}}, "", ""),
    ],
)
def test_who_a_rule_means(source: dict[str, Any], of_namespace: str, everywhere: str) -> None:
    found = reaching({"source": source}), reaching({"source": source}, GLOBAL)
    assert found == (of_namespace, everywhere)


@pytest.mark.parametrize(
    ("rule", "wanted", "unwanted"),
    [
        ({"protocol": "TCP"}, ["TCP/1"], ["UDP/1", "ICMP/0"]),
        ({"protocol": 17}, ["UDP/1"], ["TCP/1"]),
        ({"notProtocol": "tcp"}, ["UDP/1", "SCTP/1", "ICMP/0"], ["TCP/1"]),
        ({"protocol": "TCP", "notProtocol": "TCP"}, [], ["TCP/1", "UDP/1"]),
        (
            {"protocol": "TCP", "destination": {"ports": [80, "90:92"]}},
            ["TCP/80", "TCP/90", "TCP/92"],
            ["TCP/81", "TCP/93", "UDP/80"],
        ),
        ({"protocol": "TCP", "destination": {"notPorts": [80, "90:92"]}}, ["TCP/81", "TCP/93"], ["TCP/80", "TCP/91"]),
        (
            {"protocol": "TCP", "destination": {"ports": ["80:90"], "notPorts": ["85:95"]}},
            ["TCP/84"],
            ["TCP/85", "TCP/90", "TCP/95"],
        ),
        ({"protocol": "TCP", "destination": {"ports": ["web"]}}, ["TCP/8080"], ["TCP/80"]),
        ({"protocol": "ICMP"}, ["ICMP/0"], ["TCP/80"]),
        ({"protocol": "ICMP", "icmp": {"type": 8}}, ["ICMP/0"], [f"ICMP/{13 << 8}"]),
        ({"protocol": "ICMP", "icmp": {"type": 8, "code": 1}}, [f"ICMP/{8 << 8 | 1}"], ["ICMP/0"]),
        ({"protocol": "ICMP", "notICMP": {"type": 8}}, [f"ICMP/{13 << 8}"], ["ICMP/0"]),
        ({"protocol": "UDP", "source": {"ports": ["30000:50000"]}}, ["UDP/1"], ["TCP/1"]),
        ({"protocol": "UDP", "source": {"notPorts": ["30000:50000"]}}, [], ["UDP/1"]),
        ({"ipVersion": 4}, ["TCP/1"], []),
        ({"ipVersion": 6}, [], ["TCP/1"]),
        ({"destination": {"selector": "app == 'b'"}}, ["TCP/1"], []),
        ({"destination": {"selector": "app == 'a'"}}, [], ["TCP/1"]),
        ({"destination": {"notSelector": "app == 'b'"}}, [], ["TCP/1"]),
        ({"destination": {"nets": ["10.244.1.0/24"]}}, ["TCP/1"], []),
        ({"destination": {"notNets": ["10.244.1.3/32"]}}, [], ["TCP/1"]),
    ],
)
@pytest.mark.parametrize("kind", [CALICO, GLOBAL])
def test_what_a_rule_means(rule: dict[str, Any], wanted: list[str], unwanted: list[str], kind: str) -> None:
    assert [where for where in (*wanted, *unwanted) if "a" in reaching(rule, kind, where)] == wanted


def closing(name: str, action: str, order: float | None = None, **more: Any) -> dict[str, Any]:
    spec = {"selector": "app == 'b'", "ingress": [{"action": action, **more}]}
    return policy(CALICO, name, **spec, **({} if order is None else {"order": order}))


ISOLATED = policy(podSelector={}, ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}])
BASELINE = policy(
    "BaselineAdminNetworkPolicy",
    "default",
    subject={"namespaces": {}},
    ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}],
)


@pytest.mark.parametrize(
    ("objects", "allowed", "decider"),
    [
        ([closing("one", "Deny", 2), closing("two", "Allow", 1)], True, f"{CALICO} x/two"),
        ([closing("one", "Deny", 1), closing("two", "Allow", 1)], False, f"{CALICO} x/one"),
        ([closing("one", "Allow"), closing("two", "Deny", 1e9)], False, f"{CALICO} x/two"),  # no order: the last
        ([closing("one", "Deny", 999), ISOLATED], False, f"{CALICO} x/one"),
        ([closing("one", "Deny", 1001), ISOLATED], True, "NetworkPolicy x/p"),
        ([closing("one", "Deny", 1000), ISOLATED], True, "NetworkPolicy x/p"),  # by name: after knp.default.
        ([closing("again", "Deny", 1000), ISOLATED], False, f"{CALICO} x/again"),
        ([closing("one", "Allow", 1, source={"selector": "app == 'c'"})], False, f"{CALICO} x/one"),
        ([closing("one", "Pass", 1), ISOLATED], True, ""),
        ([closing("one", "Pass", 1), BASELINE], False, "BaselineAdminNetworkPolicy default"),
        ([closing("one", "Log", 1)], False, f"{CALICO} x/one"),
        ([closing("one", "Log", 1), closing("two", "Allow", 2)], True, f"{CALICO} x/two"),
    ],
)
def test_the_first_rule_of_the_first_policy_decides(objects: list[dict[str, Any]], allowed: bool, decider: str) -> None:
    _, found = decided(objects, A, B)
    assert (found.allowed, found.policy) == (allowed, decider)
    assert found.logged == tuple(
        (f"{CALICO} x/one", 0) for o in objects if o["spec"].get("ingress", [{}])[0].get("action") == "Log"
    )


@pytest.mark.parametrize(
    ("spec", "governed"),
    [
        ({}, (True, False)),
        ({"egress": [{"action": "Allow"}]}, (False, True)),
        ({"egress": [{"action": "Allow"}], "ingress": [{"action": "Allow"}]}, (True, True)),
        ({"types": ["Egress"], "ingress": [{"action": "Allow"}]}, (False, True)),
        ({"doNotTrack": True, "applyOnForward": True}, (False, False)),
    ],
)
def test_which_directions_a_policy_governs(spec: dict[str, Any], governed: tuple[bool, bool]) -> None:
    found = read.policy(policy(GLOBAL, **spec))
    assert found is not None and (found.ingress is not None, found.egress is not None) == governed


# Worlds made at random.
KEYS, VALUES = ("app", "tier"), ("a", "b", "ab")
LABELS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
TERM = st.one_of(
    st.just("all()"),
    st.builds("has({})".format, st.sampled_from(KEYS)),
    st.builds("!has({})".format, st.sampled_from(KEYS)),
    st.builds(
        "{} {} '{}'".format,
        st.sampled_from(KEYS),
        st.sampled_from(("==", "!=", "contains", "starts with", "ends with")),
        st.sampled_from(VALUES),
    ),
    st.builds(
        lambda k, o, v: f"{k} {o} {{{', '.join(map(repr, v))}}}",
        st.sampled_from(KEYS),
        st.sampled_from(("in", "not in")),
        st.lists(st.sampled_from(VALUES), max_size=2),
    ),
)
SELECTOR = st.recursive(
    TERM, lambda s: st.builds("({} {} {})".format, s, st.sampled_from(("&&", "||")), s), max_leaves=3
)
SPACE = st.one_of(SELECTOR, st.sampled_from(("projectcalico.org/name == 'x'", "global()", "all()")))
NETS = st.lists(
    st.sampled_from(("10.244.1.0/24", "10.244.1.100", "0.0.0.0/0", "203.0.113.0/29", "10.244.2.101/32")),
    min_size=1,
    max_size=2,
)
PORTS = st.lists(st.sampled_from((80, 81, "79:80", "81:90", "1:65535")), min_size=1, max_size=2)
TARGET_PORTS = st.one_of(PORTS, st.lists(st.sampled_from(("web", "dns", 81)), min_size=1, max_size=2))
SOURCE_PORTS = st.lists(st.sampled_from(("1:39999", "40000:65535", 33)), min_size=1, max_size=2)
ENTITY: dict[str, Any] = {
    "nets": NETS,
    "notNets": NETS,
    "selector": SELECTOR,
    "notSelector": SELECTOR,
    "namespaceSelector": SPACE,
}


def rule(protocol: dict[str, Any], source: dict[str, Any], target: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A rule with at most two things said of either end."""

    def few(parts: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
        return st.lists(st.sampled_from(sorted(parts)), max_size=2, unique=True).flatmap(
            lambda names: st.fixed_dictionaries({name: parts[name] for name in names})
        )

    return st.fixed_dictionaries(
        {"action": st.sampled_from(("Allow", "Allow", "Deny", "Pass", "Log")), **protocol},
        optional={"source": few(ENTITY | source), "destination": few(ENTITY | target)},
    )


RULE = st.one_of(
    rule({}, {}, {}),
    rule(
        {"protocol": st.sampled_from(("TCP", "UDP", "SCTP"))},
        {"ports": SOURCE_PORTS, "notPorts": SOURCE_PORTS},
        {"ports": TARGET_PORTS, "notPorts": PORTS},
    ),
    rule({"notProtocol": st.sampled_from(("TCP", "ICMP", 132))}, {}, {}),
    rule(
        {"protocol": st.just("ICMP"), "icmp": st.sampled_from(({"type": 8}, {"type": 8, "code": 0}, {"type": 3}))},
        {},
        {},
    ),
    rule({"protocol": st.just("ICMP"), "notICMP": st.sampled_from(({"type": 8, "code": 1}, {"type": 8}))}, {}, {}),
)
SPEC = st.fixed_dictionaries(
    {"selector": SELECTOR},
    optional={
        "order": st.sampled_from((1, 2, 1000, 1001)),
        "types": st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
        "ingress": st.lists(RULE, max_size=3),
        "egress": st.lists(RULE, max_size=3),
    },
)
SPACE_NAMES = ("x", "y")
OBJECTS = st.lists(
    st.one_of(
        st.builds(
            lambda n, space, spec: policy(CALICO, f"a{n}", space, **spec),
            st.integers(0, 3),
            st.sampled_from(SPACE_NAMES),
            SPEC,
        ),
        st.builds(
            lambda n, spec, space: policy(GLOBAL, f"z{n}", **spec, **space),
            st.integers(0, 3),
            SPEC,
            st.fixed_dictionaries({}, optional={"namespaceSelector": SELECTOR}),
        ),
    ),
    min_size=1,
    max_size=4,
)


def a_set(kind: str, nets: list[str], labels: dict[str, str]) -> dict[str, Any]:
    made = policy(kind, "s", "x", nets=nets)
    made["metadata"]["labels"] = labels
    return made


SETS = st.lists(st.builds(a_set, st.sampled_from(("NetworkSet", "GlobalNetworkSet")), NETS, LABELS), max_size=2)
KUBERNETES = st.lists(
    st.sampled_from(
        [
            ("x", {"podSelector": {}}),
            ("y", {"podSelector": {"matchLabels": {"app": "a"}}, "policyTypes": ["Egress"]}),
            (
                "x",
                {"podSelector": {}, "ingress": [{"ports": [{"port": 80}]}], "egress": [{"ports": [{"port": "web"}]}]},
            ),
        ]
    ),
    max_size=2,
)
ADMIN = st.lists(
    st.sampled_from(
        [
            {"subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]},
            {"subject": {"namespaces": {}}, "egress": [{"action": "Allow", "to": [{"networks": ["10.244.1.0/24"]}]}]},
        ]
    ),
    max_size=1,
)
WORLDS = st.builds(
    policy_switches.random_world,
    st.lists(LABELS, min_size=2, max_size=2),
    st.lists(st.tuples(st.sampled_from(SPACE_NAMES), LABELS, st.sampled_from((80, 81))), min_size=2, max_size=4),
    KUBERNETES,
    st.just([]),
    ADMIN,
    st.builds(lambda a, b: a + b, OBJECTS, SETS),
)


@settings(max_examples=80, deadline=None)
@given(WORLDS)
def test_flows_do_what_the_evaluator_says(world: World) -> None:
    nodes = policy_switches.Nodes()
    nodes.hold(world)
    known = policy_world.cluster(world, nodes.addresses)
    for probe in policy_switches.probes(world):
        ends = [policy_world.end(known, name) for name in (probe.source, probe.target)]
        verdict = judge(known, ends[0], ends[1], probe.protocol, probe.port)
        assert nodes.reaches(probe) == verdict.allowed, (str(probe), verdict)


@settings(max_examples=30, deadline=None)
@given(WORLDS, WORLDS)
def test_what_changed_step_by_step_is_what_is_made_anew(before: World, after: World) -> None:
    nodes, anew = policy_switches.Nodes(), policy_switches.Nodes()
    nodes.hold(before)
    nodes.hold(after)
    anew.hold(after)
    assert nodes.listings() == anew.listings()
