"""Readiness probes: what to check for a pod (pure), and one thread that checks it from the pod's node."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from topo.cluster.store import Object
from topo.system import inside


@dataclass(frozen=True, slots=True)
class Check:
    """One container's readiness probe. Times in seconds, defaults as in the Kubernetes API (Probe v1 core)."""

    kind: str  # "http", "tcp" or "exec"
    port: int = 0
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    command: tuple[str, ...] = ()
    delay: float = 0
    period: float = 10
    timeout: float = 1
    successes: int = 1
    failures: int = 3


def plan(pod: Object, real: Sequence[str], honour_delay: bool) -> tuple[list[Check], list[str]]:
    """The checks of a pod, and a sentence for each probe that is checked in another way than it asks.

    real: names of containers that run a program of the host; only there an exec probe is run as it stands. The stand-in
    server has none of the image's programs and speaks neither gRPC nor TLS: a TCP connection takes their place.
    """
    checks, notes = [], []
    for container in pod["spec"]["containers"]:
        probe = container.get("readinessProbe")
        if probe is None:
            continue
        is_real = container["name"] in real
        base = {
            "delay": probe.get("initialDelaySeconds", 0) if honour_delay or is_real else 0,
            "period": probe.get("periodSeconds", 10),
            "timeout": probe.get("timeoutSeconds", 1),
            "successes": probe.get("successThreshold", 1),
            "failures": probe.get("failureThreshold", 3),
        }
        ports = container.get("ports") or ()
        http = probe.get("httpGet")
        first = next((p["containerPort"] for p in ports if p.get("protocol", "TCP") == "TCP"), 0)
        instead, port = "", 0
        if http and http.get("scheme", "HTTP") == "HTTP":
            headers = tuple((h["name"], h["value"]) for h in http.get("httpHeaders") or ())
            port = port_number(http["port"], ports)
            checks.append(Check("http", port, http.get("path", "/"), headers, **base))
            continue
        if http:
            instead, port = "an HTTPS request", port_number(http["port"], ports)
        elif "tcpSocket" in probe:
            checks.append(Check("tcp", port_number(probe["tcpSocket"]["port"], ports), **base))
            continue
        elif "grpc" in probe:
            instead, port = "a gRPC health check", probe["grpc"]["port"]
        elif is_real:
            checks.append(Check("exec", command=tuple(probe["exec"]["command"]), **base))
            continue
        else:
            instead, port = f"running {probe['exec']['command'][0]}", first
        if port:
            checks.append(Check("tcp", port, **base))
        how = f"a TCP connection to port {port}" if port else "nothing (it has no TCP port)"
        notes.append(f"container {container['name']}: readiness is {how} instead of {instead}")
    return checks, notes


def port_number(port: int | str, ports: Sequence[Object]) -> int:
    """A probe's port by number, or by the name of a containerPort; 0 if no port has that name."""
    if isinstance(port, int):
        return port
    return next((int(p["containerPort"]) for p in ports if p.get("name") == port), 0)


class Prober:
    """Runs checks and reports each pod's readiness when it changes: verdict(key, ready), from the prober's thread."""

    def __init__(self, verdict: Callable[[str, bool], None]) -> None:
        self._verdict = verdict
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        threading.Thread(target=self._loop.run_forever, name="prober", daemon=True).start()

    def add(self, key: str, checks: Sequence[Check], node_pid: int, pod_pid: int, address: str) -> None:
        """Begin to check a pod from the namespace of its node, as the kubelet does."""

        def begin() -> None:
            self._tasks[key] = self._loop.create_task(self._watch(key, checks, node_pid, pod_pid, address))

        self._loop.call_soon_threadsafe(begin)

    def remove(self, key: str) -> None:
        """Stop checking a pod."""

        def end() -> None:
            task = self._tasks.pop(key, None)
            if task is not None:
                task.cancel()

        self._loop.call_soon_threadsafe(end)

    async def _watch(self, key: str, checks: Sequence[Check], node_pid: int, pod_pid: int, address: str) -> None:
        states = [False] * len(checks)

        async def one(i: int, check: Check) -> None:
            await asyncio.sleep(check.delay)
            good = bad = 0
            while True:
                ok = await _passes(check, node_pid, pod_pid, address)
                good, bad = (good + 1, 0) if ok else (0, bad + 1)
                before = all(states)
                if good >= check.successes:
                    states[i] = True
                elif bad >= check.failures:
                    states[i] = False
                if all(states) != before:
                    self._verdict(key, all(states))
                # Not ready yet: look again soon, for nothing boots here that a second would matter to.
                await asyncio.sleep(check.period if states[i] else min(check.period, 0.2))

        await asyncio.gather(*(one(i, check) for i, check in enumerate(checks)))


async def _passes(check: Check, node_pid: int, pod_pid: int, address: str) -> bool:
    try:
        return await asyncio.wait_for(_attempt(check, node_pid, pod_pid, address), check.timeout)
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return False


async def _attempt(check: Check, node_pid: int, pod_pid: int, address: str) -> bool:
    if check.kind == "exec":
        quiet: Any = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            "mnexec", "-a", str(pod_pid), *check.command, stdin=quiet, stdout=quiet, stderr=quiet
        )
        try:
            return await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
    with inside(node_pid):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (address, check.port))
        if check.kind == "tcp":
            return True
        headers = {"Host": f"{address}:{check.port}", "User-Agent": "kube-probe", **dict(check.headers)}
        lines = [f"GET {check.path} HTTP/1.0", *(f"{name}: {value}" for name, value in headers.items())]
        await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
        status = await loop.sock_recv(sock, 64)
        # Kubernetes: any code from 200 to 399 is success.
        return status.startswith(b"HTTP/") and 200 <= int(status.split(b" ")[1]) < 400
    finally:
        sock.close()
