"""Probes: what to check for a pod (pure), and one thread that checks it from the pod's node.

Source: Kubernetes, "Liveness, Readiness, and Startup Probes" and "Configure Liveness, Readiness and Startup Probes".
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from topo.cluster.store import Object
from topo.control.children import sidecars
from topo.system import inside

READINESS, LIVENESS, STARTUP = "readiness", "liveness", "startup"
_STATUS = re.compile(rb"HTTP/\d(?:\.\d)? (\d{3})\b")
# Seconds between two looks at what is not up yet: nothing boots here that a second would matter to.
_SOON = 0.2


@dataclass(frozen=True, slots=True)
class Check:
    """One probe of a container. Times in seconds, defaults as in the Kubernetes API (Probe v1 core)."""

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
    container: str = ""
    purpose: str = READINESS


def plan(pod: Object, real: Sequence[str], honour_delay: bool) -> tuple[list[Check], list[str]]:
    """The checks of a pod, and a sentence for each probe that is checked in another way than it asks.

    real: names of containers that run a program of the host; only there an exec probe is run as it stands. The stand-in
    server has none of the image's programs and speaks neither gRPC nor TLS: a TCP connection takes their place.
    """
    checks, notes = [], []
    for container in (*sidecars(pod), *pod["spec"]["containers"]):
        for purpose in (STARTUP, LIVENESS, READINESS):
            probe = container.get(f"{purpose}Probe")
            if probe is None:
                continue
            check, instead = _check(container, purpose, probe, container["name"] in real, honour_delay)
            if check is not None:
                checks.append(check)
            if instead:
                how = f"a TCP connection to port {check.port}" if check else "nothing (it has no TCP port)"
                notes.append(f"container {container['name']}: {purpose} is {how} instead of {instead}")
    return checks, notes


def _check(
    container: Object, purpose: str, probe: Object, is_real: bool, honour_delay: bool
) -> tuple[Check | None, str]:
    """The check, None if nothing can be checked, and what it stands for if it is not what the probe asks."""
    base: dict[str, Any] = {
        "delay": probe.get("initialDelaySeconds", 0) if honour_delay or is_real else 0,
        "period": probe.get("periodSeconds", 10),
        "timeout": probe.get("timeoutSeconds", 1),
        "successes": probe.get("successThreshold", 1),
        "failures": probe.get("failureThreshold", 3),
        "container": container["name"],
        "purpose": purpose,
    }
    ports, http = container.get("ports") or (), probe.get("httpGet")
    if http and http.get("scheme", "HTTP") == "HTTP":
        headers = tuple((h["name"], h["value"]) for h in http.get("httpHeaders") or ())
        return Check("http", port_number(http["port"], ports), http.get("path", "/"), headers, **base), ""
    if "tcpSocket" in probe:
        return Check("tcp", port_number(probe["tcpSocket"]["port"], ports), **base), ""
    if "exec" in probe and is_real:
        return Check("exec", command=tuple(probe["exec"]["command"]), **base), ""
    if http:
        instead, port = "an HTTPS request", port_number(http["port"], ports)
    elif "grpc" in probe:
        instead, port = "a gRPC health check", probe["grpc"]["port"]
    else:
        first = next((p["containerPort"] for p in ports if p.get("protocol", "TCP") == "TCP"), 0)
        instead, port = f"running {probe['exec']['command'][0]}", first
    return (Check("tcp", port, **base) if port else None), instead


def port_number(port: int | str, ports: Sequence[Object]) -> int:
    """A probe's port by number, or by the name of a containerPort; 0 if no port has that name."""
    if isinstance(port, int):
        return port
    return next((int(p["containerPort"]) for p in ports if p.get("name") == port), 0)


@dataclass(slots=True)
class _Target:
    """A pod that is checked, and the tasks of each of its containers."""

    checks: Sequence[Check]
    node_pid: int
    pod_pid: int
    address: str
    tasks: dict[str, list[asyncio.Task[None]]] = field(default_factory=dict)


