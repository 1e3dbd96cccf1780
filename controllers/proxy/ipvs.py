"""ipvs: kube-proxy's ipvs mode as flows, with the scheduler that the lab file names (mininetes.proxy.scheduler).

All schedulers run wholly in the switch, so new connections work, and as fast, while the controller is away. Those that
count connections go by what the controller counted last.
Source: Kubernetes, "Virtual IPs and Service Proxies", IPVS proxy mode: rr unless another is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controllers.flow.actions import Action
from controllers.flow.program import Fragment, Writer
from controllers.proxy.frontends import EndpointSet, FlowProxy
from controllers.proxy.schedulers import SCHEDULERS, Scheduler, named
from controllers.state import Node, NodeView


class _Scheduled(FlowProxy):
    """The mode with one scheduler."""

    name = "ipvs"
    description = "ipvs with one scheduler"

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.needs_loads = scheduler.counts

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """As the scheduler does."""
        return self._scheduler.choose(w, chosen)


_MODES = {name: _Scheduled(scheduler) for name, scheduler in SCHEDULERS.items()}


class Ipvs(FlowProxy):
    """The proxy mode object."""

    name = "ipvs"
    description = f"kube-proxy's ipvs mode in flows; scheduler: one of {', '.join(SCHEDULERS)}"
    options = ("scheduler",)

    def check(self, options: Mapping[str, object]) -> None:
        """The scheduler must be one there is."""
        super().check(options)
        named(options)

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """One fragment a Service port."""
        return _mode(view.lab.options.get("proxy", {})).fragments(view)

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """Whether the scheduler does."""
        return _mode(options).needs_loads

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """With the scheduler that is taken if none is named."""
        return _mode({}).choose(w, chosen, node)


def _mode(options: Mapping[str, object]) -> _Scheduled:
    return _MODES[named(options)]


PROXY = Ipvs()
