"""Connections are opened on time whatever became of those before, and counted from when they were due."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator

import pytest

from scenarios.connection_churn import KEPT_UP, _kept_up
from scenarios.measure.churn import Client
from scenarios.measure.place import script


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = script("churn.py", "server", "127.0.0.1", port)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
        yield process, port
        process.kill()


def test_every_connection_has_its_answer_and_a_port(server: tuple[subprocess.Popen[bytes], int]) -> None:
    client = Client(("127.0.0.1", server[1]))
    seconds = client.run(200, 1.0, 5.0)
    assert len(client.samples) == 200 and client.errors == {} and 0 < len(client.ports) <= 200
    assert seconds >= 0.99


def test_those_that_were_due_while_the_server_stood_still_are_slow(server: tuple[subprocess.Popen[bytes], int]) -> None:
    process, port = server
    client = Client(("127.0.0.1", port))
    for delay, number in ((0.3, signal.SIGSTOP), (0.7, signal.SIGCONT)):
        threading.Timer(delay, os.kill, (process.pid, number)).start()
    client.run(200, 1.0, 5.0)
    assert len(client.samples) == 200
    assert sum(sample > 200_000 for sample in client.samples) >= 35


def test_what_is_not_answered_is_given_up_and_what_is_refused_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        client = Client(silent.getsockname())
        began = time.monotonic()
        client.run(50, 0.2, 0.3)
        assert client.errors == {"no answer in time": 10} and time.monotonic() - began < 3
    client.errors.clear()
    client.run(50, 0.1, 0.3)
    assert client.errors == {"Connection refused": 5} and client.samples == []


def test_a_rate_is_kept_up_with_if_those_below_it_are() -> None:
    def row(rate: int, achieved: float, failed: float) -> tuple[str, ...]:
        return ("pod", str(rate), f"{achieved}", f"{failed}", "", "", "", "", "")

    rows = [row(50, 50, 0), row(100, 100 * KEPT_UP, 0), row(200, 150, 0), row(400, 400, 0)]
    assert _kept_up(rows, "pod") == "100" and _kept_up(rows, "Service") == "-"
    assert _kept_up([row(50, 50, 0.1), row(100, 100, 0)], "pod") == "-"
