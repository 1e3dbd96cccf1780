"""Carries kube-proxy's ipvs mode into one node's kernel: virtual servers, their addresses, ipsets, chains.

Source: kube-proxy's ipvs proxier (pkg/proxy/ipvs: proxier.go, graceful_termination.go); kernel documentation,
"IPVS-sysctl".
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from controllers.agent.commands import run
from controllers.flow.fields import ip_number, ip_text
from controllers.kernel import ipsets, ipvs, ipvs_chains
from controllers.kernel.ipvs_state import Wanted, wanted
from controllers.kernel.part import IptablesRules
from controllers.state import NodeView

LOG = logging.getLogger("mininetes")
DEVICE = "kube-ipvs0"
# conn_reuse_mode is left as it is, as kube-proxy does from Linux 5.9 on. The last two are its option strictARP, without
# which every node would answer for a load balancer's address (MetalLB, "Installation", "Preparation").
_SYSCTLS = (
    "net.ipv4.vs.conntrack=1",
    "net.ipv4.vs.expire_nodest_conn=1",
    "net.ipv4.vs.expire_quiescent_template=1",
    "net.ipv4.ip_forward=1",
    "net.ipv4.conf.all.arp_ignore=1",
    "net.ipv4.conf.all.arp_announce=2",
)
# Seconds after which it is looked again whether real servers that are to go still have connections
# (rsCheckDeleteInterval); a change of the cluster looks at once.
INTERVAL = 60.0


@dataclass(frozen=True, slots=True)
class _Held:
    """What the kernel has."""

    table: ipvs.Table
    sets: ipsets.Sets
    addresses: frozenset[int]


class IpvsRules:
    """One node's. interval: see INTERVAL."""

    def __init__(self, pid: int, interval: float = INTERVAL) -> None:
        self._pid, self._interval = pid, interval
        self._chains = IptablesRules(pid, "legacy", ipvs_chains.HOOKS)
        # None: an agent before this one, or a change that failed halfway, left nobody knows what.
        self._held: _Held | None = None
        self._wanted: Wanted | None = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def sync(self, view: NodeView) -> None:
        """Write what changed, in one batch a program. Raises RuntimeError or OSError."""
        with self._lock:
            self._wanted = wanted(view)
            self._write(self._wanted)

    def close(self) -> None:
        """What is written goes with the node."""
        with self._lock:
            self._wanted = None
            if self._timer:
                self._timer.cancel()

    def _write(self, want: Wanted) -> None:
        """A virtual server first, then the address by which packets come to it; and the other way round."""
        held, self._held = self._held or self._read(), None
        text = ipsets.restore(want.sets, held.sets)
        if text:
            run(self._pid, "ipset", "restore", text=text)
        self._chains.write(want.chains)
        going = next(ipvs.leaving(want.table, held.table), None) is not None
        table = ipvs.graceful(want.table, held.table, self._connections() if going else {})
        lines = ipvs.commands(table, held.table)
        if lines:
            run(self._pid, "ipvsadm", "-R", text="".join(f"{line}\n" for line in lines))
        batch = [f"address add {ip_text(a)}/32 dev {DEVICE}" for a in sorted(want.addresses - held.addresses)]
        batch += [f"address del {ip_text(a)}/32 dev {DEVICE}" for a in sorted(held.addresses - want.addresses)]
        if batch:
            run(self._pid, "ip", "-batch", "-", text="".join(f"{line}\n" for line in batch))
        self._held = _Held(table, want.sets, want.addresses)
        if table is not want.table and self._timer is None:
            self._timer = threading.Timer(self._interval, self._again)
            self._timer.daemon = True
            self._timer.start()

    def _again(self) -> None:
        """Take away what had connections and may have none by now."""
        with self._lock:
            self._timer = None
            if self._wanted is None:
                return
            try:
                self._write(self._wanted)
            except (OSError, RuntimeError) as error:  # the next change tries again, and says so if it fails too
                LOG.info("real servers that are to go: %s", error)

    def _read(self) -> _Held:
        """What is there, after making what everything else needs."""
        run(self._pid, "sysctl", "-qw", *_SYSCTLS)
        shown = run(self._pid, "ip", "-brief", "link")
        if not any(line.split()[:1] == [DEVICE] for line in shown.splitlines()):
            run(self._pid, "ip", "link", "add", DEVICE, "type", "dummy")
        words = run(self._pid, "ip", "-4", "-brief", "address", "show", "dev", DEVICE).split()
        addresses = frozenset(ip_number(word.partition("/")[0]) for word in words if "/" in word)
        table = ipvs.parse(run(self._pid, "ipvsadm", "-S", "-n"))
        return _Held(table, ipsets.parse(run(self._pid, "ipset", "save")), addresses)

    def _connections(self) -> ipvs.Connections:
        return ipvs.connections(Path(f"/proc/{self._pid}/net/ip_vs").read_text())
