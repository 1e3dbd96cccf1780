"""Readiness probes: what is checked instead of what, and when a pod's readiness flips against a real server."""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from topo.cluster.store import Object
from topo.probes import Check, Prober, plan, port_number

pytestmark = pytest.mark.as_root  # setns(2): the prober enters the node's namespace
HTTP = {"httpGet": {"path": "/healthz", "port": 8080}}


def pod(*containers: Object) -> Object:
    return {"kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": list(containers)}}


def container(probe: Object | None = None, name: str = "c", ports: Sequence[Object] = ()) -> Object:
    return {"name": name, "ports": list(ports), **({"readinessProbe": probe} if probe else {})}


def planned(probe: Object, *ports: Object, real: Sequence[str] = (), honour: bool = False) -> tuple[Check, list[str]]:
    """The one check of a container with this probe, and what is said about it."""
    (check,), notes = plan(pod(container(probe, ports=ports)), real, honour)
    assert (check.container, check.purpose) == ("c", "readiness")
    return replace(check, container=""), notes


# What is checked


def test_containers_without_a_probe_are_not_checked() -> None:
    assert plan(pod(container(), container(name="d")), [], False) == ([], [])


def test_the_defaults_are_those_of_the_kubernetes_api() -> None:
    check, notes = planned({"httpGet": {"port": 80}})
    assert check == Check("http", 80, "/", (), (), delay=0, period=10, timeout=1, successes=1, failures=3)
    assert notes == []


def test_times_and_thresholds_are_taken_over() -> None:
    times = {"periodSeconds": 3, "timeoutSeconds": 2, "successThreshold": 4, "failureThreshold": 5}
    assert planned({**HTTP, **times})[0] == Check(
        "http", 8080, "/healthz", period=3, timeout=2, successes=4, failures=5
    )


@pytest.mark.parametrize(
    ("honour", "real", "delay"), [(False, [], 0), (True, [], 30), (False, ["c"], 30), (True, ["c"], 30)]
)
def test_the_delay_is_for_real_programs_and_where_it_is_asked_for(honour: bool, real: list[str], delay: int) -> None:
    assert planned({**HTTP, "initialDelaySeconds": 30}, real=real, honour=honour)[0].delay == delay


def test_http_headers_are_taken_over_in_order() -> None:
    headers = [{"name": "Host", "value": "shop"}, {"name": "X-A", "value": "1"}]
    check, _ = planned({"httpGet": {"port": 80, "httpHeaders": headers}})
    assert check.headers == (("Host", "shop"), ("X-A", "1"))


def test_tcp_probes_are_checked_as_they_stand() -> None:
    assert planned({"tcpSocket": {"port": 6379}}) == (Check("tcp", 6379), [])


@pytest.mark.parametrize("handler", ["httpGet", "tcpSocket"])
def test_named_ports_are_looked_up_in_the_container(handler: str) -> None:
    ports = [{"name": "metrics", "containerPort": 9100}, {"name": "web", "containerPort": 8080}]
    assert planned({handler: {"port": "web"}}, *ports)[0].port == 8080
    assert planned({handler: {"port": "none"}}, *ports)[0].port == 0


def test_port_numbers_stand_for_themselves() -> None:
    assert port_number(80, [{"name": "web", "containerPort": 8080}]) == 80
    assert port_number("web", []) == 0


def test_a_grpc_probe_becomes_a_tcp_connection_to_its_port() -> None:
    assert planned({"grpc": {"port": 9555}}) == (
        Check("tcp", 9555),
        ["container c: readiness is a TCP connection to port 9555 instead of a gRPC health check"],
    )


def test_an_https_probe_becomes_a_tcp_connection_to_its_port() -> None:
    check, notes = planned({"httpGet": {"port": "tls", "scheme": "HTTPS"}}, {"name": "tls", "containerPort": 8443})
    assert check == Check("tcp", 8443)
    assert notes == ["container c: readiness is a TCP connection to port 8443 instead of an HTTPS request"]


def test_an_exec_probe_of_a_stand_in_becomes_a_tcp_connection_to_the_first_tcp_port() -> None:
    ports = [{"containerPort": 53, "protocol": "UDP"}, {"containerPort": 9042}, {"containerPort": 7000}]
    check, notes = planned({"exec": {"command": ["/ready.sh", "-x"]}, "periodSeconds": 7}, *ports)
    assert check == Check("tcp", 9042, period=7)
    assert notes == ["container c: readiness is a TCP connection to port 9042 instead of running /ready.sh"]


def test_an_exec_probe_of_a_stand_in_without_tcp_ports_checks_nothing_and_says_so() -> None:
    probe = {"exec": {"command": ["/ready.sh"]}}
    assert plan(pod(container(probe, ports=[{"containerPort": 53, "protocol": "UDP"}])), [], False) == (
        [],
        ["container c: readiness is nothing (it has no TCP port) instead of running /ready.sh"],
    )


