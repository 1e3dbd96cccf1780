"""What the flows do is what the evaluator says: the public cases, and clusters and policies made at random."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import policy_switches
import policy_world
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers.flow.fields import ip_number
from controllers.policy.evaluate import judge
from scenarios.netpol.cases import Case, World, load

DATA = Path(__file__).parents[1] / "data" / "policy"
CASES = [case for file in sorted(DATA.rglob("*.json")) for case in load(file)]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.file}: {c.name}"[:90])
def test_flows_do_what_the_case_expects(case: Case) -> None:
    """Each case on one set of switches that lives through its steps; one packet a pair, both ways."""
    world, nodes = World.of(case.cluster), policy_switches.Nodes()
    ports = next((p.ports for p in case.cluster.pods.values()), ())
    for number, step in enumerate(case.steps):
        world.change(step.raw, ports)
        nodes.hold(world)
        # All of a step would take minutes for all files; the switch tests and labs try the rest.
        some = list(step.scored.items())[number :: 1 + len(step.scored) // 60]
        differs = [str(p) for p, allowed in some if nodes.reaches(p) != allowed]
        assert not differs, f"step {number + 1}"


KEYS, VALUES = ("app", "tier"), ("a", "b")
LABELS = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES))
EXPRESSION = st.builds(
    lambda key, operator, values: {
        "key": key,
        "operator": operator,
        **({"values": values} if operator in ("In", "NotIn") else {}),
    },
    st.sampled_from(KEYS),
    st.sampled_from(("In", "NotIn", "Exists", "DoesNotExist")),
    st.lists(st.sampled_from(VALUES), min_size=1, unique=True),
)
SELECTOR = st.fixed_dictionaries(
    {}, optional={"matchLabels": LABELS, "matchExpressions": st.lists(EXPRESSION, max_size=2)}
)
BLOCK = st.sampled_from(
    [
        {"cidr": "0.0.0.0/0"},
        {"cidr": "10.244.1.0/24"},
        {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/24"]},
        {"cidr": "10.244.1.100/32"},
        {"cidr": "203.0.113.0/24", "except": ["203.0.113.7/32"]},
    ]
)
PEER = st.one_of(
    st.builds(lambda s: {"podSelector": s}, SELECTOR),
    st.builds(lambda s: {"namespaceSelector": s}, SELECTOR),
    st.builds(lambda n, p: {"namespaceSelector": n, "podSelector": p}, SELECTOR, SELECTOR),
    st.builds(lambda b: {"ipBlock": b}, BLOCK),
)
PROTOCOL = st.sampled_from(("TCP", "UDP", "SCTP"))
PORT = st.one_of(
    st.builds(lambda p: {"protocol": p}, PROTOCOL),
    st.builds(lambda p, n: {"protocol": p, "port": n}, PROTOCOL, st.sampled_from((80, 81, "web", "dns"))),
    st.builds(
        lambda p, n, m: {"protocol": p, "port": n, "endPort": n + m}, PROTOCOL, st.integers(1, 90), st.integers(0, 99)
    ),
)


def rules(side: str) -> st.SearchStrategy[list[dict[str, Any]]]:
    one = st.fixed_dictionaries({}, optional={side: st.lists(PEER, max_size=3), "ports": st.lists(PORT, max_size=3)})
    return st.lists(one, max_size=3)


SPEC = st.fixed_dictionaries(
    {"podSelector": SELECTOR},
    optional={
        "policyTypes": st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
        "ingress": rules("from"),
        "egress": rules("to"),
    },
)
PODS = st.builds(lambda n, p: {"namespaceSelector": n, "podSelector": p}, SELECTOR, SELECTOR)
SUBJECT = st.one_of(st.builds(lambda s: {"namespaces": s}, SELECTOR), st.builds(lambda p: {"pods": p}, PODS))
ADMIN_PORT = st.one_of(
    st.builds(lambda p, n: {"portNumber": {"protocol": p, "port": n}}, PROTOCOL, st.sampled_from((80, 81))),
    st.builds(lambda p: {"portRange": {"protocol": p, "start": 79, "end": 80}}, PROTOCOL),
    st.builds(lambda n: {"namedPort": n}, st.sampled_from(("web", "dns"))),
)


def admin_rules(side: str, actions: tuple[str, ...]) -> st.SearchStrategy[list[dict[str, Any]]]:
    networks = st.builds(lambda b: {"networks": [b["cidr"]]}, BLOCK)
    peer = SUBJECT if side == "from" else st.one_of(SUBJECT, networks)
    one = st.fixed_dictionaries(
        {"action": st.sampled_from(actions), side: st.lists(peer, min_size=1, max_size=2)},
        optional={"ports": st.lists(ADMIN_PORT, min_size=1, max_size=2)},
    )
    return st.lists(one, max_size=2)


def admin_spec(actions: tuple[str, ...], **more: Any) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"subject": SUBJECT, "ingress": admin_rules("from", actions), "egress": admin_rules("to", actions), **more}
    )


ADMIN = admin_spec(("Allow", "Deny", "Pass"), priority=st.integers(0, 3))
BASELINE = admin_spec(("Allow", "Deny"))
SPACES = ("x", "y")
WORLDS = st.builds(
    policy_switches.random_world,
    st.lists(LABELS, min_size=2, max_size=2),
    st.lists(st.tuples(st.sampled_from(SPACES), LABELS, st.sampled_from((80, 81))), min_size=2, max_size=5),
    st.lists(st.tuples(st.sampled_from(SPACES), SPEC), max_size=4),
    st.lists(ADMIN, max_size=2),
    st.lists(BASELINE, max_size=1),
)


def every_probe(world: World) -> Iterable[Any]:
    return policy_switches.probes(world)


@settings(max_examples=60, deadline=None)
@given(WORLDS)
def test_flows_do_what_the_evaluator_says(world: World) -> None:
    nodes = policy_switches.Nodes()
    nodes.hold(world)
    cluster = policy_world.cluster(world, nodes.addresses)
    for probe in every_probe(world):
        ends = [policy_world.end(cluster, name) for name in (probe.source, probe.target)]
        verdict = judge(cluster, ends[0], ends[1], probe.protocol, probe.port)
        assert nodes.reaches(probe) == verdict.allowed, (str(probe), verdict)


@settings(max_examples=30, deadline=None)
@given(WORLDS)
def test_flows_that_ask_for_identities_do_what_the_evaluator_says(world: World) -> None:
    nodes = policy_switches.Nodes("cilium")
    nodes.hold(world)
    cluster = policy_world.cluster(world, nodes.addresses)
    for probe in every_probe(world):
        ends = [policy_world.end(cluster, name) for name in (probe.source, probe.target)]
        verdict = judge(cluster, ends[0], ends[1], probe.protocol, probe.port)
        assert nodes.reaches(probe) == verdict.allowed, (str(probe), verdict)


def test_a_packet_of_another_node_is_judged_by_the_identity_that_it_carries_and_not_by_its_address() -> None:
    allow = {"podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"]}
    allow["ingress"] = [{"from": [{"podSelector": {"matchLabels": {"app": "a"}}}]}]
    pods = [("x", {"app": "a"}, 80), ("x", {"app": "b"}, 80), ("x", {"app": "c"}, 80)]
    nodes = policy_switches.Nodes("cilium")
    nodes.hold(policy_switches.random_world([{}, {}], pods, [("x", allow)], [], []))
    identities = nodes.state.policies.identities
    friend, stranger = identities.of("x/p0"), identities.of("x/p2")
    home = nodes.home["x/p1"]
    view = nodes.state.node_view(home)
    assert view is not None and friend != stranger

    def arrives(address: str, identity: int, port: int) -> bool:
        packet = {"in_port": 1, "dl_src": 1, "dl_dst": view.node.gateway_mac, "dl_type": 0x800, "nw_proto": 6}
        packet |= {"nw_src": ip_number(nodes.addresses[address]), "nw_dst": ip_number(nodes.addresses["x/p1"])}
        packet |= {"nw_ttl": 64, "tp_src": port, "tp_dst": 80, "tcp_flags": 2, "tun_id": identity}
        return bool(nodes.switches[home].run(packet).outputs)

    assert arrives("x/p0", friend, 1000) and arrives("x/p2", friend, 1001)
    assert not arrives("x/p0", stranger, 1002) and not arrives("x/p0", 2, 1003)


@pytest.mark.parametrize("cni", ["calico", "cilium"])
@settings(max_examples=30, deadline=None)
@given(WORLDS, WORLDS)
def test_what_changed_step_by_step_is_what_is_made_anew(cni: str, before: World, after: World) -> None:
    """The way there leaves nothing behind, in the flows as in the switches' memory of connections."""
    nodes = policy_switches.Nodes(cni)
    nodes.hold(before)
    for probe in list(every_probe(before))[:30]:
        nodes.reaches(probe)
    nodes.hold(after)
    anew = policy_switches.Nodes(cni)
    anew.hold(after)
    assert nodes.listings() == anew.listings()
