"""Ryu application: on every change of the cluster compiles each bridge's program and hands it to its sender."""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from controllers import cni as cnis
from controllers import compile as compiler
from controllers import loads, unixctl
from controllers import proxy as proxies
from controllers.channel import Channel
from controllers.counting import count
from controllers.flow.actions import ZONE
from controllers.flow.program import Program, Translation, check, listing
from controllers.lablink import LabLink
from controllers.registry import choose, discover
from controllers.ryu_compat import (
    DEAD_DISPATCHER,
    MAIN_DISPATCHER,
    app_manager,
    eventlet,
    hub,
    ofp,
    ofp_event,
    set_ev_cls,
)
from controllers.sync import BridgeSync

LOG = logging.getLogger("mininetes")
_LISTED_STALE = 500
# Seconds until a userspace switch is purged once more.
_AGAIN = 0.05


class Mininetes(app_manager.RyuApp):
    """Cluster state to flows. All decisions are in the compilers; this only carries."""

    OFP_VERSIONS = [ofp.OFP_VERSION]
    _CONTEXTS = {"lab": LabLink}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.lab: LabLink = kwargs["lab"]
        self.cnis = discover(cnis, "CNI")
        self.proxies = discover(proxies, "PROXY")
        self.bridges: dict[tuple[str, str], BridgeSync] = {}
        self.checked: set[tuple[str, str]] = set()
        self.lab.on_bookmark.append(self._changed)
        self.lab.answers |= {"listing": self._listing, "diff": self._diff, "owners": self._owners}
        self._compiler = compiler.Compiler()
        self._dirty = hub.Event()

    def start(self) -> None:
        """Compile whenever something changed, however often it did meanwhile."""
        super().start()
        hub.spawn(self._run)
        hub.spawn(count, Channel.run, self.lab.state, self._counts, self._changed)

    def _changed(self) -> None:
        self._dirty.set()

    def _run(self) -> None:
        while True:
            self._dirty.wait()
            self._dirty.clear()
            try:
                self._compile()
            except Exception as error:  # an edited compiler: say so, and leave the switches as they are
                LOG.exception("cannot compile")
                self.lab.report("failure", text=f"{type(error).__name__}: {error}")

    def _counts(self) -> bool:
        lab = self.lab.state.lab
        return lab is not None and self.proxies[lab.proxy_mode].counts_connections(lab.options.get("proxy", {}))

    def _compile(self) -> None:
        state, revision = self.lab.state, self.lab.revision
        if state.lab is None:
            return
        cni = choose(self.cnis, state.lab.cni, "CNI", "Lab")
        proxy = choose(self.proxies, state.lab.proxy_mode, "proxy mode", "Lab")
        programs = self._compiler.everything(state, cni, proxy)
        for bridge in set(self.bridges) - set(programs):
            self.bridges.pop(bridge).close()
        for bridge, program in programs.items():
            if bridge not in self.checked:
                check(program)
                self.checked.add(bridge)
            self._bridge(bridge).want(program, revision)

    def _bridge(self, name: tuple[str, str]) -> BridgeSync:
        if name not in self.bridges:
            self.bridges[name] = BridgeSync(name, self._confirmed, _describe_stale, self._purge, _translated)
        return self.bridges[name]

    def _purge(self, name: tuple[str, str]) -> None:
        """Make a userspace switch decide anew about every packet it remembers how to treat.

        Open vSwitch 3.1 finds the remembered decision that a change concerns by a packet, not by its identity,
        and changes another one where two overlap (ovs-dev, "dpif-netdev: fix inconsistent processing between ukey and
        megaflow"). The wrong one would then stand for as long as packets come. The second time is for those that were
        being looked at meanwhile, which are passed over.
        """
        lab = self.lab.state.lab
        if name[1] != "br-int" or lab is None or lab.datapath != "netdev":
            return
        folder = Channel.run / name[0]
        _purge(folder)
        hub.spawn_after(_AGAIN, _purge, folder)

    def _confirmed(self, bridge: BridgeSync) -> None:
        self.lab.report(
            "synced",
            bridge=list(bridge.name),
            revision=bridge.synced_revision,
            errors=bridge.errors[-3:],
            set=bridge.last.set_flows,
            removed=bridge.last.removed_flows,
        )

    @set_ev_cls(ofp_event.EventOFPStateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])
    def _state(self, event: Any) -> None:
        datapath = event.datapath
        if not isinstance(datapath.address, tuple):
            return
        bridge = self._bridge(datapath.address)
        if event.state == MAIN_DISPATCHER:
            bridge.connected(datapath)
        else:
            bridge.disconnected(datapath)
            self.lab.report("lost", bridge=list(datapath.address))

    @set_ev_cls(ofp_event.EventOFPBarrierReply, MAIN_DISPATCHER)
    def _barrier(self, event: Any) -> None:
        self._bridge(event.msg.datapath.address).answered(event.msg.xid)

    @set_ev_cls(ofp_event.EventOFPFlowDescStatsReply, MAIN_DISPATCHER)
    def _flows(self, event: Any) -> None:
        bridge = self._bridge(event.msg.datapath.address)
        for flow in event.msg.body:
            bridge.holds_flow(flow.table_id, flow.cookie)
        self._maybe_last(bridge, event.msg)

    @set_ev_cls(ofp_event.EventOFPGroupDescStatsReply, MAIN_DISPATCHER)
    def _groups(self, event: Any) -> None:
        bridge = self._bridge(event.msg.datapath.address)
        bridge.holds_groups(bytes(event.msg.buf[16:]))  # after the header and the multipart header
        self._maybe_last(bridge, event.msg)

    @staticmethod
    def _maybe_last(bridge: BridgeSync, message: Any) -> None:
        if not message.flags & ofp.OFPMPF_REPLY_MORE:
            bridge.answered(message.xid)

    @set_ev_cls(ofp_event.EventOFPErrorMsg, MAIN_DISPATCHER)
    def _error(self, event: Any) -> None:
        message = event.msg
        # A flow-mod's cookie stands right after its header and says whose it was.
        cookie = struct.unpack_from("!Q", message.data, 8)[0] if len(message.data) >= 16 else 0
        text = f"OpenFlow error type {message.type} code {message.code}, {_owner(self._programs(message), cookie)}"
        self._bridge(message.datapath.address).refused(text)

    def _programs(self, message: Any) -> Program:
        return self._bridge(message.datapath.address).wanted

    @set_ev_cls(ofp_event.EventOFPPortStatus, MAIN_DISPATCHER)
    def _port(self, event: Any) -> None:
        name, bridge = event.msg.datapath.address
        if bridge != "br-fabric":
            return
        port = event.msg.desc
        dead = event.msg.reason == ofp.OFPPR_DELETE or port.state & ofp.OFPPS_LINK_DOWN
        state = self.lab.state
        place = {(name, port.port_no)}
        down = state.down | place if dead else state.down - place
        if down != state.down:
            state.down = down
            self._dirty.set()

    def _listing(self, message: dict[str, Any]) -> Any:
        return {"text": listing(self.bridges[tuple(message["bridge"])].wanted)}

    def _diff(self, message: dict[str, Any]) -> Any:
        last = self.bridges[tuple(message["bridge"])].last
        text = last.text if isinstance(last.text, str) else last.text.text()
        return {"revision": last.revision, "set": last.set_flows, "removed": last.removed_flows, "text": text}

    def _owners(self, message: dict[str, Any]) -> Any:
        program = self.bridges[tuple(message["bridge"])].wanted
        return {
            f"{x.cookie:#x}": [x.feature, x.owner, x.source, x.text()]
            for fragment in program.values()
            for x in fragment.flows
        }