def test_an_exec_probe_of_a_real_program_is_run_as_it_stands() -> None:
    check, notes = planned({"exec": {"command": ["test", "-e", "/x"]}}, {"containerPort": 80}, real=["c"])
    assert check == Check("exec", command=("test", "-e", "/x"))
    assert notes == []


def test_every_container_is_checked_by_its_own_probe_and_ports() -> None:
    first = container({"tcpSocket": {"port": "web"}}, "a", [{"name": "web", "containerPort": 1}])
    second = container({"tcpSocket": {"port": "web"}}, "b", [{"name": "web", "containerPort": 2}])
    checks, notes = plan(pod(first, container(name="none"), second), [], False)
    assert [check.port for check in checks] == [1, 2]
    assert notes == []


def test_every_purpose_has_its_check_and_its_note() -> None:
    probes = {
        f"{purpose}Probe": {"grpc": {"port": i}} for i, purpose in enumerate(("startup", "liveness", "readiness"), 1)
    }
    checks, notes = plan(pod({"name": "c", **probes}), [], False)
    assert [(c.purpose, c.port) for c in checks] == [("startup", 1), ("liveness", 2), ("readiness", 3)]
    assert [note.split(":")[1].split()[0] for note in notes] == ["startup", "liveness", "readiness"]


def test_sidecars_are_checked_and_other_init_containers_are_not() -> None:
    beside = {**container({"tcpSocket": {"port": 1}}, "s"), "restartPolicy": "Always"}
    one = pod(container())
    one["spec"]["initContainers"] = [container({"tcpSocket": {"port": 2}}, "i"), beside]
    assert [(c.container, c.port) for c in plan(one, [], False)[0]] == [("s", 1)]


# The prober against a server in this process's own network

OK, BAD = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 503 Service Unavailable\r\n\r\n"


class Server:
    """Answers each connection with the reply that stands when it comes, and counts them."""

    def __init__(self) -> None:
        self.reply: bytes | None = OK  # None: not at all
        self.requests: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self.port = 0
        self._listener: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(5)

    def start(self) -> None:
        """Listen, at the same port as before."""

        async def begin() -> None:
            self._listener = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._listener.sockets[0].getsockname()[1]

        self.run(begin)

    def stop(self) -> None:
        """Refuse connections."""

        async def end() -> None:
            assert self._listener is not None
            self._listener.close()

        self.run(end)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as cut:
            head = cut.partial  # a TCP probe says nothing
        self.requests.put((time.monotonic(), head))
        if self.reply is None:
            await reader.read()
        else:
            writer.write(self.reply)
        writer.close()


