"""ipvs: kube-proxy's ipvs mode as flows, with the scheduler that the lab file names (mininetes.proxy.scheduler).

All schedulers run wholly in the switch, so new connections work, and as fast, while the controller is away. Those that
count connections go by what the controller counted last.
Source: Kubernetes, "Virtual IPs and Service Proxies", IPVS proxy mode: rr unless another is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controllers.flow.actions import Action
from controllers.flow.program import Fragment, Writer
from controllers.proxy import NodePart
from controllers.proxy.frontends import EndpointSet, check_options, fragments
from controllers.proxy.schedulers import SCHEDULERS
from controllers.state import Node, NodeView
from topo.cluster.errors import InputError

_DEFAULT = "rr"


@dataclass(frozen=True, slots=True)
class _Balancer:
    """One scheduler, for every node."""

    scheduler: str
    needs_node = False

    @property
    def needs_loads(self) -> bool:
        """Whether the scheduler counts connections."""
        return SCHEDULERS[self.scheduler].counts

    def choose(self, w: Writer, chosen: EndpointSet, node: Node) -> tuple[Action, ...]:
        """As the scheduler does."""
        return SCHEDULERS[self.scheduler].choose(w, chosen)


class Ipvs:
    """The proxy mode object."""

    name = "ipvs"
    description = f"kube-proxy's ipvs mode in flows; scheduler: one of {', '.join(SCHEDULERS)}"
    attachment = "switch"

    def check(self, options: Mapping[str, object]) -> None:
        """scheduler, beside those of every mode."""
        check_options(self.name, options, ("scheduler",))
        name = options.get("scheduler", _DEFAULT)
        if name not in SCHEDULERS:
            raise InputError("mininetes.proxy.scheduler", f"there is no scheduler {name!r}", ", ".join(SCHEDULERS))

    def fragments(self, view: NodeView) -> Iterable[Fragment]:
        """One fragment a Service port."""
        return fragments(view, _Balancer(view.lab.options.get("proxy", {}).get("scheduler", _DEFAULT)))

    def counts_connections(self, options: Mapping[str, object]) -> bool:
        """Whether the scheduler does."""
        return SCHEDULERS[str(options.get("scheduler", _DEFAULT))].counts

    def node_part(self, pid: int) -> NodePart | None:
        """None."""
        return None


PROXY = Ipvs()
