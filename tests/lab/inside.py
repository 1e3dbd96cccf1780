"""Programs of the tests that run inside a lab: in pods, on nodes and on switches. Each prints lines of JSON."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from conftest import ROOT, RunningLab

HAIRPIN = "169.254.169.252"

_PING = """
import json, re, subprocess, sys
start = lambda address: subprocess.Popen(["ping", "-n", "-c1", "-W2", address], stdout=subprocess.PIPE, text=True)
running = {address: start(address) for address in sys.argv[1:]}
found = {address: re.search(r" ttl=(\\d+)", process.communicate()[0]) for address, process in running.items()}
print(json.dumps({address: int(match[1]) if match else None for address, match in found.items()}))
"""

# One connection or datagram each, answered by the stand-in's line about itself and its client.
_ASK = """
import errno, json, socket, sys, time
def ask(protocol, address, port, source):
    began, answer, error = time.monotonic(), {}, ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM) as sock:
        sock.settimeout(3)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", source))
            sock.connect((address, port))
            sock.sendall(b"x")
            answer = json.loads(sock.recv(4096) or b"{}")
        except OSError as problem:
            error = errno.errorcode.get(problem.errno, type(problem).__name__)
    return [answer.get("pod", ""), answer.get("client", ""), answer.get("port", 0), error, time.monotonic() - began]
targets, source = json.loads(sys.argv[1]), int(sys.argv[2])
print(json.dumps([ask(*target, source and source + i) for i, target in enumerate(targets)]))
"""

# One connection for as long as standard input is open: each line there is sent and the answer printed.
_SESSION = """
import json, socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 3) as sock:
    for line in sys.stdin:
        sock.sendall(line.encode())
        print(sock.recv(4096).decode(), end="", flush=True)
"""

# Until standard input ends: pings every few milliseconds, and new connections one after the other.
_TRAFFIC = """
import json, os, select, socket, struct, sys, threading, time
target, service, port, interval = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
sent, received, connections, failures, ending = {}, {}, [], [], threading.Event()
icmp = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
icmp.connect((target, 0))
number = os.getpid() & 0xffff
def echo(sequence):
    total = 0x0800 + number + sequence
    total = (total & 0xffff) + (total >> 16)
    return struct.pack("!BBHHH", 8, 0, ~total & 0xffff, number, sequence)
def send():
    due, i = time.monotonic(), 0
    while not ending.is_set():
        sent[i] = time.monotonic()
        try:
            icmp.send(echo(i & 0xffff))
        except OSError as error:
            failures.append(f"ping: {error}")
        i, due = i + 1, due + interval
        time.sleep(max(0, due - time.monotonic()))
def receive():
    while len(received) < len(sent) or not ending.is_set():
        if not select.select([icmp], [], [], 1)[0]:
            if ending.is_set():
                return
            continue
        reply = icmp.recv(2048)[20:]
        kind, _, _, whose, sequence = struct.unpack("!BBHHH", reply[:8])
        if (kind, whose) == (0, number):
            now = len(sent) - 1
            received[now - ((now - sequence) & 0xffff)] = time.monotonic()
def connect():
    while not ending.is_set():
        began = time.monotonic()
        try:
            with socket.create_connection((service, port), 3) as sock:
                sock.sendall(b"x")
                assert sock.recv(4096).startswith(b"{")
            connections.append(time.monotonic() - began)
            time.sleep(interval)
        except (OSError, AssertionError) as error:
            failures.append(f"connection: {type(error).__name__} {error}")
            time.sleep(0.01)
work = [threading.Thread(target=target) for target in ([send, receive] + ([connect] if service else []))]
for thread in work:
    thread.start()
print("true", flush=True)
for line in sys.stdin:
    print(json.dumps([len(sent), len(received), len(connections), len(failures)]), flush=True)
ending.set()
for thread in work:
    thread.join()
arrivals = sorted(received.values())
print(json.dumps({"sent": len(sent), "lost": sorted(set(sent) - set(received)), "connections": len(connections),
    "slowest": max(connections, default=0), "failures": failures,
    "gap": max((b - a for a, b in zip(arrivals, arrivals[1:])), default=0)}))
"""

# Sends frames as they are, given in hexadecimal.
_SEND = """
import socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
    sock.bind(("eth0", 0))
    for frame in sys.argv[1:]:
        sock.send(bytes.fromhex(frame))
"""

# Prints the frames that reached eth0 before one that ends with the given text; its first line says that it listens.
_LISTEN = """
import json, socket, sys
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(3)) as sock:
    sock.bind(("eth0", 3))
    sock.settimeout(10)
    print("true", flush=True)
    found = []
    while True:
        frame, place = sock.recvfrom(65536)
        if frame.rstrip(b"\\0").endswith(sys.argv[1].encode()):
            break
        if place[2] != socket.PACKET_OUTGOING:
            found.append(frame.hex())
print(json.dumps(found))
"""

# Sends a text to a pod, as the last of what a listener there hears.
_LAST = "that is all"
_SAY = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.sendto(sys.argv[2].encode(), (sys.argv[1], 9))
"""

