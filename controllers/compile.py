"""From a view to a program: asks every feature in a fixed order; pure, and the oracle of the Compiler.

A Compiler gives the same and asks a feature again only when a field of the view that it has read is another now.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from controllers import fabric, fabric_routes, uplink
from controllers.cni import Cni
from controllers.features import base, external, pods, policies
from controllers.flow.program import BadFlow, Fragment, Program
from controllers.proxy import Proxy
from controllers.reading import Reads, View, holds, noted
from controllers.state import ClusterState, FabricView, NodeView

# A machine and one of its bridges.
Bridge = tuple[str, str]
# Asks a view (a NodeView, of a fabric switch a FabricView) for what one feature wants of a bridge.
Feature = Callable[[Any], Iterable[Fragment]]


def everything(state: ClusterState, cni: Cni, proxy: Proxy) -> dict[Bridge, Program]:
    """What every bridge of the lab should hold that is known well enough."""
    return {bridge: _program(ask(view) for ask in features) for bridge, view, features in _bridges(state, cni, proxy)}


def pod_bridge(view: NodeView, cni: Cni, proxy: Proxy) -> Program:
    """What br-int of the node should hold."""
    return _program(ask(view) for ask in _of_pods(cni, proxy))


def uplink_bridge(view: NodeView, cni: Cni) -> Program:
    """What br-ex of the node should hold."""
    return _program(ask(view) for ask in _of_uplink(cni))


def fabric_switch(view: FabricView) -> Program:
    """What a fabric switch should hold."""
    return _program(ask(view) for ask in _of_switch(view))


@dataclass(slots=True)
class _Kept:
    """What a feature was asked last time, what it read, and what it said."""

    ask: Feature
    reads: Reads
    answer: tuple[Fragment, ...]


class Compiler:
    """Programs of all bridges, again and again; one that did not change is the same object as before."""

    def __init__(self) -> None:
        self._made: dict[Bridge, tuple[list[_Kept], Program]] = {}

    def everything(self, state: ClusterState, cni: Cni, proxy: Proxy) -> dict[Bridge, Program]:
        """As the function of this name."""
        self._made = {one[0]: self._one(*one) for one in _bridges(state, cni, proxy)}
        return {bridge: program for bridge, (_, program) in self._made.items()}

    def _one(self, bridge: Bridge, view: View, features: Sequence[Feature]) -> tuple[list[_Kept], Program]:
        made = self._made.get(bridge)
        before = made[0] if made is not None else []
        now = [_asked(*one, view) for one in zip_longest(features, before[: len(features)])]
        # Fragments are equal if they are the same.
        same = made is not None and [one.answer for one in before] == [one.answer for one in now]
        return now, made[1] if made is not None and same else _program(one.answer for one in now)


def _asked(ask: Feature, have: _Kept | None, view: View) -> _Kept:
    if have is not None and have.ask == ask and holds(have.reads, view):
        return have
    one, reads = noted(view)
    return _Kept(ask, reads, tuple(ask(one)))


def _bridges(state: ClusterState, cni: Cni, proxy: Proxy) -> Iterator[tuple[Bridge, View, Sequence[Feature]]]:
    of_pods, of_uplink = _of_pods(cni, proxy), _of_uplink(cni)
    for name in state.nodes:
        view = state.node_view(name)
        if view is not None:
            yield (name, "br-int"), view, of_pods
            yield (name, "br-ex"), view, of_uplink
    for name in state.switches:
        fabric_view = state.fabric_view(name)
        if fabric_view is not None:
            yield (name, "br-fabric"), fabric_view, _of_switch(fabric_view)


def _of_pods(cni: Cni, proxy: Proxy) -> Sequence[Feature]:
    features = base.fragments, external.fragments, pods.fragments
    return *features, cni.fragments, proxy.fragments, policies.fragments


def _of_uplink(cni: Cni) -> Sequence[Feature]:
    return uplink.fragments, cni.uplink


def _of_switch(view: FabricView) -> Sequence[Feature]:
    kind = fabric if view.switch.router is None else fabric_routes
    return kind.fragments, kind.announced


def _program(features: Iterable[Iterable[Fragment]]) -> Program:
    program: dict[str, Fragment] = {}
    for fragment in (x for feature in features for x in feature):
        if fragment.key in program:
            raise BadFlow(f"two fragments are called {fragment.key!r}: a Writer's feature and owner must be its own")
        program[fragment.key] = fragment
    return program
