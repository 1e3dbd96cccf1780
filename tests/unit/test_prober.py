"""The prober's own sockets: a host outside listens before the first question to it is sent."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from scenarios.netpol import prober


def test_a_host_is_there_before_anybody_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prober, "inside", lambda pid: contextlib.nullcontext())  # all in this network namespace
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    # The asking pod's name comes first in the alphabet, and a connection within one host is refused at once.
    ends = {"default/a": [os.getpid(), "127.0.0.1"], "ip:127.0.0.1": [os.getpid(), "127.0.0.1"]}
    probes = [["default/a", "ip:127.0.0.1", protocol, port, True] for protocol in ("TCP", "UDP")]
    asked = prober.Round(ends, probes, lambda: 1)
    asked.run(0.1, 1.0)
    assert asked.reached == [True, True]
