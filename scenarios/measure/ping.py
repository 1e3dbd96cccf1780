"""Time ICMP echoes (RFC 792) with an own small sender, as ping may be absent; runs as a script inside a lab's place.

    ping.py ADDRESS SECONDS COUNT TIMEOUT SIZE DF

SIZE: bytes after the ICMP header, as ping -s; the IP packet has 28 more. DF: 1 sets Don't Fragment, 0 does not.
One echo at a time, the next as soon as the answer is there. Ends after SECONDS or COUNT echoes, whichever is first,
and prints {"samples_us": [...], "lost": N, "error": "the last loss's reason", "mtu": the path's, as known by then}.
An echo without an answer within TIMEOUT seconds is a loss; so is one that is too big for a link and has DF set.

A raw socket needs CAP_NET_RAW in the place's namespace. Without it a ping socket is tried, which the sysctl
net.ipv4.ping_group_range must allow (icmp(7)).
"""

from __future__ import annotations

import os
import struct
import sys
import time
from socket import AF_INET, IPPROTO_ICMP, IPPROTO_IP, SO_RCVTIMEO, SOCK_DGRAM, SOCK_RAW, SOL_SOCKET, socket

ECHO, ECHO_REPLY = 8, 0
SOL_RAW, ICMP_FILTER = 255, 1  # linux/socket.h, linux/icmp.h: a bit set keeps that type out
IP_MTU_DISCOVER, IP_MTU = 10, 14  # linux/in.h, as the two below
IP_PMTUDISC_DONT, IP_PMTUDISC_PROBE = 0, 3
WARM_UP = 10  # echoes not counted (ARP, flow set-up) ...
WARM_UP_SHARE = 0.1  # ... but no more than this share of the duration.


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2)))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def echo(identifier: int, number: int, payload: bytes) -> bytes:
    """An ICMP echo message with its checksum."""
    message = struct.pack("!BBHHH", ECHO, 0, 0, identifier, number) + payload
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def opened(address: str, timeout: float, dont_fragment: bool) -> tuple[socket, bool]:
    """A socket for echoes to the address, and whether it is a raw one (and so gets IP headers too)."""
    try:
        sock, raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), True
        sock.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("I", ~(1 << ECHO_REPLY) & 0xFFFFFFFF))
    except PermissionError:
        sock, raw = socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP), False
    # PROBE sets DF yet disregards a remembered path MTU (ip(7)), so every packet measures the path itself.
    sock.setsockopt(IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE if dont_fragment else IP_PMTUDISC_DONT)
    sock.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("ll", int(timeout), int(timeout % 1 * 1e6)))
    sock.connect((address, 0))  # Only then are ICMP errors reported, and other senders' answers kept out.
    return sock, raw


def one_echo(sock: socket, raw: bool, number: int, payload: bytes, timeout: float) -> int:
    """Send one echo and await its answer; nanoseconds. OSError for a loss, BlockingIOError for no answer."""
    identifier = os.getpid() & 0xFFFF
    message = echo(identifier, number, payload)
    begin = time.perf_counter_ns()
    sock.send(message)
    while True:
        answer = sock.recv(65535)
        took = time.perf_counter_ns() - begin
        at = (answer[0] & 15) * 4 if raw else 0
        kind, _, _, to, which = struct.unpack_from("!BBHHH", answer, at)
        # A ping socket's identifier is the kernel's choice, and the kernel keeps the others' answers out.
        if kind == ECHO_REPLY and which == number and (to == identifier or not raw):
            return took
        if took > timeout * 1e9:  # Others' answers must not put off the time-out for ever.
            raise BlockingIOError


def reason(problem: OSError) -> str:
    """Why an echo was lost."""
    return "no answer in time" if isinstance(problem, BlockingIOError) else problem.strerror or str(problem)


def ping(address: str, seconds: float, count: int, timeout: float, size: int, dont_fragment: bool) -> str:
    """Time echoes; the JSON document above."""
    samples, lost, error, number = [], 0, "", 0
    sock, raw = opened(address, timeout, dont_fragment)
    payload, now = bytes(size), time.perf_counter_ns
    warm_up, until = WARM_UP, now() + int(seconds * WARM_UP_SHARE * 1e9)
    while True:
        number = (number + 1) % 65536
        try:
            took = one_echo(sock, raw, number, payload, timeout)
            if not warm_up:
                samples.append(took / 1000)
        except OSError as problem:
            lost += not warm_up
            error = reason(problem)
        if warm_up:
            warm_up -= 1
            if not warm_up or now() >= until:
                warm_up, until = 0, now() + int(seconds * 1e9)
        elif len(samples) + lost >= count or now() >= until:
            mtu = sock.getsockopt(IPPROTO_IP, IP_MTU)
            return f'{{"samples_us": {samples}, "lost": {lost}, "error": "{error if lost else ""}", "mtu": {mtu}}}'


def main(argv: list[str]) -> None:
    address, seconds, count, timeout, size, dont_fragment = argv
    print(ping(address, float(seconds), int(count), float(timeout), int(size), dont_fragment == "1"))


if __name__ == "__main__":
    main(sys.argv[1:])
