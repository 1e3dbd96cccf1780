"""Ryu's BGP speaker as a program on one node: told its peers and prefixes, it keeps the kernel's routes.

    python -m controllers.programs.ryu_speaker STATE

Reads JSON texts, one a line, from its standard input until that closes; each says all of:
  {"asn", "address", "cluster", "interface", "prefixes": [...], "hidden": [networks that the kernel must not learn],
   "neighbours": {ADDRESS: {"asn", "client", "calls"}}}
and the file STATE always has what it knows: {"sessions": {ADDRESS: AS}, "routes": {PREFIX: {...}}}.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from controllers.ryu_compat import eventlet

# Ryu's speaker waits for peers with the library's own sockets, which must not stop everything else.
eventlet.monkey_patch(thread=False)

from ryu.services.protocols.bgp.bgpspeaker import BGPSpeaker  # noqa: E402
from ryu.services.protocols.bgp.core_manager import CORE_MANAGER  # noqa: E402
from ryu.services.protocols.bgp.rtconf.common import BGP_CONN_RETRY_TIME  # noqa: E402

# What the kernel calls routes of a BGP daemon (rtnetlink(7), RTPROT_BGP).
_PROTOCOL = "bgp"
# Seconds between calls to a peer that is not there yet.
_RETRY = 2
# Attribute types (RFC 4271, section 5): AS_PATH, MULTI_EXIT_DISC, LOCAL_PREF.
_AS_PATH, _MED, _LOCAL_PREF = 2, 4, 5


class Speaker:
    """One BGP speaker; Ryu can have no second in a process."""

    def __init__(self, state: Path, first: dict[str, Any]) -> None:
        self._state, self._wanted = state, first
        self._sessions: dict[str, int] = {}
        self._routes: dict[str, dict[str, Any]] = {}
        self._neighbours: dict[str, Any] = {}
        self._prefixes: set[str] = set()
        # Routes of a program before this one: what still holds comes again.
        subprocess.run(["ip", "route", "flush", "proto", _PROTOCOL], check=False)
        self._speaker = BGPSpeaker(
            first["asn"],
            first["address"],
            bgp_server_hosts=(first["address"],),
            best_path_change_handler=self._changed,
            peer_up_handler=lambda address, asn: self._session(address, asn),
            peer_down_handler=lambda address, asn: self._session(address, 0),
            cluster_id=first["cluster"],
        )
        # By its own settings a call that fails is made again after 10 seconds at the least, by default after 30.
        CORE_MANAGER.common_conf._settings[BGP_CONN_RETRY_TIME] = _RETRY
        self._write()

    def want(self, wanted: dict[str, Any]) -> None:
        """Peers and prefixes that come or go; the others do not notice."""
        self._wanted = wanted
        for address in set(self._neighbours) - set(wanted["neighbours"]):
            self._speaker.neighbor_del(address)
            del self._neighbours[address]
        for prefix in sorted(self._prefixes - set(wanted["prefixes"])):
            self._speaker.prefix_del(prefix)
        for prefix in sorted(set(wanted["prefixes"]) - self._prefixes):
            self._speaker.prefix_add(prefix)
        self._prefixes = set(wanted["prefixes"])
        for address, one in wanted["neighbours"].items():
            if address not in self._neighbours:
                self._speaker.neighbor_add(
                    address,
                    one["asn"],
                    is_route_reflector_client=one["client"],
                    local_address=wanted["address"],
                    connect_mode="active" if one["calls"] else "passive",
                )
                self._neighbours[address] = one

    def _session(self, address: str, asn: int) -> None:
        # Ryu gives a peer's router ID; ours are their addresses.
        if asn:
            self._sessions[address] = asn
        else:
            self._sessions.pop(address, None)
        self._write()

    def _changed(self, event: Any) -> None:
        prefix = event.prefix
        if prefix in self._prefixes:
            return
        if event.is_withdraw:
            self._routes.pop(prefix, None)
        else:
            self._routes[prefix] = {
                "via": event.nexthop,
                "from": str(event.path.source.ip_address),
                **_said(event.path),
            }
        network = IPv4Network(prefix)
        if not any(network.subnet_of(IPv4Network(hidden)) for hidden in self._wanted["hidden"]):
            words = ["del", prefix] if event.is_withdraw else ["replace", prefix, "via", event.nexthop]
            words += [] if event.is_withdraw else ["dev", self._wanted["interface"]]
            subprocess.run(["ip", "route", *words, "proto", _PROTOCOL], check=False, stderr=subprocess.DEVNULL)
        self._write()

    def _write(self) -> None:
        text = json.dumps({"sessions": self._sessions, "routes": self._routes})
        new = self._state.with_suffix(".new")
        new.write_text(text)
        new.replace(self._state)


def _said(path: Any) -> dict[str, Any]:
    """The path's attributes."""
    as_path, med, preference = (path.get_pattr(kind) for kind in (_AS_PATH, _MED, _LOCAL_PREF))
    segments = as_path.path_seg_list if as_path else []
    return {
        "asPath": [asn for segment in segments for asn in segment],
        "med": med.value if med else 0,
        "localPreference": preference.value if preference else 100,
    }


def main() -> None:
    """Until standard input closes."""
    speaker: Speaker | None = None
    rest = b""
    while True:
        eventlet.hubs.trampoline(0, read=True)
        chunk = os.read(0, 65536)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines[-1:]:  # each says all
            wanted = json.loads(line)
            speaker = speaker or Speaker(Path(sys.argv[1]), wanted)
            speaker.want(wanted)


if __name__ == "__main__":
    main()
