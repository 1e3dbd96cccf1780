"""The one door to Ryu: makes 4.34 run on today's eventlet and over unix sockets, and names what we use of it."""

from __future__ import annotations

import os
import struct
import warnings
from typing import Any

# Eventlet says on import that it is in maintenance; Ryu has no other base.
warnings.filterwarnings("ignore", message="(?s).*Eventlet is deprecated")

# No names are looked up here, and eventlet's own resolver takes a fifth of a second to import.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

import eventlet  # noqa: E402
import eventlet.wsgi  # noqa: E402

# Ryu's wsgi module imports a name that eventlet dropped in 0.30.3.
if not hasattr(eventlet.wsgi, "ALREADY_HANDLED"):
    eventlet.wsgi.ALREADY_HANDLED = object()

from ryu.base import app_manager  # noqa: E402
from ryu.controller import controller, ofp_event, ofp_handler  # noqa: E402
from ryu.controller.handler import (  # noqa: E402
    CONFIG_DISPATCHER,
    DEAD_DISPATCHER,
    HANDSHAKE_DISPATCHER,
    MAIN_DISPATCHER,
    set_ev_cls,
)
from ryu.lib import hub  # noqa: E402
from ryu.ofproto import ofproto_v1_5 as ofp  # noqa: E402
from ryu.ofproto import ofproto_v1_5_parser as parser  # noqa: E402
from ryu.ofproto.ofproto_protocol import ProtocolDesc  # noqa: E402

__all__ = [
    "CONFIG_DISPATCHER",
    "DEAD_DISPATCHER",
    "HANDSHAKE_DISPATCHER",
    "MAIN_DISPATCHER",
    "ProtocolDesc",
    "UnixStream",
    "app_manager",
    "controller",
    "eventlet",
    "hub",
    "ofp",
    "ofp_event",
    "parser",
    "set_ev_cls",
]


class NoTcpListener:
    """Stands where Ryu would open TCP port 6653: our channel listens on unix sockets instead."""

    def __call__(self) -> None:
        """Nothing to serve."""


ofp_handler.OpenFlowController = NoTcpListener


def _read_copy_field(cls: Any, buffer: bytes, offset: int) -> Any:
    """OFPActionCopyField.parser, which in Ryu takes the padding behind the two fields for a third."""
    _, length, bits, source, target = struct.unpack_from("!HHHHH", buffer, offset)
    rest, fields = bytes(buffer[offset + 12 : offset + length]), []
    for _ in range(2):
        field, rest = parser.OFPOxmId.parse(rest)
        fields.append(field)
    made = cls(n_bits=bits, src_offset=source, dst_offset=target, oxm_ids=fields)
    made.type, made.len = ofp.OFPAT_COPY_FIELD, length
    return made


def _read_bucket(cls: Any, buffer: bytes, offset: int) -> Any:
    """OFPBucket.parser, which in Ryu reads past the end of a bucket that is not the last."""
    length, size, number = struct.unpack_from("!HHI", buffer, offset)
    made = cls(bucket_id=number)
    made.len, made.action_array_len = length, size
    actions = bytes(buffer[offset + 8 : offset + 8 + size])
    while actions:
        made.actions.append(parser.OFPAction.parser(actions, 0))
        actions = actions[made.actions[-1].len :]
    made.properties = _properties(parser.OFPGroupBucketProp, buffer[offset + 8 + size : offset + length])
    return made


def _read_group(cls: Any, buffer: bytes, offset: int) -> Any:
    """OFPGroupDescStats.parser, which in Ryu reads past the end of a group that is not the last."""
    length, kind, number, size = struct.unpack_from("!HBxIH6x", buffer, offset)
    made = cls(kind, number, length=length)
    at, end = offset + 16, offset + 16 + size
    while at < end:
        made.buckets.append(parser.OFPBucket.parser(buffer, at))
        at += made.buckets[-1].len
    made.properties = _properties(parser.OFPGroupProp, buffer[end : offset + length])
    return made


def _properties(kind: Any, raw: bytes) -> list[Any]:
    """Ryu takes what an experimenter's has for whole words, and a group that hashes by a protocol's number has 61
    bytes of them: it stays as it came."""
    found = []
    while raw:
        number, length = struct.unpack_from("!HH", raw)
        if number == _EXPERIMENTER:
            found.append(bytes(raw[4:length]))
            raw = raw[(length + 7) // 8 * 8 :]
        else:
            one, raw = kind.parse(raw)
            found.append(one)
    return found


# OFPGPT_EXPERIMENTER and OFPGBPT_EXPERIMENTER (OpenFlow 1.5, sections 7.3.4.3.1 and 7.3.5.10).
_EXPERIMENTER = 0xFFFF


parser.OFPActionCopyField.parser = classmethod(_read_copy_field)
parser.OFPBucket.parser = classmethod(_read_bucket)
parser.OFPGroupDescStats.parser = classmethod(_read_group)


class UnixStream:
    """A connected unix socket that takes the TCP options Ryu sets, and ignores them."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock

    def setsockopt(self, *_: Any) -> None:
        """TCP_NODELAY means nothing here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
