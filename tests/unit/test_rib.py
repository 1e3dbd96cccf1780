"""Best paths, against the rules of RFC 4271 worked by hand, and what calico's nodes announce."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import OVS, A, cluster, cni_of

from controllers.bgp.rib_routes import announced, held, routes
from controllers.compile import pod_bridge, uplink_bridge
from controllers.flow.fields import ip_number
from controllers.flow.program import check, listing
from controllers.rib import (
    NO_ADVERTISE,
    NO_EXPORT,
    Announcement,
    Neighbour,
    Origin,
    Rule,
    Withdrawal,
    best_of,
    best_paths,
    judge,
    learn,
    told,
)
from controllers.simulate import Switch
from controllers.state import NodeView

P, Q = "10.244.1.0/24", "10.244.2.0/24"
# Announced by router 5 with nothing in its favour.
PLAIN = Announcement(P, next_hop=50, speaker=5)


def speakers(*paths: Announcement) -> tuple[int, ...]:
    return tuple(path.speaker for path in best_paths(paths)[P])


@pytest.mark.parametrize(
    "better",
    [
        {"local_preference": 101},
        {"local_preference": 101, "as_path": (1, 2, 3), "med": 9},  # decides before the others
        {"local_preference": 100, "as_path": (), "med": 0},
    ],
)
def test_higher_local_preference_then_shorter_path_then_lower_med_wins(better: dict[str, object]) -> None:
    worse = replace(PLAIN, as_path=(7,), med=1)
    assert speakers(worse, replace(PLAIN, speaker=9, **better)) == (9,)  # type: ignore[arg-type]


def test_shorter_path_wins_over_a_lower_med() -> None:
    assert speakers(replace(PLAIN, as_path=(7, 7), med=0), replace(PLAIN, speaker=9, as_path=(7,), med=5)) == (9,)


def test_lower_med_wins_among_paths_of_one_neighbour() -> None:
    assert speakers(replace(PLAIN, as_path=(7,), med=5), replace(PLAIN, speaker=9, as_path=(7,), med=4)) == (9,)


def test_med_says_nothing_between_different_neighbours() -> None:
    one, two = replace(PLAIN, as_path=(7,), med=5), replace(PLAIN, speaker=9, as_path=(8,), med=4)
    assert speakers(one, two) == (5, 9)
    assert speakers(one, two, replace(two, speaker=3, med=6), replace(one, speaker=4, med=1)) == (4, 9)


def test_equal_paths_are_all_kept_the_lowest_speaker_first_in_whichever_order_they_come() -> None:
    paths = [replace(PLAIN, speaker=number, next_hop=number * 10) for number in (5, 3, 9)]
    for order in permutations(paths):
        assert speakers(*order) == (3, 5, 9)
        assert best_paths(order)[P][0].next_hop == 30


def test_later_announcement_of_a_speaker_replaces_its_earlier_one_even_by_a_worse() -> None:
    good, bad = replace(PLAIN, local_preference=200), replace(PLAIN, local_preference=50)
    assert speakers(good, replace(PLAIN, speaker=9), bad) == (9,)
    assert speakers(bad, replace(PLAIN, speaker=9), good) == (5,)


def test_announcement_does_not_replace_that_of_another_prefix() -> None:
    both = best_paths([PLAIN, replace(PLAIN, prefix=Q, med=3)])
    assert {prefix: [path.med for path in paths] for prefix, paths in both.items()} == {P: [0], Q: [3]}


def test_withdrawn_prefix_has_no_path_and_the_next_best_takes_over() -> None:
    best = replace(PLAIN, speaker=9, local_preference=200)
    assert speakers(PLAIN, best) == (9,)
    assert speakers(PLAIN) == (5,)
    assert P not in best_paths([])


ANNOUNCEMENTS = st.lists(
    st.builds(
        Announcement,
        st.sampled_from([P, Q]),
        st.just(1),
        st.integers(1, 3),
        st.integers(1, 2),
        st.lists(st.just(7), max_size=2).map(tuple),
        st.integers(0, 1),
    )
)


@given(ANNOUNCEMENTS)
def test_every_prefix_announced_has_paths_that_nothing_else_beats(paths: list[Announcement]) -> None:
    latest = {(path.prefix, path.speaker): path for path in paths}.values()
    best = best_paths(paths)
    assert best.keys() == {path.prefix for path in paths}
    for prefix, chosen in best.items():
        worst = max((-path.local_preference, len(path.as_path), path.med) for path in chosen)
        for path in latest:
            if path.prefix == prefix and path not in chosen:
                assert (-path.local_preference, len(path.as_path), path.med) > worst


def peers(view: NodeView, ready: bool) -> NodeView:
    return replace(view, peers=tuple(replace(peer, ready=ready) for peer in view.peers))


def test_ready_nodes_announce_their_pods_with_themselves_as_next_hop() -> None:
    view = cluster("calico")["node-1"]
    two, three = view.peers
    assert [(a.prefix, a.next_hop, a.speaker) for a in announced(view)] == [(two.pod_cidr, two.ip, two.ip)]
    assert not three.ready


@pytest.mark.parametrize("cni", ["flannel", "calico"])
def test_node_that_is_not_ready_loses_its_route_on_the_others(cni: str) -> None:
    view = cluster(cni)["node-1"]
    compiled = {ready: listing(pod_bridge(peers(view, ready), cni_of(view), OVS)) for ready in (True, False)}
    for peer in view.peers:
        assert f"nw_dst={peer.pod_cidr}" in compiled[True]
        assert f"nw_dst={peer.pod_cidr}" not in compiled[False]


def test_origin_then_external_then_metric_decide_after_med() -> None:
    plain = replace(PLAIN, as_path=(7,), external=True)
    worse = [
        replace(plain, speaker=1, origin=Origin.INCOMPLETE),
        replace(plain, speaker=2, med=1),
        replace(plain, speaker=3, external=False),
        replace(plain, speaker=4, metric=5),
    ]
    for path in worse:
        assert speakers(path, plain) == (5,)
    assert speakers(*worse, plain) == (5,)


def test_ties_go_to_the_lowest_router_then_the_shorter_reflection_then_the_lowest_speaker() -> None:
    assert speakers(PLAIN, replace(PLAIN, speaker=9, router_id=4)) == (9, 5)
    far, near = replace(PLAIN, speaker=8, router_id=4, clusters=(1, 2)), replace(PLAIN, speaker=9, router_id=4)
    assert speakers(far, near) == (9, 8)
    assert speakers(replace(near, speaker=6), near) == (6, 9)


def test_withdrawal_takes_one_prefix_and_the_end_of_a_session_all_of_its_speaker() -> None:
    other, of_nine = replace(PLAIN, prefix=Q), replace(PLAIN, speaker=9)
    held = [PLAIN, other, of_nine]
    assert learn([*held, Withdrawal(5, P)]) == (other, of_nine)
    assert learn([*held, Withdrawal(5)]) == (of_nine,)
    assert learn([Withdrawal(5), *held, Withdrawal(4)]) == tuple(held)


def test_filters_choose_by_prefix_and_community_and_change_what_they_keep() -> None:
    green, red = (64512, 1), (64512, 2)
    rules = (
        Rule(False, community=red),
        Rule(True, "10.244.0.0/16", longest=24, community=green, local_preference=300, add=frozenset({red})),
        Rule(True, "10.244.2.0/24"),
    )
    marked = replace(PLAIN, communities=frozenset({green}))
    kept = judge(marked, rules)
    assert kept is not None
    assert (kept.local_preference, kept.communities) == (300, {green, red})
    assert judge(kept, rules) is None  # red by now
    assert judge(PLAIN, rules) is None  # no rule is about it
    assert judge(replace(marked, prefix="10.244.1.0/26"), rules) is None
    assert judge(replace(PLAIN, prefix=Q), rules) == replace(PLAIN, prefix=Q)
    assert set(best_paths([PLAIN, replace(PLAIN, prefix=Q)], rules)) == {Q}


def test_a_path_that_passed_our_own_system_is_a_loop() -> None:
    assert best_paths([replace(PLAIN, as_path=(65001, 64512, 65002))], own_as=64512) == {}


ME, PEER, ABROAD = Neighbour(1, 64512), Neighbour(2, 64512), Neighbour(3, 65001)
OWN = replace(PLAIN, speaker=1, next_hop=1, as_path=())


def test_our_own_is_told_to_all_with_ourselves_as_next_hop() -> None:
    assert told(OWN, PEER, ME) == replace(OWN, next_hop=1)
    abroad = told(replace(OWN, med=7, local_preference=300), ABROAD, ME)
    assert abroad == replace(OWN, as_path=(64512,), external=True)


def test_what_a_peer_of_our_system_told_is_told_abroad_alone() -> None:
    assert told(PLAIN, PEER, ME) is None
    assert told(PLAIN, ABROAD, ME) == replace(PLAIN, speaker=1, next_hop=1, as_path=(64512,), external=True)


def test_what_was_told_from_abroad_is_told_on_with_its_next_hop_but_not_back() -> None:
    heard = replace(PLAIN, speaker=3, as_path=(65001,), external=True)
    assert told(heard, PEER, ME) == replace(heard, speaker=1, external=False)
    assert told(heard, ABROAD, ME) is None


def test_a_reflector_tells_its_clients_what_others_told_and_others_what_its_clients_told() -> None:
    client = replace(PEER, client=True)
    said = told(PLAIN, client, ME, cluster=9)
    assert said == replace(PLAIN, speaker=1, router_id=5, clusters=(9,))
    assert told(PLAIN, PEER, ME, cluster=9) is None
    assert told(PLAIN, PEER, ME, cluster=9, from_client=True) == said


def test_communities_that_are_well_known_are_heeded() -> None:
    quiet = replace(OWN, communities=frozenset({NO_EXPORT}))
    assert told(quiet, PEER, ME) == quiet
    assert told(quiet, ABROAD, ME) is None
    assert told(replace(OWN, communities=frozenset({NO_ADVERTISE})), PEER, ME) is None
    assert told(OWN, PEER, ME, rules=()) is None


PATHS = st.lists(
    st.builds(
        Announcement,
        st.just(P),
        st.integers(1, 4),
        st.integers(1, 6),
        st.integers(1, 2),
        st.lists(st.integers(7, 8), max_size=2).map(tuple),
        st.integers(0, 2),
        st.sampled_from(Origin),
        st.just(frozenset()),
        st.integers(0, 3),
        st.lists(st.integers(1, 2), max_size=2).map(tuple),
        st.booleans(),
        st.integers(0, 1),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda path: path.speaker,
)


@given(PATHS, st.randoms())
def test_the_order_of_arrival_does_not_matter(paths: list[Announcement], mix: random.Random) -> None:
    assert best_of(mix.sample(paths, len(paths))) == best_of(paths)


@given(PATHS)
def test_without_med_the_best_of_many_is_the_best_of_any_that_have_it(paths: list[Announcement]) -> None:
    """A total order: the winner beats each other one alone. (MED is none: RFC 4451, section 2.1.)"""
    paths = [replace(path, med=0) for path in paths]
    winner = best_of(paths)[0]
    for path in paths:
        assert best_of([path, winner])[0] == winner


@given(PATHS, PATHS)
def test_what_is_withdrawn_might_as_well_never_have_been_told(one: list[Announcement], two: list[Announcement]) -> None:
    gone = [Withdrawal(path.speaker, path.prefix) for path in one]
    assert best_paths(learn([*one, *gone, *two])) == best_paths(learn(two))


@given(PATHS)
def test_equally_good_paths_differ_only_in_who_they_are_from(paths: list[Announcement]) -> None:
    good = {(p.local_preference, len(p.as_path), p.origin, p.external, p.metric) for p in best_of(paths)}
    assert len(good) == 1


def with_bgp(**section: object) -> NodeView:
    """node-1 with two ready peers, and this section mininetes.bgp."""
    view = peers(cluster("calico")["node-1"], ready=True)
    return replace(view, lab=replace(view.lab, options={"cni": {}, "bgp": section}))


ANYCAST: dict[str, object] = {"prefix": "192.0.2.0/24", "nodes": ["node-2", "node-3"]}


def test_a_prefix_of_two_nodes_has_both_as_next_hops_and_a_connection_one_of_them() -> None:
    view = with_bgp(announce=[ANYCAST])
    assert [n.name for n in routes(view)["192.0.2.0/24"]] == ["node-2", "node-3"]
    program = pod_bridge(view, cni_of(view), OVS)
    check(program)
    packet = {"in_port": A.port, "dl_src": A.mac, "dl_dst": 1, "dl_type": 0x800, "nw_src": A.ip, "nw_proto": 17}
    packet |= {"nw_dst": ip_number("192.0.2.9"), "nw_ttl": 64, "tp_src": 1, "tp_dst": 2}
    went = [Switch(program).run(packet, lambda many, _, which=which: which).outputs for which in (0, 1)]
    assert [(port, p["dl_dst"], p["nw_ttl"]) for ((port, p),) in went] == [(3, n.mac, 63) for n in view.peers]


def test_withdrawal_and_preference_leave_one_next_hop() -> None:
    preferred = {"prefix": "192.0.2.0/24", "nodes": ["node-3"], "localPreference": 200}
    view = with_bgp(announce=[{**ANYCAST, "nodes": ["node-2"]}, preferred])
    assert [n.name for n in routes(view)["192.0.2.0/24"]] == ["node-3"]
    assert [best for _, best in held(view)["192.0.2.0/24"]] == [True, False]
    gone = replace(view, peers=tuple(replace(p, ready=p.name != "node-3") for p in view.peers))
    assert [n.name for n in routes(gone)["192.0.2.0/24"]] == ["node-2"]


def test_rules_of_the_lab_file_drop_and_prefer() -> None:
    colour = {**ANYCAST, "nodes": ["node-2"], "communities": ["64512:7"]}
    rules = [
        {"action": "accept", "community": "64512:7", "localPreference": 300},
        {"action": "reject", "prefix": "10.244.3.0/24"},
    ]
    view = with_bgp(announce=[colour, {**ANYCAST, "nodes": ["node-3"]}], **{"import": rules})
    assert [n.name for n in routes(view)["192.0.2.0/24"]] == ["node-2"]
    assert "10.244.3.0/24" not in routes(view) and "10.244.2.0/24" in routes(view)


def test_a_node_needs_no_route_to_what_it_announces_itself_and_takes_it_from_the_wire() -> None:
    view = with_bgp(announce=[{**ANYCAST, "nodes": ["node-1", "node-2"]}])
    assert "192.0.2.0/24" not in routes(view)
    assert "nw_dst=192.0.2.0/24 actions=output:2" in listing(uplink_bridge(view, cni_of(view)))
