"""Keeps one bridge equal to its program: reads back after a connection, then sends differences, each confirmed."""

from __future__ import annotations

import logging
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from controllers import wire
from controllers.flow.actions import ZONE
from controllers.flow.diff import Change, difference, parted
from controllers.flow.program import MAGIC, BadFlow, Flow, Group, Program, Slot, Translation
from controllers.ryu_compat import hub

LOG = logging.getLogger("mininetes")

# Messages are joined up to this many bytes: Ryu's send queue holds 16 entries and each costs a system call.
_CHUNK = 1 << 16
# Seconds for which a switch may go on with decisions made by flows that are gone, and a little more
# (ovs-vswitchd.conf.db(5), "max-revalidator").
_CACHED = 0.6


@dataclass(slots=True)
class Held:
    """What a bridge was found to hold of ours: table and cookie of each flow, bucket bytes of each group.

    repeated: places held by more than one flow, which so prove nothing.
    """

    cookies: set[tuple[int, int]] = field(default_factory=set)
    groups: dict[int, bytes] = field(default_factory=dict)
    repeated: set[tuple[int, int]] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Resync:
    """The difference between a program and what a bridge was found to hold.

    doubtful: removed before anything is set; the rest that is stale goes last.
    """

    change: Change
    doubtful: tuple[tuple[int, int], ...]
    stale_cookies: tuple[tuple[int, int], ...]
    stale_groups: tuple[int, ...]


def resync(held: Held, program: Program) -> Resync:
    """What to send so that a bridge that holds `held` holds `program`; nothing that already stands is sent."""
    flows: list[Flow] = [x for fragment in program.values() for x in fragment.flows]
    groups: list[Group] = [g for fragment in program.values() for g in fragment.groups]
    times: dict[tuple[int, int], int] = {}
    for flow in flows:
        place = flow.table.number, flow.cookie
        times[place] = times.get(place, 0) + 1
    # A cookie that two wanted flows share proves neither: both are sent.
    held_once = {place for place in held.cookies - held.repeated if times.get(place, 1) == 1}
    return Resync(
        Change(
            set_flows=tuple(x for x in flows if (x.table.number, x.cookie) not in held_once),
            set_groups=tuple(g for g in groups if held.groups.get(g.id) != wire.buckets(g)),
        ),
        doubtful=tuple(sorted(held.repeated & set(times))),
        stale_cookies=tuple(sorted(held.cookies - set(times))),
        stale_groups=tuple(sorted(set(held.groups) - {g.id for g in groups})),
    )


def is_ours(cookie: int) -> bool:
    """Whether a flow with this cookie was made by this controller or one before it."""
    return cookie >> 56 == MAGIC


@dataclass(slots=True)
class LastSync:
    """What the last synchronisation that sent anything did."""

    revision: int = -1
    set_flows: int = 0
    removed_flows: int = 0
    text: str = ""


