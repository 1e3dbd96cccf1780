"""Who is behind with the lab's lines, or with reports about its bridges, acts once on all that wait."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from controllers.agent.__main__ import Agent
from topo.cluster.lines import batches
from topo.cluster.store import Store
from topo.control.link import Controller

MANY = 50


def sent(sock: socket.socket, *messages: dict[str, Any]) -> None:
    """All of these at once, and no more after them."""
    sock.sendall(b"".join(json.dumps(message).encode() + b"\n" for message in messages))
    sock.shutdown(socket.SHUT_WR)


def test_lines_come_whole_however_they_were_cut() -> None:
    here, there = socket.socketpair()
    found = batches(there)
    here.sendall(b"one\ntwo\nthr")
    assert next(found) == [b"one", b"two"]
    here.sendall(b"ee\n")
    assert next(found) == [b"three"]
    here.sendall(b"x" * 100000 + b"\nunfinished")
    here.close()
    assert [line for lines in found for line in lines] == [b"x" * 100000]


def test_an_agent_that_is_behind_looks_at_its_nodes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "agent.sock"))
        listener.listen()
        agent = Agent(str(tmp_path / "agent.sock"), tmp_path)
        lab, _ = listener.accept()
    node = {"kind": "Node", "metadata": {"name": "n", "annotations": {"mininetes.dev/pid": "1"}}}
    event = {"event": "MODIFIED", "object": node}
    looks: list[int] = []
    monkeypatch.setattr(agent, "_changed", looks.append)
    sent(lab, *(one for n in range(MANY) for one in (event, {"bookmark": n})))
    agent.run()
    assert looks == [MANY - 1]
    assert list(agent.pids) == ["n"]


def test_who_waits_for_bridges_is_woken_once_for_many_reports(tmp_path: Path) -> None:
    class Counted(threading.Condition):
        times = 0

        def notify_all(self) -> None:
            self.times += 1
            super().notify_all()

    store = Store()
    link, woken = Controller(store, tmp_path, ["true"]), Counted()
    link._changed = woken
    here, there = socket.socketpair()
    reports = ({"report": "synced", "bridge": [f"n{n}", "br-int"], "revision": 7, "errors": []} for n in range(MANY))
    sent(here, *reports)
    link._read(there, store.watch()[2])
    assert len(link.synced) == MANY
    assert woken.times == 1
