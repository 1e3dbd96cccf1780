"""Questions leave on time whatever becomes of those before them, and what had to wait counts as slow."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from scenarios.measure.paced import ask
from scenarios.measure.place import script


class Echo:
    """A UDP server that answers, but not while it holds its answers back."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.port: int = self.sock.getsockname()[1]
        self.open = threading.Event()
        self.open.set()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            data, peer = self.sock.recvfrom(64)
            self.open.wait()
            self.sock.sendto(data, peer)


@pytest.fixture
def echo() -> Iterator[Echo]:
    yield Echo()


def test_every_question_is_asked_and_answered(echo: Echo) -> None:
    found = ask("127.0.0.1", echo.port, 0.005, 0.5, 1.0)
    assert found["lost"] == 0 and isinstance(found["samples_us"], list) and len(found["samples_us"]) == 100


def test_answers_that_come_late_all_count(echo: Echo) -> None:
    threading.Timer(0.1, echo.open.clear).start()
    threading.Timer(0.4, echo.open.set).start()
    found = ask("127.0.0.1", echo.port, 0.005, 0.6, 1.0)
    samples = found["samples_us"]
    assert isinstance(samples, list) and len(samples) == 120
    # One who waits for each answer would have met the pause once; of one a 5 ms some 40 waited for 100 ms and more.
    assert sum(sample > 100_000 for sample in samples) >= 30


def test_questions_that_the_sender_itself_was_too_late_for_count_from_when_they_were_due(echo: Echo) -> None:
    command = script("paced.py", "127.0.0.1", echo.port, 0.005, 1.0, 1.0)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        time.sleep(0.4)
        os.kill(sender.pid, signal.SIGSTOP)
        time.sleep(0.4)
        os.kill(sender.pid, signal.SIGCONT)
        found = json.loads(sender.communicate(timeout=20)[0])
    assert len(found["samples_us"]) + found["lost"] == 200
    assert sum(sample > 100_000 for sample in found["samples_us"]) >= 30 and max(found["late_us"]) > 300_000


def test_what_nobody_answers_is_lost() -> None:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as silent:
        silent.bind(("127.0.0.1", 0))
        found = ask("127.0.0.1", silent.getsockname()[1], 0.01, 0.1, 0.2)
    assert found["lost"] == 10 and found["samples_us"] == []
