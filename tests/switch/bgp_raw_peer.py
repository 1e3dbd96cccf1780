"""A BGP peer of bare messages: starts BIRD in this network namespace, tells it UPDATEs, prints what BIRD then holds.

    bgp_raw_peer.py FOLDER < JSON list of {"own": AS, "bird": AS, "updates": [HEX, ...]}

Prints a JSON list, for each session the lines of BIRD's answer to `show route all` of it.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from controllers.bgp import control

MARKER = b"\xff" * 16
# BIRD has one session with each address.
OWN, BIRDS, PORT = "127.0.1.{}", "127.0.0.1", 1790


def message(kind: int, body: bytes = b"") -> bytes:
    """RFC 4271, section 4.1."""
    return MARKER + struct.pack("!HB", 19 + len(body), kind) + body


def opening(asn: int) -> bytes:
    """With four-octet AS numbers (RFC 6793) for IPv4 unicast (RFC 4760)."""
    capabilities = struct.pack("!BBHBB", 1, 4, 1, 0, 1) + struct.pack("!BBI", 65, 4, asn)
    parameters = struct.pack("!BB", 2, len(capabilities)) + capabilities
    body = struct.pack("!BHH4sB", 4, asn if asn < 65536 else 23456, 90, socket.inet_aton("10.0.0.1"), len(parameters))
    return message(1, body + parameters)


def configuration(sessions: list[dict[str, int]]) -> str:
    """A table and a session each, so that equal prefixes of two do not meet."""
    lines = ["router id 10.255.255.1;", "protocol device {}"]
    for number, one in enumerate(sessions):
        lines += [
            f"ipv4 table t{number};",
            f"protocol bgp b{number} {{ local {BIRDS} port {PORT} as {one['bird']};",
            f"  neighbor {OWN.format(number + 1)} as {one['own']}; multihop; passive; strict bind;",
            f"  ipv4 {{ table t{number}; import all; export none; }}; }}",
        ]
    return "\n".join(lines) + "\n"


def tell(number: int, asn: int, updates: list[str]) -> socket.socket:
    """The whole of a session; it stands while the socket does."""
    deadline = time.monotonic() + 10
    while True:
        try:
            sock = socket.create_connection((BIRDS, PORT), timeout=5, source_address=(OWN.format(number + 1), 0))
            break
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    sock.sendall(opening(asn) + message(4))
    sock.sendall(b"".join(map(bytes.fromhex, updates)))
    return sock


def main() -> None:
    """Every session, then the answers."""
    folder, sessions = Path(sys.argv[1]), json.load(sys.stdin)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    (folder / "bird.conf").write_text(configuration(sessions))
    command = ["bird", "-f", "-c", str(folder / "bird.conf"), "-s", str(folder / "ctl"), "-P", str(folder / "pid")]
    bird = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        open_ = [tell(number, one["own"], one["updates"]) for number, one in enumerate(sessions)]
        deadline, seen = time.monotonic() + 10, -1
        # Until nothing more comes.
        while time.monotonic() < deadline:
            time.sleep(0.3)
            answers = [control.ask(folder / "ctl", f"show route all table t{n}") for n in range(len(sessions))]
            count = sum(map(len, answers))
            if count == seen and all(answers):
                break
            seen = count
        print(json.dumps(answers))
        for sock in open_:
            sock.close()
    finally:
        bird.terminate()
        bird.wait()


if __name__ == "__main__":
    main()
