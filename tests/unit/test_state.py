"""The cluster state: whatever happened, its views are those of a state that only ever saw the objects there are now."""

from __future__ import annotations

import random
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from views import CNIS, OVS, cni_of

from controllers.compile import Compiler, everything, fabric_switch, pod_bridge
from controllers.flow.fields import ip_number
from controllers.flow.program import Fragment, check, listing
from controllers.services import reach
from controllers.state import ClusterState, NodeView
from topo.cluster import wiring

NODES, SWITCHES = ("n1", "n2"), ("leaf-1", "spine-1")
# The first two names get the same group number from CRC-32, with whatever stands before and after them.
SERVICES = ("plumless", "buckeroo", "web")
# Ports, and last bytes of addresses, that a pod may have.
PLACES = {"a": (10, 11), "b": (20, 21)}
Thing = dict[str, Any]
Event = tuple[str, str, Thing]


def thing(kind: str, name: str, **parts: Any) -> Thing:
    meta = {"name": name, **parts.pop("metadata", {})}
    if kind not in ("Node", "FabricSwitch", "Lab"):
        meta["namespace"] = "default"
    return {"kind": kind, "metadata": meta, **parts}


LAB = thing(
    "Lab",
    "lab",
    spec={"pod_subnet": "10.244.0.0/16", "service_subnet": "10.96.0.0/16", "cni": "flannel", "proxy_mode": "ovs"}
    | {"fabric_mtu": 1500, "options": {}},
)


def node(name: str, complete: bool = True, ready: str = "True") -> Thing:
    number = NODES.index(name) + 1
    notes = {wiring.MAC: f"0a:58:ac:12:00:0{number}", wiring.GATEWAY_MAC: f"0a:58:0a:f4:0{number}:01"}
    status: Thing = {"conditions": [{"type": "Ready", "status": ready}]}
    if complete:
        status["addresses"] = [{"type": "Hostname", "address": name}]
        status["addresses"] += [{"type": "InternalIP", "address": f"172.18.0.{number}"}]
    return thing(
        "Node", name, metadata={"annotations": notes}, spec={"podCIDR": f"10.244.{number}.0/24"}, status=status
    )


def pod(name: str, home: str = "n1", port: int | None = 10, ip: int = 2, phase: str = "Running") -> Thing:
    notes = {wiring.MAC: f"0a:58:0a:f4:01:{ip:02x}", wiring.PORT: str(port)} if port else {}
    status = {"phase": phase, "podIP": f"10.244.1.{ip}"}
    return thing("Pod", name, metadata={"annotations": notes}, spec={"nodeName": home}, status=status)


def service(name: str, *ports: tuple[str, str, int], ip: str | None = None) -> Thing:
    address = ip if ip is not None else f"10.96.0.{SERVICES.index(name) + 10}"
    listed = [{"name": n, "protocol": p, "port": number} for n, p, number in ports]
    return thing("Service", name, spec={"clusterIP": address, "ports": listed})


def slice_of(name: str, owner: str, *endpoints: tuple[int, bool | None], port: int = 8080) -> Thing:
    """endpoints: last byte of the address, and its ready condition, None for none."""
    found = [
        {"addresses": [f"10.244.1.{ip}"], "conditions": {} if ready is None else {"ready": ready}}
        for ip, ready in endpoints
    ]
    ports = [{"name": "", "protocol": "TCP", "port": port}, {"name": "dns", "protocol": "UDP", "port": 53}]
    labels = {"labels": {"kubernetes.io/service-name": owner}}
    return thing("EndpointSlice", name, metadata=labels, ports=ports, endpoints=found)


def switch(name: str, *peers: str) -> Thing:
    ports = {str(i + 1): peer for i, peer in enumerate(peers)}
    return thing("FabricSwitch", name, spec={"tier": name.partition("-")[0], "ports": ports})


