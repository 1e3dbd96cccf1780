"""Best paths, against the rules of RFC 4271 worked by hand, and what calico's nodes announce."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from views import OVS, cluster, cni_of

from controllers.cni.calico import announcements
from controllers.compile import pod_bridge
from controllers.flow.program import listing
from controllers.rib import Announcement, best_paths
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
    one, two, three = (view.node for view in cluster("calico").values())
    said = announcements([one, two, three])
    assert [(a.prefix, a.next_hop, a.speaker) for a in said] == [(x.pod_cidr, x.ip, x.ip) for x in (one, two)]
    assert not three.ready


@pytest.mark.parametrize("cni", ["flannel", "calico"])
def test_node_that_is_not_ready_loses_its_route_on_the_others(cni: str) -> None:
    view = cluster(cni)["node-1"]
    compiled = {ready: listing(pod_bridge(peers(view, ready), cni_of(view), OVS)) for ready in (True, False)}
    for peer in view.peers:
        assert f"nw_dst={peer.pod_cidr}" in compiled[True]
        assert f"nw_dst={peer.pod_cidr}" not in compiled[False]
