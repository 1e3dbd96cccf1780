"""Asks Services from a pod, a node or the client outside: one JSON request a line in, one JSON answer a line out.

A request has "do" (a function below) and its arguments. An answer to one connection or datagram is what the stand-in
server says (pod, node, client, port), or {"error": WORD}; both with "at", the clock when it was begun, and "ms".
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

Answer = dict[str, Any]
Target = list[Any]  # protocol, address, port
KINDS = {"tcp": (socket.SOCK_STREAM, 0), "udp": (socket.SOCK_DGRAM, 0), "sctp": (socket.SOCK_STREAM, 132)}
KEPT: dict[str, socket.socket] = {}
SERVED: dict[int, socket.socket] = {}
RESET = struct.pack("ii", 1, 0)


def opened(protocol: str, source: str, port: int) -> socket.socket:
    """A socket of that address and port; nothing of a connection stays behind when it is closed."""
    sock = socket.socket(socket.AF_INET, *KINDS[protocol])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if protocol == "tcp":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    if source or port:
        sock.bind((source, port))
    return sock


def one(target: Target, source: str = "", port: int = 0, timeout: float = 1.0, keep: str = "") -> Answer:
    """One connection or datagram. keep: a name under which its socket, so its source port, is used again."""
    protocol, address, number = target
    began = time.monotonic()
    sock = KEPT.pop(keep, None)
    try:
        if sock is None:
            sock = opened(protocol, source, port)
            sock.settimeout(timeout)
            sock.connect((address, number))
        sock.settimeout(timeout)
        sock.send(b"hello")
        said = sock.recv(4096)
        answer = json.loads(said) if said else {"error": "closed"}
    except (ConnectionRefusedError, PermissionError):  # the latter is how a kernel refuses its own machine
        answer = {"error": "refused"}
    except TimeoutError:
        answer = {"error": "timeout"}
    except OSError as error:
        answer = {"error": error.strerror or type(error).__name__}
    if sock is not None and keep:
        KEPT[keep] = sock
    elif sock is not None:
        sock.close()
    return {**answer, "at": began, "ms": round((time.monotonic() - began) * 1000, 2)}


def ask(
    targets: list[Target],
    n: int = 1,
    sources: list[str] | None = None,
    port: int = 0,
    threads: int = 1,
    timeout: float = 1.0,
    keep: str = "",
) -> list[Answer]:
    """Each target n times, in order. sources: addresses to take in turn; port: of the first, counting up."""
    wanted = [target for target in targets for _ in range(n)]
    answers: list[Answer] = [{}] * len(wanted)

    def work(first: int) -> None:
        for place in range(first, len(wanted), threads):
            source = sources[place % len(sources)] if sources else ""
            answers[place] = one(wanted[place], source, port + place if port else 0, timeout, keep)

    workers = [threading.Thread(target=work, args=(first,)) for first in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return answers


def until(target: Target, wanted: list[str], seconds: float = 10, every: float = 0.02, **how: Any) -> Answer:
    """Ask until one of these pods or errors is the answer; the last answer, with "took", the seconds until then."""
    began = time.monotonic()
    while True:
        answer = one(target, **how)
        took = time.monotonic() - began
        if who(answer) in wanted or took > seconds:
            return {**answer, "took": took}
        time.sleep(every)


def hold(target: Target, names: list[str], source: str = "", port: int = 0) -> list[str]:
    """Open a connection under each of these names, and keep it; who answered."""
    return [who(one(target, source, port, keep=name)) for name in names]


def release(names: list[str]) -> None:
    """Close kept sockets."""
    for name in names:
        KEPT.pop(name).close()


def who(answer: Answer) -> str:
    """The pod, or the error."""
    return str(answer.get("pod", answer.get("error")))


def arp(address: str, source: str, seconds: float = 0.4) -> list[str]:
    """MACs that answer "who has this address" on eth0 (RFC 826)."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0806))
    sock.bind(("eth0", 0))
    mac = sock.getsockname()[4]
    request = struct.pack("!HHBBH", 1, 0x800, 6, 4, 1) + mac + socket.inet_aton(source)
    sock.send(b"\xff" * 6 + mac + b"\x08\x06" + request + bytes(6) + socket.inet_aton(address))
    found, end = [], time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            frame = sock.recv(2048)
        except TimeoutError:
            break
        if frame[20:22] == b"\0\x02" and frame[28:32] == socket.inet_aton(address):
            found.append(frame[22:28].hex(":"))
    sock.close()
    return found


def watch(api: str, pod: str, target: Target, flips: int, seconds: float = 20) -> list[list[Any]]:
    """Ask without end until the store has told so many changes of a pod's readiness and an answer came after each.

    [clock, "ready" or "unready", ""] and [clock when begun, "answer", pod or error], in order.
    """
    log: list[list[Any]] = []
    verdicts: list[bool] = []

    def listen() -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(api)
            sock.sendall(json.dumps({"watch": ["Pod"]}).encode() + b"\n")
            for line in sock.makefile("rb"):
                now, thing = time.monotonic(), json.loads(line).get("object")
                if thing is None or thing["metadata"]["name"] != pod:
                    continue
                conditions = thing.get("status", {}).get("conditions", ())
                ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
                if not verdicts or verdicts[-1] != ready:
                    verdicts.append(ready)
                    log.append([now, "ready" if ready else "unready", ""])

    threading.Thread(target=listen, daemon=True).start()
    began, after = time.monotonic(), 0.0
    while time.monotonic() < began + seconds and after < 0.3:
        answer = one(target)
        log.append([answer["at"], "answer", who(answer)])
        if len(verdicts) > flips:  # the first is how it stood
            after = time.monotonic() - max(at for at, what, _ in log if what != "answer")
        time.sleep(0.002)
    return sorted(log)


def write_status(api: str, kind: str, name: str, value: Any) -> Any:
    """Write an object's status, as programs of the cluster do."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(api)
        sock.sendall(json.dumps({"status": [kind, "default", name], "value": value}).encode() + b"\n")
        return json.loads(sock.makefile("rb").readline())


def post(address: str, port: int, path: str) -> str:
    """An HTTP request without a body; the first line of the answer."""
    with socket.create_connection((address, port), 2) as sock:
        sock.sendall(f"POST {path} HTTP/1.0\r\n\r\n".encode())
        return sock.makefile("rb").readline().decode()


def get(address: str, port: int, path: str) -> int:
    """The status of an HTTP answer, 0 for none."""
    try:
        with socket.create_connection((address, port), 1) as sock:
            sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            return int(sock.makefile("rb").readline().split(b" ")[1])
    except OSError:
        return 0


def run(command: list[str]) -> str:
    """What a program says, on either of its streams."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.stdout.decode()


def serve(port: int) -> str:
    """Tell every TCP client as whom it is seen, from now on; the port's second time changes nothing."""
    if port not in SERVED:
        SERVED[port] = listener = socket.create_server(("0.0.0.0", port))

        def answer() -> None:
            while True:
                client, address = listener.accept()
                with client:
                    client.recv(100)
                    client.sendall(json.dumps({"client": address[0]}).encode())

        threading.Thread(target=answer, daemon=True).start()
    return "serving"


def listening() -> list[int]:
    """TCP ports that something listens on here."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sorted({int(line.split()[1].partition(":")[2], 16) for line in lines if line.split()[3] == "0A"})


def main() -> None:
    """Answer until the input ends."""
    for line in sys.stdin:
        request = json.loads(line)
        name = request.pop("do")
        try:
            answer = {"answer": globals()[name](**request)}
        except Exception as error:
            answer = {"failed": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