PORTS = st.lists(
    st.sampled_from([("", "TCP", 80), ("", "TCP", 81), ("dns", "UDP", 53), ("https", "TCP", 443)]),
    unique=True,
    max_size=3,
)
ENDPOINTS = st.lists(st.tuples(st.integers(2, 4), st.sampled_from([True, False, None])), max_size=3)
THINGS = st.one_of(
    st.builds(node, st.sampled_from(NODES), st.booleans(), st.sampled_from(["True", "False", "Unknown"])),
    # No two pods share an address or a port: that is the lab's to see to.
    st.builds(
        lambda name, home, number, attached, phase: pod(
            name, home, PLACES[name][number] if attached else None, PLACES[name][number], phase
        ),
        st.sampled_from([*PLACES]),
        st.sampled_from(NODES),
        st.integers(0, 1),
        st.booleans(),
        st.sampled_from(["Pending", "Running", "Succeeded", "Failed"]),
    ),
    st.builds(
        lambda name, ports, ip: service(name, *ports, ip=ip),
        st.sampled_from(SERVICES),
        PORTS,
        st.sampled_from([None, None, "", "None"]),
    ),
    # A slice keeps its Service: its name says which.
    st.builds(
        lambda owner, i, endpoints, port: slice_of(f"{owner}-{i}", owner, *endpoints, port=port),
        st.sampled_from(SERVICES),
        st.integers(0, 1),
        ENDPOINTS,
        st.sampled_from([8080, 8081]),
    ),
    # A node hangs on one switch.
    *(
        st.lists(st.sampled_from(peers), unique=True).map(lambda some, name=name: switch(name, *some))
        for name, peers in (("leaf-1", ("n1", "spine-1")), ("spine-1", ("n2", "leaf-1")))
    ),
    st.just(thing("ConfigMap", "no-flow-depends-on-it")),
)
EVENTS = st.lists(st.tuples(st.sampled_from(["ADDED", "MODIFIED", "MODIFIED", "DELETED"]), THINGS), max_size=40)


def state_of(*things: Thing) -> ClusterState:
    state = ClusterState()
    for one in (LAB, *things):
        state.apply(one["kind"], "ADDED", one)
    return state


def views(state: ClusterState) -> tuple[object, ...]:
    """Every view, and the text of what is compiled from it."""
    nodes = [state.node_view(name) for name in NODES]
    switches = [state.fabric_view(name) for name in SWITCHES]
    fabric = [listing(fabric_switch(view)) for view in switches if view]
    return nodes, switches, fabric, [listing(pod_bridge(view, cni_of(view), OVS)) for view in nodes if view]


@settings(max_examples=300, deadline=None)
@given(EVENTS, st.sets(st.integers(0, 39)), st.randoms(use_true_random=False))
def test_views_depend_on_the_objects_there_are_and_not_on_how_they_came(
    events: list[tuple[str, Thing]], looks: set[int], mix: random.Random
) -> None:
    state, final = state_of(), {}
    for i, (event, one) in enumerate(events):
        state.apply(one["kind"], event, one)
        if event == "DELETED":
            final.pop((one["kind"], one["metadata"]["name"]), None)
        else:
            final[one["kind"], one["metadata"]["name"]] = one
        if i in looks:  # views are made in between, too
            state.node_view(mix.choice(NODES))
    fresh = state_of(*mix.sample(list(final.values()), len(final)))
    assert views(state) == views(fresh)


@settings(max_examples=100, deadline=None)
@given(EVENTS, st.sets(st.integers(0, 39)))
def test_compiling_what_changed_gives_what_compiling_everything_does(events: list[Event], looks: set[int]) -> None:
    state, kept = state_of(), Compiler()
    for i, (event, one) in enumerate(events):
        state.apply(one["kind"], event, one)
        if i in looks:
            kept.everything(state, CNIS["flannel"], OVS)
    anew = everything(state, CNIS["flannel"], OVS)
    found = kept.everything(state, CNIS["flannel"], OVS)
    assert {bridge: listing(program) for bridge, program in found.items()} == {
        bridge: listing(program) for bridge, program in anew.items()
    }


