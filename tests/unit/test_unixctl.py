"""Asking a switch over its control socket: an answer in pieces, a refusal, an end before the answer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controllers import unixctl

# Given an answer, what was asked.
Switch = Callable[[bytes], list[dict[str, object]]]


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    """A control socket that answers once with these bytes, one after the other; what it was asked."""
    asked: list[dict[str, object]] = []
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "ovs-vswitchd.ctl"))
    listening.listen()
    threads: list[threading.Thread] = []

    def answer(raw: bytes) -> list[dict[str, object]]:
        def serve() -> None:
            caller, _ = listening.accept()
            with caller:
                asked.append(json.loads(caller.recv(4096)))
                for number in range(len(raw)):
                    caller.sendall(raw[number : number + 1])

        threads.append(threading.Thread(target=serve))
        threads[-1].start()
        return asked

    yield answer
    for thread in threads:
        thread.join()
    listening.close()


def test_an_answer_is_taken_when_it_is_whole(switch: Switch, tmp_path: Path) -> None:
    asked = switch(json.dumps({"id": 0, "result": "tcp,orig=()", "error": None}).encode())
    assert unixctl.connections(tmp_path, 5) == "tcp,orig=()"
    assert asked == [{"id": 0, "method": "dpctl/dump-conntrack", "params": ["zone=5"]}]


def test_a_refusal_is_an_error(switch: Switch, tmp_path: Path) -> None:
    switch(b'{"id": 0, "result": null, "error": "no such zone"}')
    with pytest.raises(ValueError, match="no such zone"):
        unixctl.connections(tmp_path, 5)


def test_a_switch_that_ends_before_it_answered(switch: Switch, tmp_path: Path) -> None:
    switch(b'{"id": 0, "resu')
    with pytest.raises(OSError, match="ended before it answered"):
        unixctl.connections(tmp_path, 5)


def test_no_switch(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        unixctl.ask(tmp_path, "version")
