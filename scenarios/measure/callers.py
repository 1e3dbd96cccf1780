"""Asks an address many times from a place, and tells who answered whom; runs as a script inside a lab's place.

    callers.py COUNT SOURCE ADDRESS PORT     SOURCE: an address to bind, or - for any

Prints {"answers": {POD: {CLIENT: COUNT}}, "errors": {REASON: COUNT}, "us": [...]}. Each connection is a new one; what
answers says who it is and whom it sees (the stand-in server).
"""

from __future__ import annotations

import json
import socket
import sys
import time

TIMEOUT = 1.0


def ask(source: str, address: tuple[str, int]) -> tuple[str, str]:
    """One connection: the pod that answered, and the client it saw. Raises OSError."""
    bind = None if source == "-" else (source, 0)
    with socket.create_connection(address, timeout=TIMEOUT, source_address=bind) as sock:
        sock.sendall(b"?")
        answer = json.loads(sock.recv(4096) or b"{}")
    if "pod" not in answer:
        raise OSError("closed without an answer")
    return answer["pod"], answer["client"]


def main(count: int, source: str, host: str, port: int) -> None:
    answers: dict[str, dict[str, int]] = {}
    errors: dict[str, int] = {}
    times = []
    for _ in range(count):
        begin = time.perf_counter_ns()
        try:
            pod, client = ask(source, (host, port))
        except OSError as problem:
            reason = "no answer" if isinstance(problem, TimeoutError) else problem.strerror or str(problem)
            errors[reason] = errors.get(reason, 0) + 1
            continue
        times.append((time.perf_counter_ns() - begin) / 1000)
        seen = answers.setdefault(pod, {})
        seen[client] = seen.get(client, 0) + 1
    print(json.dumps({"answers": answers, "errors": errors, "us": times}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