@given(EVENTS)
def test_applying_the_same_objects_again_changes_nothing(events: list[tuple[str, Thing]]) -> None:
    state = state_of()
    for event, one in events:
        state.apply(one["kind"], event, one)
    before = views(state)
    final = {(one["kind"], one["metadata"]["name"]): (event, one) for event, one in events}
    for event, one in [*final.values()][::-1]:
        state.apply(one["kind"], event, deepcopy(one))
    assert views(state) == before


@given(EVENTS)
def test_every_state_compiles_to_programs_that_agree_with_themselves(events: list[tuple[str, Thing]]) -> None:
    state = state_of(node("n1"), node("n2"))
    for event, one in events:
        state.apply(one["kind"], event, one)
    for view in filter(None, map(state.node_view, NODES)):
        check(pod_bridge(view, cni_of(view), OVS))
    for fabric in filter(None, map(state.fabric_view, SWITCHES)):
        check(fabric_switch(fabric))


def view_of(state: ClusterState, name: str = "n1") -> NodeView:
    view = state.node_view(name)
    assert view is not None
    return view


BASE = [node("n1"), node("n2"), pod("a"), pod("b", port=11, ip=3)]
WEB, OTHER = service("web", ("", "TCP", 80)), service("plumless", ("", "TCP", 80))


class Noting:
    """A CNI or a proxy mode that notes for which nodes it is asked."""

    def __init__(self, real: Any) -> None:
        self.real, self.nodes = real, list[str]()

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        self.nodes.append(view.node.name)
        return self.real.fragments(view)  # type: ignore[no-any-return]

    def uplink(self, view: NodeView) -> Iterable[Fragment]:
        return self.real.uplink(view)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("change", "cni", "proxy", "bridges"),
    [
        (pod("c", port=12, ip=4), ["n1"], [], {("n1", "br-int")}),
        (slice_of("web-0", "web", (2, True)), [], ["n1", "n2"], {("n1", "br-int"), ("n2", "br-int")}),
        (pod("a"), [], [], set()),
        (thing("ConfigMap", "no-flow-depends-on-it"), [], [], set()),
    ],
    ids=["a pod", "endpoints", "nothing new", "nothing of ours"],
)
def test_a_change_compiles_only_what_depends_on_it(
    change: Thing, cni: list[str], proxy: list[str], bridges: set[tuple[str, str]]
) -> None:
    state, kept = state_of(*BASE, WEB, switch("leaf-1", "n1", "n2")), Compiler()
    asked: Any = Noting(CNIS["flannel"]), Noting(OVS)
    before = kept.everything(state, *asked)
    assert [one.nodes for one in asked] == [["n1", "n2"], ["n1", "n2"]]
    for one in asked:
        one.nodes.clear()
    state.apply(change["kind"], "MODIFIED", change)
    after = kept.everything(state, *asked)
    assert [one.nodes for one in asked] == [cni, proxy]
    assert {bridge for bridge in after if after[bridge] is not before[bridge]} == bridges


def test_nothing_is_seen_before_lab_and_node_are_known() -> None:
    state = ClusterState()
    state.apply("Node", "ADDED", node("n1"))
    assert state.node_view("n1") is None
    state.apply("Lab", "ADDED", LAB)
    assert state.node_view("n1") is not None
    assert state.node_view("n2") is None
    assert state.fabric_view("leaf-1") is None


def test_view_has_a_nodes_own_attached_pods_and_the_other_nodes() -> None:
    host_network = pod("on-the-host", port=None)
    view = view_of(state_of(*BASE, pod("c", home="n2"), host_network, pod("over", port=12, ip=4, phase="Failed")))
    assert [p.key for p in view.pods] == ["default/a", "default/b"]
    assert [n.name for n in view.peers] == ["n2"]


def test_a_container_that_was_attached_by_hand_has_the_flows_of_a_pod() -> None:
    state = ClusterState()
    for one in (LAB, node("n1"), node("n2"), pod("a")):
        state.apply(one["kind"], "ADDED", one)
    before = state.node_view("n1")
    spec = {"node": "n1", "ip": "10.244.1.9", "mac": "0a:58:0a:f4:01:09", "port": 30000}
    attached = {"kind": "Attachment", "metadata": {"name": "n1.mine.eth0"}, "spec": spec}
    state.apply("Attachment", "ADDED", attached)
    view = state.node_view("n1")
    assert before is not None and view is not None
    assert [(p.ip, p.port) for p in view.pods] == [(ip_number("10.244.1.2"), 10), (ip_number("10.244.1.9"), 30000)]
    state.apply("Attachment", "DELETED", attached)
    assert state.node_view("n1") == before