def _purge(folder: Path) -> None:
    try:
        unixctl.ask(folder, "revalidator/purge")
    except (OSError, ValueError) as error:  # a switch that goes remembers nothing either
        LOG.warning("%s: the switch's memory was not purged: %s", folder.name, error)


def _translated(name: tuple[str, str]) -> Iterable[Translation]:
    if name[1] != "br-int":
        return ()
    try:
        return loads.datagrams(unixctl.connections(Channel.run / name[0], ZONE))
    except (OSError, ValueError) as error:
        LOG.warning("%s: its connections were not looked at: %s", name[0], error)
        return ()


def _owner(program: Program, cookie: int) -> str:
    for fragment in program.values():
        for flow in fragment.flows:
            if flow.cookie == cookie:
                return f"for {flow.feature} {flow.owner}, built at {flow.source}: {flow.text()}"
    return f"cookie {cookie:#x}"


def _describe_stale(name: tuple[str, str], cookies: Iterable[int]) -> list[str]:
    """The switch's own words for flows about to be removed; only their number where they are very many."""
    cookies = list(cookies)
    if not cookies or len(cookies) > _LISTED_STALE:
        return [f"{len(cookies)} flows of an earlier program"] if cookies else []
    management = Channel.run / name[0] / f"{name[1]}.mgmt"
    command = ["ovs-ofctl", "-O", "OpenFlow14", "--no-stats", "--names", "dump-flows", f"unix:{management}"]
    done = eventlet.green.subprocess.run(command, capture_output=True, text=True, check=False)
    marks = [f"cookie={c:#x}," for c in cookies]
    return [line.strip() for line in done.stdout.splitlines() if any(m in line for m in marks)]