class BridgeSync:
    """One bridge. `want` may be called at any time; the sender works through what was wanted last.

    describe_stale: text of the flows with these (table, cookie) pairs, asked before they are removed; changed: told
    when a change of what the bridge held is in force; translated: ways that the switch translates datagrams now.
    """

    def __init__(
        self,
        name: tuple[str, str],
        confirmed: Callable[[BridgeSync], None],
        describe_stale: Callable[[tuple[str, str], Iterable[int]], list[str]],
        changed: Callable[[tuple[str, str]], None] = lambda name: None,
        translated: Callable[[tuple[str, str]], Iterable[Translation]] = lambda name: (),
    ) -> None:
        self.name = name
        self.last = LastSync()
        self.errors: list[str] = []
        self.synced_revision = -1
        self.wanted: Program = {}
        self.revision = -1
        self._confirmed = confirmed
        self._describe_stale = describe_stale
        self._changed = changed
        self._translated = translated
        self._bundle = 0
        self._installed: Program | None = None
        self._slots: dict[Slot, str] = {}
        self._datapath: Any = None
        self._held = Held()
        self._replies: dict[int, Any] = {}
        self._xid = 0
        self._wake = hub.Event()
        self._thread = hub.spawn(self._run)

    def want(self, program: Program, revision: int) -> None:
        """The program the bridge should hold as of this store revision."""
        self.wanted, self.revision = program, revision
        self._wake.set()

    def connected(self, datapath: Any) -> None:
        """A connection stands; what the bridge holds is unknown."""
        self._datapath, self._installed = datapath, None
        self._slots.clear()
        self._wake.set()

    def disconnected(self, datapath: Any) -> None:
        """The connection is gone; every waiting answer is given up."""
        if self._datapath is datapath:
            self._datapath = None
            self.synced_revision = -1
            for waiting in self._replies.values():
                waiting.set()

    def close(self) -> None:
        """The bridge will not come back."""
        hub.kill(self._thread)

    def answered(self, xid: int) -> None:
        """The last part of an answer with this xid came."""
        waiting = self._replies.get(xid)
        if waiting is not None:
            waiting.set()

    def holds_flow(self, table: int, cookie: int) -> None:
        """Part of a read-back."""
        if is_ours(cookie):
            if (table, cookie) in self._held.cookies:
                self._held.repeated.add((table, cookie))
            self._held.cookies.add((table, cookie))

    def holds_groups(self, raw: bytes) -> None:
        """Part of a read-back: the body of one group description reply (OpenFlow 1.5, section 7.3.5.9)."""
        while raw:
            length, _, number, size = struct.unpack_from("!HBxIH6x", raw)
            self._held.groups[number] = raw[16 : 16 + size]
            raw = raw[length:]

    def refused(self, text: str) -> None:
        """The switch answered with an error."""
        LOG.error("%s/%s: %s", *self.name, text)
        self.errors.append(text)

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            datapath, program, revision = self._datapath, self.wanted, self.revision
            if datapath is None or revision < 0:
                continue
            have: Program = self._installed or {}
            gone, come = ({}, {}) if program is have else parted(have, program)
            try:
                done = self._first(datapath, program) if self._installed is None else self._next(datapath, gone, come)
            except Exception as error:  # an edit of a researcher's may fail here; the bridge keeps what it holds
                LOG.exception("%s/%s: cannot synchronise", *self.name)
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            if done and self._datapath is datapath:
                self._remember(gone, come)
                self._installed = program
                self.synced_revision = revision
                self._confirmed(self)

    def _first(self, datapath: Any, program: Program) -> bool:
        self._held = Held()
        if not self._ask(datapath, wire.flow_stats_request) or not self._ask(datapath, wire.group_desc_request):
            return False
        todo = resync(self._held, program)
        stale_text = self._describe_stale(self.name, [c for _, c in todo.stale_cookies])
        messages = [wire.remove_cookie(*place) for place in todo.doubtful]
        messages += [wire.set_group(g) for g in todo.change.set_groups]
        messages += [wire.set_flow(x) for x in todo.change.set_flows]
        messages += [wire.remove_cookie(*place) for place in todo.stale_cookies]
        messages += [wire.remove_group(number) for number in todo.stale_groups]
        if messages:
            text = "\n".join([todo.change.text(), *(f"- {line}" for line in stale_text)]).strip()
            self._note(len(todo.change.set_flows), len(todo.stale_cookies), text)
        if not self._send(datapath, messages):
            return False
        if messages:
            self._changed(self.name)
        return self._forget_strange(datapath, program)

    def _forget_strange(self, datapath: Any, program: Program) -> bool:
        """Forget connections by translations that went while no controller was there, as kube-proxy when it starts."""
        wanted = [fragment.translations for fragment in program.values() if fragment.translations]
        strange = [one for one in self._translated(self.name) if not any(one in some for some in wanted)]
        if not strange:
            return True
        hub.spawn_after(_CACHED, self._forget_again, datapath, strange)
        return self._send(datapath, [wire.forget(ZONE, translation) for translation in strange])

    def _next(self, datapath: Any, gone: Program, come: Program) -> bool:
        self._no_clash(gone, come)
        change = difference(gone, come)
        if not change:
            return True
        self._note(len(change.set_flows), len(change.remove_flows), change)
        messages = [wire.set_group(g) for g in change.set_groups]
        messages += [wire.set_flow(x) for x in change.set_flows]
        messages += [wire.remove_flow(x) for x in change.remove_flows]
        messages += [wire.remove_group(g.id) for g in change.remove_groups]
        if any(x.feature == "policy" for x in (*change.set_flows, *change.remove_flows)):
            # Half a rule would deny what the whole allows, and the other way round.
            self._bundle = self._bundle % 0x7FFFFFFF + 1
            messages = wire.bundle(self._bundle, messages)
        if not self._send(datapath, messages):
            return False
        self._changed(self.name)
        if not change.forget:
            return True
        # Only once the flows have gone: a connection that a packet began by the old translation would stay.
        hub.spawn_after(_CACHED, self._forget_again, datapath, change.forget)
        return self._send(datapath, [wire.forget(ZONE, translation) for translation in change.forget])

    def _forget_again(self, datapath: Any, translations: Iterable[Translation]) -> None:
        """What packets began meanwhile by a decision that the switch had cached, unless it is wanted again."""
        wanted = [fragment.translations for fragment in (self._installed or {}).values() if fragment.translations]
        gone = [one for one in translations if not any(one in some for some in wanted)]
        if self._datapath is datapath and gone:
            datapath.send(b"".join(wire.forget(ZONE, one) for one in gone))

    def _no_clash(self, gone: Program, come: Program) -> None:
        """Raise BadFlow if a fragment that comes wants a slot that another keeps. Costs only what changes."""
        for key, fragment in come.items():
            for flow in fragment.flows:
                owner = self._slots.get(flow.slot, key)
                if owner != key and owner not in gone:
                    raise BadFlow(f"{flow.source} and {owner} both write {flow.text()}")

    def _remember(self, gone: Program, come: Program) -> None:
        """Which fragment writes which slot, now that the bridge holds what has come."""
        for fragment in gone.values():
            for flow in fragment.flows:
                self._slots.pop(flow.slot, None)
        for key, fragment in come.items():
            self._slots.update((flow.slot, key) for flow in fragment.flows)

    def _note(self, added: int, removed: int, text: Any) -> None:
        self.last = LastSync(self.revision, added, removed, text)

    def _send(self, datapath: Any, messages: list[bytes]) -> bool:
        chunk = bytearray()
        for message in messages:
            chunk += message
            if len(chunk) >= _CHUNK:
                datapath.send(bytes(chunk))
                chunk.clear()
        if chunk:
            datapath.send(bytes(chunk))
        return self._ask(datapath, wire.barrier)

    def _ask(self, datapath: Any, request: Callable[[int], bytes]) -> bool:
        """Send a request and wait for its whole answer; False if the connection went first."""
        self._xid = self._xid % 0x7FFFFFFF + 1
        done = self._replies[self._xid] = hub.Event()
        try:
            if self._datapath is not datapath:  # it went before there was anything to give up
                return False
            datapath.send(request(self._xid))
            done.wait()
        finally:
            del self._replies[self._xid]
        return self._datapath is datapath