def test_endpoints_are_the_ready_ones_of_every_slice_each_once_by_port_name_and_protocol() -> None:
    slices = slice_of("s0", "web", (2, True), (3, False)), slice_of("s1", "web", (4, None), (2, True))
    ports = service("web", ("", "TCP", 80), ("dns", "UDP", 53), ("https", "TCP", 443))
    found = view_of(state_of(*BASE, ports, *slices)).services
    ready = {port.key: tuple((e.ip, e.port) for e in reach(port, "n1", "").cluster) for port in found.values()}
    assert ready == {
        "default/web:80/tcp": ((ip_number("10.244.1.2"), 8080), (ip_number("10.244.1.4"), 8080)),
        "default/web:dns/udp": ((ip_number("10.244.1.2"), 53), (ip_number("10.244.1.4"), 53)),
        "default/web:https/tcp": (),
    }


@pytest.mark.parametrize("address", ["None", ""])
def test_headless_service_has_no_port_of_its_own(address: str) -> None:
    assert not view_of(state_of(*BASE, service("web", ("", "TCP", 80), ip=address))).services


def test_services_whose_numbers_collide_get_different_groups_and_the_first_keeps_its_own() -> None:
    state = state_of(*BASE, OTHER)
    (alone,) = view_of(state).services.values()
    state.apply("Service", "ADDED", service("buckeroo", ("", "TCP", 80)))
    groups = {key: port.group for key, port in view_of(state).services.items()}
    assert groups == {"default/buckeroo:80/tcp": alone.group, "default/plumless:80/tcp": alone.group + 1}
    state.apply("Service", "DELETED", service("buckeroo"))
    assert [*view_of(state).services.values()] == [alone]


def test_change_of_one_service_leaves_the_others_the_same_objects() -> None:
    state = state_of(*BASE, WEB, OTHER, slice_of("w", "web", (2, True)))
    before = view_of(state).services
    state.apply("EndpointSlice", "MODIFIED", slice_of("w", "web", (2, True), (3, True)))
    after = view_of(state).services
    assert after["default/plumless:80/tcp"] is before["default/plumless:80/tcp"]
    assert len(after["default/web:80/tcp"].endpoints) == 2
    assert len(before["default/web:80/tcp"].endpoints) == 1  # a view that was given stays as it was


def test_same_view_compiles_to_the_same_fragments_and_a_change_to_few_others() -> None:
    state = state_of(*BASE, WEB, OTHER, slice_of("w", "web", (2, True)))
    view = view_of(state)
    one, two = (pod_bridge(view, cni_of(view), OVS) for _ in range(2))
    assert all(one[key] is two[key] for key in one | two)
    state.apply("EndpointSlice", "MODIFIED", slice_of("w", "web", (3, True)))
    view = view_of(state)
    three = pod_bridge(view, cni_of(view), OVS)
    assert [key for key in one | three if one.get(key) is not three.get(key)] == ["service default/web:80/tcp"]
    # A Service that comes back to what it was is what it was.
    state.apply("EndpointSlice", "MODIFIED", slice_of("w", "web", (2, True)))
    view = view_of(state)
    four = pod_bridge(view, cni_of(view), OVS)
    assert all(one[key] is four[key] for key in one | four)


def test_slice_that_is_relabelled_serves_only_its_new_service() -> None:
    state = state_of(*BASE, WEB, OTHER, slice_of("s", "web", (2, True)))
    state.apply("EndpointSlice", "MODIFIED", slice_of("s", "plumless", (2, True)))
    fresh = state_of(*BASE, WEB, OTHER, slice_of("s", "plumless", (2, True)))
    assert views(state) == views(fresh)