class Prober:
    """Runs checks and reports what they find, from the prober's thread.

    verdict(key, container, ready): when the readiness of a container changes, by its readiness probe, or by its startup
    probe if it has no other. failed(key, container, purpose): a liveness or startup probe has failed too often; the
    container is not checked any more until `again`.
    """

    def __init__(self, verdict: Callable[[str, str, bool], None], failed: Callable[[str, str, str], None]) -> None:
        self._verdict, self._failed = verdict, failed
        self._loop = asyncio.new_event_loop()
        self._targets: dict[str, _Target] = {}
        threading.Thread(target=self._loop.run_forever, name="prober", daemon=True).start()

    def add(self, key: str, checks: Sequence[Check], node_pid: int, pod_pid: int, address: str) -> None:
        """Begin to check a pod from the namespace of its node, as the kubelet does."""

        def begin() -> None:
            self._targets[key] = target = _Target(checks, node_pid, pod_pid, address)
            for container in dict.fromkeys(check.container for check in checks):
                self._begin(key, target, container)

        self._loop.call_soon_threadsafe(begin)

    def again(self, key: str, container: str) -> None:
        """Begin anew to check a container that has been restarted."""

        def begin() -> None:
            target = self._targets.get(key)
            if target is not None:
                self._end(target, container)
                self._begin(key, target, container)

        self._loop.call_soon_threadsafe(begin)

    def pause(self, key: str, container: str) -> None:
        """Do not check a container that does not run now."""
        self._loop.call_soon_threadsafe(
            lambda: self._end(self._targets[key], container) if key in self._targets else None
        )

    def remove(self, key: str) -> None:
        """Stop checking a pod."""

        def end() -> None:
            target = self._targets.pop(key, None)
            for container in list(target.tasks) if target else ():
                assert target is not None
                self._end(target, container)

        self._loop.call_soon_threadsafe(end)

    def _begin(self, key: str, target: _Target, container: str) -> None:
        checks = {check.purpose: check for check in target.checks if check.container == container}
        if checks:
            target.tasks[container] = [self._loop.create_task(self._watch(key, target, container, checks))]

    @staticmethod
    def _end(target: _Target, container: str) -> None:
        for task in target.tasks.pop(container, ()):
            task.cancel()

    async def _watch(self, key: str, target: _Target, container: str, checks: dict[str, Check]) -> None:
        if STARTUP in checks and not await self._start(target, checks[STARTUP]):
            self._failed(key, container, STARTUP)
            return
        if READINESS in checks:
            watching = self._loop.create_task(self._readiness(key, target, checks[READINESS]))
            target.tasks[container].append(watching)
        elif STARTUP in checks:
            self._verdict(key, container, True)
        if LIVENESS in checks:
            await self._liveness(target, checks[LIVENESS])
            for task in target.tasks[container][1:]:
                task.cancel()
            self._failed(key, container, LIVENESS)

    async def _start(self, target: _Target, check: Check) -> bool:
        """Whether it comes up before it has been given up: after as many periods as it may fail."""
        await asyncio.sleep(check.delay)
        end = self._loop.time() + check.failures * check.period
        while not await _passes(check, target):
            if self._loop.time() >= end:
                return False
            await asyncio.sleep(min(check.period, _SOON))
        return True

    async def _readiness(self, key: str, target: _Target, check: Check) -> None:
        await asyncio.sleep(check.delay)
        good = bad = 0
        state = False
        while True:
            ok = await _passes(check, target)
            good, bad = (good + 1, 0) if ok else (0, bad + 1)
            before = state
            if good >= check.successes:
                state = True
            elif bad >= check.failures:
                state = False
            if state != before:
                self._verdict(key, check.container, state)
            await asyncio.sleep(check.period if state else min(check.period, _SOON))

    async def _liveness(self, target: _Target, check: Check) -> None:
        """Returns when it has failed too often."""
        await asyncio.sleep(check.delay)
        bad = 0
        while bad < check.failures:
            await asyncio.sleep(check.period)
            bad = 0 if await _passes(check, target) else bad + 1


async def _passes(check: Check, target: _Target) -> bool:
    try:
        return await asyncio.wait_for(_attempt(check, target), check.timeout)
    except (OSError, TimeoutError, ValueError):
        return False


async def _attempt(check: Check, target: _Target) -> bool:
    if check.kind == "exec":
        quiet: Any = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            "mnexec", "-a", str(target.pod_pid), *check.command, stdin=quiet, stdout=quiet, stderr=quiet
        )
        try:
            return await process.wait() == 0
        finally:
            if process.returncode is None:
                process.kill()
    with inside(target.node_pid):
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (target.address, check.port))
        if check.kind == "tcp":
            return True
        headers = {"Host": f"{target.address}:{check.port}", "User-Agent": "kube-probe", **dict(check.headers)}
        lines = [f"GET {check.path} HTTP/1.0", *(f"{name}: {value}" for name, value in headers.items())]
        await loop.sock_sendall(sock, ("\r\n".join(lines) + "\r\n\r\n").encode())
        status = _STATUS.match(await loop.sock_recv(sock, 64))
        # Kubernetes: any code from 200 to 399 is success.
        return status is not None and 200 <= int(status[1]) < 400
    finally:
        sock.close()
