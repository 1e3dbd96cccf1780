"""What many senders answer at once is counted round by round, and TCP's counters are read by their names."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator

import pytest

from scenarios.incast import least
from scenarios.measure import tcp_counters
from scenarios.measure.incast import receive
from scenarios.measure.place import script

PORT = 17090


@pytest.fixture
def senders() -> Iterator[list[str]]:
    """Three, each at an address of the loopback's."""
    addresses = [f"127.0.3.{n}" for n in (1, 2, 3)]
    processes = []
    for address in addresses:
        command = script("incast.py", "sender", address, PORT, 100_000)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield addresses
    for process in processes:
        process.communicate(timeout=5)


def test_every_round_has_all_bytes_of_all(senders: list[str]) -> None:
    found = receive(senders, PORT, 100_000, 20, 5.0)
    assert found["broken"] == 0 and isinstance(found["rounds_us"], list) and len(found["rounds_us"]) == 20


def test_a_round_that_lacks_a_byte_is_not_over(senders: list[str]) -> None:
    began = time.monotonic()
    assert receive(senders, PORT, 100_001, 20, 0.3) == {"rounds_us": [], "broken": 1}
    assert time.monotonic() - began < 3


def test_a_sender_that_is_not_there_breaks_the_first_round() -> None:
    assert receive(["127.0.3.9"], PORT, 10, 20, 0.3) == {"rounds_us": [], "broken": 1}


def test_counters_are_read_by_group_and_name() -> None:
    text = "Tcp: RtoMin RetransSegs MaxConn\nTcp: 200 17 -1\nUdp: InDatagrams\nUdp: 5\n"
    assert tcp_counters.parse(text) == {
        "Tcp.RtoMin": 200,
        "Tcp.RetransSegs": 17,
        "Tcp.MaxConn": -1,
        "Udp.InDatagrams": 5,
    }


def test_counters_of_this_namespace_are_there_and_only_grow() -> None:
    names = tcp_counters.RETRANSMITTED, tcp_counters.TIMEOUTS
    before, after = (tcp_counters.total([os.getpid()], *names) for _ in range(2))
    assert len(before) == 2 and all(old <= new for old, new in zip(before, after, strict=True))


def test_twice_the_senders_take_twice_the_time_but_for_what_passes_at_once() -> None:
    one, two, three = (least(n, 100_000, 50) for n in (1, 2, 3))
    assert two - one == pytest.approx(three - two) == pytest.approx(100_000 * 1514 / 1448 * 8 / 50e6)
    assert one < two - one and least(1, 1000, 50) == 0