class Watched:
    """A prober whose verdicts are waited for."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.verdicts: queue.SimpleQueue[tuple[str, bool, float]] = queue.SimpleQueue()
        self.failures: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self.prober = Prober(
            lambda key, _, ready: self.verdicts.put((key, ready, time.monotonic())),
            lambda key, container, purpose: self.failures.put((key, container, purpose)),
        )

    def add(self, *checks: Check, key: str = "ns/p", node_pid: int = 0) -> None:
        self.prober.add(key, checks, node_pid or os.getpid(), os.getpid(), "127.0.0.1")

    def next(self, seconds: float = 5) -> tuple[bool, float]:
        """The next verdict on the pod and its moment."""
        key, ready, moment = self.verdicts.get(timeout=seconds)
        assert key == "ns/p"
        return ready, moment

    def ready(self) -> bool:
        return self.next()[0]

    def request(self) -> tuple[float, bytes]:
        """The next request the server saw."""
        return self.server.requests.get(timeout=5)

    def silent(self, seconds: float) -> bool:
        """Whether no verdict comes for so long."""
        try:
            self.verdicts.get(timeout=seconds)
        except queue.Empty:
            return True
        return False

    def skip_requests(self) -> None:
        """Forget the requests so far."""
        while not self.server.requests.empty():
            self.server.requests.get()


@pytest.fixture
def watched() -> Iterator[Watched]:
    server = Server()
    server.start()
    one = Watched(server)
    yield one
    one.prober.remove("ns/p")
    server.end()


def http(server: Server, **times: Any) -> Check:
    return Check("http", server.port, "/healthz", **{"period": 0.05, "timeout": 1.0, **times})


def test_a_good_answer_makes_the_pod_ready_and_is_asked_for_as_kubelets_ask(watched: Watched) -> None:
    watched.add(Check("http", watched.server.port, "/healthz?full=1", (("X-A", "1"), ("Host", "shop")), period=60))
    assert watched.ready() is True
    lines = watched.request()[1].decode().split("\r\n")
    assert lines[0] == "GET /healthz?full=1 HTTP/1.0"
    assert {"Host: shop", "User-Agent: kube-probe", "X-A: 1"} == set(filter(None, lines[1:]))


@pytest.mark.parametrize(("status", "good"), [(200, True), (204, True), (302, True), (399, True), (400, False)])
def test_codes_from_200_to_399_are_success(watched: Watched, status: int, good: bool) -> None:
    watched.server.reply = f"HTTP/1.1 {status} Whatever\r\n\r\n".encode()
    watched.add(http(watched.server))
    if good:
        assert watched.ready() is True
    else:
        for _ in range(4):
            watched.request()
        assert watched.verdicts.empty()


def test_a_pod_that_never_passes_is_never_reported(watched: Watched) -> None:
    watched.server.reply = BAD
    watched.add(http(watched.server, failures=1))
    for _ in range(5):
        watched.request()
    assert watched.verdicts.empty()


@pytest.mark.parametrize("failures", [1, 3])
def test_a_ready_pod_flips_after_so_many_failures_a_period_apart(watched: Watched, failures: int) -> None:
    watched.add(http(watched.server, failures=failures, period=0.1))
    assert watched.ready() is True
    watched.server.reply = BAD
    watched.skip_requests()
    ready, moment = watched.next()
    assert ready is False
    seen = [watched.request()[0] for _ in range(watched.server.requests.qsize())]
    # The first may have been on its way with the good answer; the one that flipped is the last.
    assert failures <= len(seen) <= failures + 1
    assert moment - seen[-failures] >= (failures - 1) * 0.09


def test_one_success_between_failures_begins_the_count_anew(watched: Watched) -> None:
    watched.add(http(watched.server, failures=2, period=0.05))
    assert watched.ready() is True
    for _ in range(3):
        watched.server.reply = BAD
        watched.skip_requests()
        watched.request()
        watched.server.reply = OK
        watched.skip_requests()
        watched.request()
    assert watched.verdicts.empty()


def test_a_pod_becomes_ready_again_only_after_so_many_successes(watched: Watched) -> None:
    watched.add(http(watched.server, successes=3, failures=1))
    assert watched.ready() is True
    assert watched.server.requests.qsize() == 3
    watched.server.reply = BAD
    assert watched.ready() is False
    watched.server.reply = OK
    watched.skip_requests()
    assert watched.ready() is True
    assert watched.server.requests.qsize() in (2, 3)  # one may have been answered before they were forgotten


def test_a_pod_that_is_not_ready_is_looked_at_more_often_than_its_period(watched: Watched) -> None:
    watched.server.reply = BAD
    watched.add(http(watched.server, period=60))
    watched.request()
    watched.request()
    watched.server.reply = OK
    assert watched.ready() is True


def test_a_ready_pod_is_looked_at_once_a_period(watched: Watched) -> None:
    watched.add(http(watched.server, period=0.25))
    first, second, third = (watched.request()[0] for _ in range(3))
    assert second - first >= 0.24
    assert third - second >= 0.24


def test_the_first_look_waits_for_the_delay(watched: Watched) -> None:
    began = time.monotonic()
    watched.add(http(watched.server, delay=0.3))
    assert watched.next()[1] - began >= 0.29


def test_an_answer_after_the_timeout_is_a_failure(watched: Watched) -> None:
    watched.add(http(watched.server, timeout=0.1, failures=1))
    assert watched.ready() is True
    watched.server.reply = None
    assert watched.ready() is False


def test_something_else_than_http_is_a_failure(watched: Watched) -> None:
    watched.server.reply = b"SSH-2.0-OpenSSH 200\r\n"
    watched.add(http(watched.server))
    for _ in range(3):
        watched.request()
    watched.server.reply = OK
    assert watched.ready() is True


@pytest.mark.parametrize("reply", [b"HTTP/1.1 \r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 OK 200\r\n\r\n"])
def test_a_malformed_status_line_is_a_failure(watched: Watched, reply: bytes) -> None:
    watched.server.reply = reply
    watched.add(http(watched.server))
    watched.request()
    watched.server.reply = OK
    assert watched.next(1)[0] is True


def test_liveness_that_fails_too_often_is_told_once_and_checked_again_when_asked(watched: Watched) -> None:
    watched.add(http(watched.server, purpose="liveness", container="c", failures=2))
    for _ in range(4):
        watched.request()
    assert watched.failures.empty()
    for _ in range(2):
        watched.server.reply = BAD
        assert watched.failures.get(timeout=5) == ("ns/p", "c", "liveness")
        watched.server.reply = OK
        watched.skip_requests()
        time.sleep(0.2)
        assert watched.server.requests.empty()
        watched.prober.again("ns/p", "c")
        watched.request()
    assert watched.verdicts.empty()


def test_nothing_else_is_asked_before_the_startup_probe_has_passed(watched: Watched) -> None:
    watched.server.reply = BAD
    watched.add(
        http(watched.server, purpose="startup", failures=1000),
        replace(http(watched.server), path="/ready"),
        replace(http(watched.server, purpose="liveness", failures=1), path="/live"),
    )
    asked = [watched.request()[1].split()[1] for _ in range(5)]
    assert set(asked) == {b"/healthz"}
    watched.server.reply = OK
    assert watched.ready() is True
    while {b"/ready", b"/live"} - set(asked):
        asked.append(watched.request()[1].split()[1])
    assert watched.failures.empty()


def test_a_startup_that_takes_too_long_is_given_up(watched: Watched) -> None:
    watched.server.reply = BAD
    began = time.monotonic()
    watched.add(http(watched.server, purpose="startup", failures=4, period=0.1, container="c"))
    assert watched.failures.get(timeout=5) == ("ns/p", "c", "startup")
    assert time.monotonic() - began >= 0.39
    assert watched.verdicts.empty()


def test_tcp_checks_follow_whether_somebody_listens(watched: Watched) -> None:
    watched.add(Check("tcp", watched.server.port, period=0.05, failures=2))
    assert watched.ready() is True
    watched.server.stop()
    assert watched.ready() is False
    watched.server.start()
    assert watched.ready() is True


@pytest.mark.skipif(shutil.which("mnexec") is None, reason="mnexec is not installed")
def test_exec_checks_follow_the_exit_status_of_the_command(watched: Watched, tmp_path: Path) -> None:
    file = tmp_path / "ready"
    watched.add(Check("exec", command=("test", "-e", str(file)), period=0.05, timeout=5, failures=2))
    file.touch()
    assert watched.ready() is True
    file.unlink()
    assert watched.ready() is False


@pytest.mark.skipif(shutil.which("mnexec") is None, reason="mnexec is not installed")
def test_a_command_that_runs_too_long_is_a_failure_and_is_killed(watched: Watched, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    flag = tmp_path / "quick"
    flag.touch()
    script = f"test -e {flag} && exit 0; echo $$ >> {pids}; exec sleep 60"
    watched.add(Check("exec", command=("sh", "-c", script), period=0.05, timeout=0.5, failures=1))
    assert watched.ready() is True
    flag.unlink()
    assert watched.ready() is False
    killed = int(pids.read_text().split()[0])
    deadline = time.monotonic() + 5
    while Path(f"/proc/{killed}").exists():
        assert time.monotonic() < deadline, "the command still runs"
        time.sleep(0.01)


def test_each_container_has_a_verdict_of_its_own(watched: Watched) -> None:
    other = Server()
    other.start()
    other.reply = BAD
    seen: queue.SimpleQueue[tuple[str, bool]] = queue.SimpleQueue()
    prober = Prober(lambda _, container, ready: seen.put((container, ready)), lambda *_: None)
    checks = [replace(http(s, failures=1), container=name) for s, name in ((watched.server, "a"), (other, "b"))]
    prober.add("ns/p", checks, os.getpid(), os.getpid(), "127.0.0.1")
    assert seen.get(timeout=5) == ("a", True)
    other.reply = OK
    assert seen.get(timeout=5) == ("b", True)
    watched.server.reply = BAD
    assert seen.get(timeout=5) == ("a", False)
    prober.remove("ns/p")
    other.end()


def test_a_removed_pod_is_not_looked_at_any_more(watched: Watched) -> None:
    watched.add(http(watched.server, failures=1))
    assert watched.ready() is True
    watched.prober.remove("ns/p")
    watched.prober.remove("ns/p")  # again is no error
    watched.server.reply = BAD
    assert watched.silent(0.3)
    watched.skip_requests()
    assert watched.server.requests.empty()


def test_a_node_that_is_gone_is_a_failure(watched: Watched) -> None:
    watched.add(http(watched.server), node_pid=2**22 + 1)  # beyond every pid there can be
    assert watched.silent(0.3)
    watched.prober.remove("ns/p")
    watched.add(http(watched.server))
    assert watched.ready() is True


def test_many_pods_are_checked_at_a_time(watched: Watched) -> None:
    keys = {f"ns/p{i}" for i in range(100)}
    watched.server.reply = None
    for key in keys:
        watched.add(http(watched.server, timeout=5), key=key)
    for _ in keys:
        watched.request()
    watched.server.reply = OK
    for key in keys:
        watched.prober.remove(key)
        watched.add(http(watched.server, period=60), key=key)
    assert {watched.verdicts.get(timeout=5)[:2] for _ in keys} == {(key, True) for key in keys}
    for key in keys:
        watched.prober.remove(key)