# A server of one connection on a node; says it listens, then who came.
_SERVE = """
import json, socket, sys
with socket.socket() as sock:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(10)
    sock.bind(("", int(sys.argv[1])))
    sock.listen()
    print("true", flush=True)
    one, client = sock.accept()
    one.sendall(b"{}")
    print(json.dumps(client[0]))
"""


def python(script: str, *arguments: str) -> list[str]:
    """The command that runs a script."""
    return [sys.executable, "-I", "-S", "-c", script, *arguments]


@dataclass(frozen=True)
class Answer:
    """What one connection or datagram brought: who answered and whom it saw, or the name of an error."""

    pod: str
    client: str
    port: int
    error: str
    seconds: float


Target = tuple[str, str, int]


def ask(lab: RunningLab, place: str, targets: Sequence[Target], source: int = 0) -> list[Answer]:
    """One connection or datagram to each (protocol, address, port). source: the first's own port, others follow."""
    shown = lab.exec(place, *python(_ASK, json.dumps(list(targets)), str(source)))
    return [Answer(*one) for one in json.loads(shown)]


def ping(lab: RunningLab, place: str, addresses: Sequence[str]) -> dict[str, int | None]:
    """TTL of each address's answer, or nothing."""
    found: dict[str, int | None] = json.loads(lab.exec(place, *python(_PING, *addresses)))
    return found


def send_frames(lab: RunningLab, place: str, frames: Sequence[bytes]) -> None:
    """Put Ethernet frames on a pod's eth0 as they are."""
    lab.exec(place, *python(_SEND, *(frame.hex() for frame in frames)))


class Background:
    """A verb that runs while the test goes on; its output comes line by line."""

    def __init__(self, lab: RunningLab, verb: str, *arguments: str) -> None:
        command = [sys.executable, "-m", "scenarios", verb, "--lab", lab.name, *arguments]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self, seconds: float = 10) -> str:
        """The next line it prints; the empty text when it has ended. Raises queue.Empty if none comes in time."""
        return self._lines.get(timeout=seconds)

    def json(self, seconds: float = 10) -> Any:
        """The next line's value."""
        line = self.line(seconds)
        try:
            return json.loads(line)
        except ValueError:
            rest = "".join(iter(lambda: self.line(seconds), "")) if line else ""
            raise AssertionError(f"it printed no JSON: {line}{rest}") from None

    def say(self, text: str) -> None:
        """Give it a line of input."""
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def finish(self, seconds: float = 10) -> Any:
        """End its input and give the last value it prints."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.json(seconds)

    def wait(self, seconds: float = 10) -> int:
        """Its exit status once it has ended by itself."""
        return self.process.wait(seconds)

    def __enter__(self) -> Background:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.process.terminate()
        self.process.wait(10)
        self._reader.join(5)
        assert not self._reader.is_alive(), "something in the lab still holds the output of a program that has ended"
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


def session(lab: RunningLab, place: str, address: str, port: int) -> Background:
    """A connection that stays: say() a line, json() is the answer."""
    return Background(lab, "exec", place, "--", *python(_SESSION, address, str(port)))


def traffic(
    lab: RunningLab, place: str, target: str, service: str = "", port: int = 0, every: float = 0.002
) -> Background:
    """Pings to target and, if a Service is given, new connections to it, both running when this returns.

    say() anything to be told [pings sent, pings answered, connections, failures] so far; finish() gives the sum.
    """
    started = Background(lab, "exec", place, "--", *python(_TRAFFIC, target, service, str(port), str(every)))
    assert started.json() is True
    return started


class Listener:
    """Hears all that reaches a pod's eth0 from when it is made."""

    def __init__(self, lab: RunningLab, pod: str) -> None:
        self.lab, self.pod = lab, pod
        self.program = Background(lab, "exec", pod, "--", *python(_LISTEN, _LAST))
        assert self.program.json() is True

    def heard(self, last: str) -> list[bytes]:
        """The frames that came until now; then it ends. last: a pod from which the end of it is sent.

        Answers to the pod's own ARP requests are no news.
        """
        self.lab.exec(last, *python(_SAY, self.lab.pod(self.pod)["ip"], _LAST))
        found = [bytes.fromhex(frame) for frame in self.program.json()]
        return [frame for frame in found if frame[12:14] != b"\x08\x06" or frame[20:22] != b"\0\2"]

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.program.__exit__(kind, error, tb)


def serve(lab: RunningLab, place: str, port: int) -> Background:
    """A TCP server of one connection; json() tells its client's address."""
    started = Background(lab, "exec", place, "--", *python(_SERVE, str(port)))
    assert started.json() is True
    return started


def capture(lab: RunningLab, link: str, file: str, count: int, expression: str) -> Background:
    """tcpdump on a link until it has so many packets; it listens when this returns."""
    started = Background(lab, "capture", link, "-w", file, "-c", str(count), "--filter", expression)
    line = started.line()
    while "listening on" not in line:
        assert line, "tcpdump ended at once"
        line = started.line()
    return started
