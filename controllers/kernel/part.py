"""Carries kube-proxy's rules and a Linux CNI's routes into one node's kernel."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from controllers.agent.commands import run
from controllers.kernel import iptables, nftables
from controllers.kernel.conntrack import StaleDatagrams
from controllers.kernel.routes import PeerRoutes
from controllers.proxy import NodePart
from controllers.state import NodeView


class IptablesRules:
    """One node's chains. backend: "legacy" or "nft", as the programs are called; hooks: what leads into the chains."""

    def __init__(self, pid: int, backend: str, hooks: Mapping[str, tuple[str, ...]]) -> None:
        self._pid, self._hooks = pid, hooks
        self._program, self._restore = f"iptables-{backend}", f"iptables-{backend}-restore"
        self._held: iptables.Rules = {}

    def write(self, wanted: iptables.Rules) -> None:
        """Write the chains that changed, in one step a table. Raises RuntimeError."""
        text = iptables.restore(wanted, self._held)
        if text:
            run(self._pid, self._restore, "--noflush", text=text)
        if not self._held:
            self._hook()
        self._held = wanted

    def _hook(self) -> None:
        """Send packets into the chains; a rule that is there already, of an agent before this one, stays."""
        for table, hooks in self._hooks.items():
            for hook in hooks:
                rule = hook.split(" ")
                try:
                    run(self._pid, self._program, "-w", "-t", table, "-C", *rule)
                except RuntimeError:
                    run(self._pid, self._program, "-w", "-t", table, "-A", *rule)


class ProxyChains:
    """One node's chains of kube-proxy's iptables mode."""

    def __init__(self, pid: int) -> None:
        self._rules = IptablesRules(pid, "legacy", iptables.HOOKS)

    def sync(self, view: NodeView) -> None:
        """Write what changed. Raises RuntimeError."""
        self._rules.write(iptables.rules(view))

    def close(self) -> None:
        """The rules go with the node."""


class NftablesRules:
    """One node's table."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._held: nftables.Rules | None = None

    def sync(self, view: NodeView) -> None:
        """Change what changed, in one transaction. Raises RuntimeError."""
        wanted = nftables.rules(view)
        if wanted != self._held:
            run(self._pid, "nft", "-f", "-", text=nftables.transaction(wanted, self._held))
        self._held = wanted

    def close(self) -> None:
        """The rules go with the node."""


class KernelNode:
    """Everything a node of a kernel mode has: ways to its peers' pods, rules, and datagrams' connections forgotten."""

    def __init__(self, pid: int, rules: Callable[[int], NodePart]) -> None:
        self._parts: list[NodePart] = [PeerRoutes(pid), rules(pid), StaleDatagrams(pid)]

    def sync(self, view: NodeView) -> None:
        """One after the other. Raises RuntimeError."""
        for part in self._parts:
            part.sync(view)

    def close(self) -> None:
        """All of them."""
        for part in self._parts:
            part.close()
