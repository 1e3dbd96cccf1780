"""How long a stream of numbered datagrams was interrupted, and running such a stream in a lab."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise

from scenarios.measure.place import Place, end, script, start


@dataclass(frozen=True, slots=True)
class Outage:
    """lost: datagrams. seconds: from the last one before the longest interruption to the first one after it, as they
    were sent; None if none came afterwards."""

    lost: int
    seconds: float | None


def outage(sent: Sequence[float], came: Sequence[int]) -> Outage:
    """From when each was sent and which came. The last few are not lost, but were under way at the end."""
    there = set(came)
    if not there:
        return Outage(len(sent), None)
    last = max(there)
    missing = [number for number in range(last + 1) if number not in there]
    # Nothing for a tenth of a second before the end: it did not come back.
    if sent[-1] - sent[last] > 0.1:
        return Outage(len(missing) + len(sent) - 1 - last, None)
    came_in_order = [0, *sorted(there)]
    gaps = [sent[two] - sent[one] for one, two in pairwise(came_in_order) if two > one + 1]
    return Outage(len(missing), max(gaps, default=0.0))


class Stream:
    """Runs until it is stopped."""

    def __init__(self, sender: subprocess.Popen[bytes], sinks: Sequence[subprocess.Popen[bytes]]) -> None:
        self._sender, self._sinks = sender, sinks

    def stop(self) -> Outage:
        """What became of it."""
        sent = [float(word) for word in _rest(self._sender)]
        came = [int(word) for process in self._sinks for word in _rest(process)]
        return outage(sent, came)


@contextmanager
def stream(client: Place, servers: Sequence[Place], address: str, port: int) -> Iterator[Stream]:
    """From the client to the address meanwhile; whichever of the servers gets a datagram, it came."""
    with ExitStack() as stack:
        sinks = [_started(stack, place, "sink", port) for place in servers]
        yield Stream(_started(stack, client, "send", address, port), sinks)


def _started(stack: ExitStack, place: Place, *arguments: object) -> subprocess.Popen[bytes]:
    process = start(place, script("stream.py", *arguments), stdin=subprocess.PIPE)
    stack.callback(end, process)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def _rest(process: subprocess.Popen[bytes]) -> list[bytes]:
    """What it prints when its standard input closes."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    return process.stdout.read().split()
