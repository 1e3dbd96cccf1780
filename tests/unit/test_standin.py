"""The stand-in server answers as a container would: HTTP, plain TCP and UDP, in a network namespace of its own."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from http.client import HTTPConnection, HTTPResponse
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from topo.standin.__main__ import Pod, http_reply
from topo.standin.client import StandIn
from topo.system import inside

pytestmark = pytest.mark.as_root  # sockets are opened in another network namespace
WHO = {"pod": "web-1", "namespace": "shop", "node": "worker"}


# The answer to one request


def reply(request: bytes, pod: Pod | None = None) -> tuple[str, dict[str, str], dict[str, Any], bool]:
    """Status line, headers, body and whether the connection stays open."""
    answer, keep = http_reply(pod or Pod(WHO), request, "10.244.1.7", 8080)
    head, _, body = answer.decode().partition("\r\n\r\n")
    status, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    assert not body or int(headers["content-length"]) == len(body)
    return status, headers, json.loads(body or "{}"), keep


def test_a_reply_tells_who_answers_whom() -> None:
    status, headers, body, keep = reply(b"GET /cart?x=1 HTTP/1.1\r\nHost: shop")
    assert status == "HTTP/1.1 200 OK"
    assert headers["content-type"] == "application/json"
    assert body == {**WHO, "client": "10.244.1.7", "port": 8080, "path": "/cart?x=1", "healthy": True}
    assert keep


def test_head_has_the_length_of_the_body_without_it() -> None:
    asked, _ = http_reply(Pod(WHO), b"GET / HTTP/1.1", "c", 80)
    head, keep = http_reply(Pod(WHO), b"HEAD / HTTP/1.1", "c", 80)
    assert head.endswith(b"\r\n\r\n")
    assert asked.startswith(head)
    assert keep


@pytest.mark.parametrize(
    ("request_head", "kept"),
    [
        (b"GET / HTTP/1.1", True),
        (b"GET / HTTP/1.0", False),
        (b"GET / HTTP/1.1\r\nConnection: close", False),
        (b"GET / HTTP/1.1\r\nCONNECTION: Close", False),
        (b"GET / HTTP/1.1\r\nConnection: keep-alive", True),
    ],
)
def test_the_connection_stays_open_as_the_version_and_the_header_say(request_head: bytes, kept: bool) -> None:
    _, headers, _, keep = reply(request_head)
    assert keep is kept
    assert headers["connection"] == ("keep-alive" if kept else "close")


@pytest.mark.parametrize(
    ("request_head", "kept"),
    [
        (b"GET / HTTP/1.1\r\nConnection:close", False),
        (b"GET / HTTP/1.1\r\nConnection: TE, close", False),
        (b"GET / HTTP/1.1\r\nX-Note: connection: close", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive", True),
    ],
)
def test_the_connection_header_is_read_as_rfc_9112_says(request_head: bytes, kept: bool) -> None:
    assert reply(request_head)[3] is kept


def test_an_unhealthy_pod_answers_503_until_it_is_told_to_be_healthy() -> None:
    pod = Pod(WHO)
    assert reply(b"POST /unhealthy HTTP/1.1", pod)[0].endswith("200 OK")
    for method in (b"GET", b"PUT", b"DELETE"):
        status, _, body, _ = reply(method + b" /anything HTTP/1.1", pod)
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert body["healthy"] is False
    assert reply(b"POST /healthy HTTP/1.1", pod)[0].endswith("200 OK")
    assert reply(b"GET / HTTP/1.1", pod)[0].endswith("200 OK")


def test_only_a_post_changes_the_health() -> None:
    pod = Pod(WHO)
    for method in (b"GET", b"HEAD", b"PUT", b"DELETE"):
        reply(method + b" /unhealthy HTTP/1.1", pod)
    assert pod.healthy


@pytest.mark.parametrize("line", [b"GET", b"GET ", b"GET /", b"GET / HTTP/9 more", b"\xff\xfe\xfd", b""])
def test_a_broken_request_line_gets_an_answer(line: bytes) -> None:
    assert reply(line)[0] == "HTTP/1.1 200 OK"


# The server process


class Place:
    """A network namespace of the test's own and a stand-in server that serves there."""

    def __init__(self) -> None:
        script = "ip link set lo up && ip address add 127.0.0.2/8 dev lo && echo up && exec sleep infinity"
        self.holder = subprocess.Popen(["unshare", "--net", "sh", "-c", script], stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == "up\n"
        self.standin = StandIn()
        self._numbers = count(8000)

    def end(self) -> None:
        for process in (self.holder, self.standin.process):
            process.kill()
            process.wait()
        for stream in (self.holder.stdout, self.standin.process.stdin, self.standin.process.stdout):
            assert stream is not None
            stream.close()

    def open(self, key: str, *ports: tuple[str, int], **who: str) -> list[list[Any]]:
        return self.standin.open(key, self.holder.pid, who or WHO, ports)

    def port(self, protocol: str = "TCP") -> int:
        """A port that is served now, of a pod of that number."""
        number = next(self._numbers)
        assert self.open(str(number), (protocol, number)) == []
        return number

    def client(self, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
        with inside(self.holder.pid):
            made = socket.socket(socket.AF_INET, kind)
        made.settimeout(10)
        return made

    def connect(self, port: int) -> socket.socket:
        made = self.client()
        made.connect(("127.0.0.1", port))
        return made

    def say(self, port: int, text: bytes = b"hello") -> dict[str, Any]:
        """What a plain TCP client gets."""
        with self.connect(port) as sock, sock.makefile("rb") as lines:
            sock.sendall(text)
            return dict(json.loads(lines.readline()))

    def http(self, port: int) -> HTTPConnection:
        connection = HTTPConnection("127.0.0.1", port)
        connection.sock = self.connect(port)
        return connection

    def get(self, port: int, path: str = "/", method: str = "GET") -> HTTPResponse:
        """The response, read to its end, of a connection of its own."""
        connection = self.http(port)
        connection.request(method, path)
        response = connection.getresponse()
        response.read()
        connection.close()
        return response


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.end()


def test_plain_tcp_gets_a_line_that_tells_who_answers_for_each_piece(place: Place) -> None:
    port = place.port()
    with place.connect(port) as sock, sock.makefile("rb") as lines:
        own = sock.getsockname()[0]
        for text in (b"x", b"a longer piece", b"\x00\xff"):
            sock.sendall(text)
            assert json.loads(lines.readline()) == {**WHO, "client": own, "port": port}


def test_a_client_that_says_nothing_is_told_nothing_and_goes_in_peace(place: Place) -> None:
    port = place.port()
    with place.connect(port) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert sock.recv(100) == b""
    assert place.say(port)["port"] == port


def test_the_client_is_told_the_address_it_is_seen_with(place: Place) -> None:
    port = place.port()
    with place.client() as sock:
        sock.bind(("127.0.0.2", 0))
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"x")
        assert json.loads(sock.recv(4096))["client"] == "127.0.0.2"


def test_http_connections_are_kept_alive(place: Place) -> None:
    connection = place.http(place.port())
    own = connection.sock.getsockname()
    for path in ("/", "/a", "/b?c=d"):
        connection.request("GET", path)
        response = connection.getresponse()
        assert response.status == 200
        assert json.loads(response.read())["path"] == path
        assert connection.sock is not None
        assert connection.sock.getsockname() == own
    connection.close()


def test_head_is_answered_without_a_body_on_a_connection_that_goes_on(place: Place) -> None:
    connection = place.http(place.port())
    connection.request("HEAD", "/")
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"")
    assert int(response.headers["Content-Length"]) > 0
    connection.request("GET", "/after")
    assert json.loads(connection.getresponse().read())["path"] == "/after"
    connection.close()


@pytest.mark.parametrize("head", [b"GET / HTTP/1.0\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n"])
def test_a_connection_that_shall_not_be_kept_is_closed_after_the_answer(place: Place, head: bytes) -> None:
    with place.connect(place.port()) as sock, sock.makefile("rb") as answer:
        sock.sendall(head)
        assert answer.read().startswith(b"HTTP/1.1 200 OK\r\n")


def paths(answer: bytes) -> list[str]:
    """The paths in a stream of replies."""
    return [json.loads(part.partition(b"\n")[0])["path"] for part in answer.split(b"\r\n\r\n")[1:]]


def test_pipelined_requests_are_answered_in_order(place: Place) -> None:
    with place.connect(place.port()) as sock, sock.makefile("rb") as answer:
        requests = [b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % i for i in range(50)]
        sock.sendall(b"".join(requests) + b"GET /last HTTP/1.0\r\n\r\n")
        assert paths(answer.read()) == [*(f"/{i}" for i in range(50)), "/last"]


def test_a_request_may_come_in_pieces(place: Place) -> None:
    with place.connect(place.port()) as sock, sock.makefile("rb") as answer:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(b"GET /1 HTTP/1.1\r\n\r\nGE")
        for _ in range(4):
            answer.readline()  # so the first piece has arrived before the second is sent
        sock.sendall(b"T /2 HTTP/1.0\r\nHost: x\r\n\r")
        sock.sendall(b"\n")
        assert b'"path": "/2"' in answer.read()


def test_the_body_of_a_post_is_no_request(place: Place) -> None:
    with place.connect(place.port()) as sock, sock.makefile("rb") as answer:
        body = b"GET /not HTTP/1.1\r\n\r\n" * 1000
        sock.sendall(b"POST /form HTTP/1.1\r\ncontent-LENGTH:  %d \r\n\r\n" % len(body) + body)
        sock.sendall(b"GET /next HTTP/1.0\r\n\r\n")
        assert paths(answer.read()) == ["/form", "/next"]


def test_a_pod_made_unhealthy_answers_503_until_it_is_made_healthy(place: Place) -> None:
    port, other = place.port(), place.port()
    assert place.get(port, "/unhealthy", "POST").status == 200
    assert place.get(port, "/healthz").status == 503
    assert place.get(port, "/healthy").status == 503  # a GET changes nothing
    assert place.get(other, "/healthz").status == 200
    assert place.get(port, "/healthy", "POST").status == 200
    assert place.get(port, "/healthz").status == 200


def test_health_is_the_pods_and_not_the_ports(place: Place) -> None:
    assert place.open("two", ("TCP", 7001), ("TCP", 7002)) == []
    place.get(7001, "/unhealthy", "POST")
    assert place.get(7002).status == 503


def test_each_datagram_is_answered_by_one(place: Place) -> None:
    port = place.port("UDP")
    with place.client(socket.SOCK_DGRAM) as sock:
        for text in (b"x", b"", b"y" * 5000):
            sock.sendto(text, ("127.0.0.1", port))
            answer, sender = sock.recvfrom(4096)
            assert sender == ("127.0.0.1", port)
            assert json.loads(answer) == {**WHO, "client": "127.0.0.1", "port": port}


def test_a_client_that_has_gone_does_not_end_the_answering_of_datagrams(place: Place) -> None:
    port = place.port("UDP")
    for _ in range(5):
        with place.client(socket.SOCK_DGRAM) as sock:
            sock.sendto(b"x", ("127.0.0.1", port))
    with place.client(socket.SOCK_DGRAM) as sock:
        sock.sendto(b"x", ("127.0.0.1", port))
        assert json.loads(sock.recv(4096))["port"] == port


def test_one_number_can_be_served_in_both_protocols(place: Place) -> None:
    assert place.open("dns", ("TCP", 53), ("UDP", 53)) == []
    assert place.say(53)["port"] == 53


def test_a_taken_port_is_reported_and_the_others_are_served(place: Place) -> None:
    port = place.port()
    assert place.open("second", ("TCP", port), ("TCP", 7100)) == [["TCP", port, "Address already in use"]]
    assert place.say(port)["pod"] == WHO["pod"]
    assert place.say(7100)["port"] == 7100


def test_a_pod_whose_namespace_is_gone_is_reported(place: Place) -> None:
    with subprocess.Popen(["sleep", "60"]) as gone:
        gone.kill()
    failed = place.standin.open("gone", gone.pid, WHO, [("TCP", 80)])
    assert failed == [["TCP", 80, "No such file or directory"]]
    assert place.say(place.port())["pod"] == WHO["pod"]


def test_each_pod_answers_for_itself(place: Place) -> None:
    assert place.open("a", ("TCP", 7200), pod="a") == []
    assert place.open("b", ("TCP", 7201), pod="b") == []
    assert (place.say(7200)["pod"], place.say(7201)["pod"]) == ("a", "b")


def test_closing_a_pod_ends_its_connections_and_frees_its_ports(place: Place) -> None:
    assert place.open("old", ("TCP", 7300), ("UDP", 7300), pod="old") == []
    with place.connect(7300) as sock:
        sock.sendall(b"x")
        assert json.loads(sock.recv(4096))["pod"] == "old"
        place.standin.close("old")
        assert sock.recv(4096) == b""
    with pytest.raises(ConnectionRefusedError):
        place.connect(7300)
    assert place.open("new", ("TCP", 7300), ("UDP", 7300), pod="new") == []
    assert place.say(7300)["pod"] == "new"


def test_closing_a_pod_that_is_not_open_is_no_error(place: Place) -> None:
    place.standin.close("never")
    assert place.say(place.port())["pod"] == WHO["pod"]


def drained(place: Place, key: str) -> None:
    """Wait until the pod has no connection left."""
    deadline = time.monotonic() + 5
    while place.standin.drain([key])[key]:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_pod_that_drains_ends_idle_connections_and_takes_no_new_ones(place: Place) -> None:
    assert place.open("drains", ("TCP", 7400)) == []
    connection = place.http(7400)
    connection.request("GET", "/")
    connection.getresponse().read()
    assert place.standin.drain(["drains", "never"]) == {"drains": 1, "never": 0}
    assert connection.sock is not None
    assert connection.sock.recv(100) == b""
    drained(place, "drains")
    with pytest.raises(ConnectionRefusedError):
        place.connect(7400)
    place.standin.close("drains")


def test_a_pod_that_drains_answers_what_is_asked_already_and_says_it_closes(place: Place) -> None:
    assert place.open("answers", ("TCP", 7401)) == []
    with place.connect(7401) as half, place.connect(7401) as fresh, place.connect(7401) as plain:
        half.sendall(b"GET /half HTTP/1.1\r\n")
        plain.sendall(b"x")
        assert plain.recv(4096)
        waiting = [place.connect(7401) for _ in range(20)]  # accepted only by the draining itself, or just before
        assert place.standin.drain(["answers"])["answers"] == 23
        assert plain.recv(100) == b""
        for sock in (half, fresh, *waiting):
            sock.sendall(b"\r\n" if sock is half else b"GET / HTTP/1.1\r\n\r\n")
            answer = sock.makefile("rb").read()
            assert answer.startswith(b"HTTP/1.1 200 OK")
            assert b"Connection: close" in answer
            sock.close()
    drained(place, "answers")
    place.standin.close("answers")


def test_a_connection_that_never_asks_does_not_hold_a_draining_pod_for_ever(place: Place) -> None:
    assert place.open("silent", ("TCP", 7402)) == []
    with place.connect(7402) as sock:
        place.standin.drain(["silent"])
        drained(place, "silent")
        assert sock.recv(100) == b""
    place.standin.close("silent")


def test_restarted_ports_end_their_connections_and_listen_again_in_health(place: Place) -> None:
    assert place.open("again", ("TCP", 7403), ("TCP", 7404), ("UDP", 7403)) == []
    place.get(7403, "/unhealthy", "POST")
    with place.connect(7403) as gone, place.connect(7404) as stays:
        for sock in (gone, stays):
            sock.sendall(b"x")
            assert sock.recv(4096)
        assert place.standin.restart("again", place.holder.pid, WHO, [("TCP", 7403), ("UDP", 7403)]) == []
        assert gone.recv(100) == b""
        stays.sendall(b"x")
        assert stays.recv(4096)
    assert place.get(7403).status == 200
    place.standin.close("again")
    with pytest.raises(ConnectionRefusedError):
        place.connect(7404)


def test_two_hundred_connections_are_served_at_a_time(place: Place) -> None:
    port = place.port()
    with ExitStack() as stack:
        sockets = [stack.enter_context(place.connect(port)) for _ in range(200)]
        for sock in sockets:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert all(sock.recv(4096).startswith(b"HTTP/1.1 200 OK") for sock in reversed(sockets))
        for sock in sockets:
            sock.sendall(b"GET /again HTTP/1.1\r\n\r\n")
        assert all(b"/again" in sock.recv(4096) for sock in sockets)


def test_a_port_is_served_again_after_the_server_ran_out_of_descriptors(place: Place) -> None:
    port = place.port()
    pid = place.standin.process.pid
    most = len(list(Path(f"/proc/{pid}/fd").iterdir())) + 10
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        with ExitStack() as stack:
            sockets = [stack.enter_context(place.connect(port)) for _ in range(20)]
            for sock in sockets:
                sock.sendall(b"x")
            assert sockets[0].recv(4096)
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    with place.connect(port) as sock:
        sock.settimeout(2)
        sock.sendall(b"x")
        assert json.loads(sock.recv(4096))["port"] == port


@pytest.fixture
def standin() -> Iterator[StandIn]:
    standin = StandIn()
    yield standin
    standin.process.kill()
    standin.process.wait()
    for stream in (standin.process.stdin, standin.process.stdout):
        assert stream is not None
        stream.close()


def test_after_a_server_has_ended_another_does_what_is_asked(standin: StandIn) -> None:
    servers: list[subprocess.Popen[str]] = []
    standin.each(servers.append)
    servers[0].kill()
    servers[0].wait()
    assert standin.restart("new", os.getpid(), WHO, []) == []
    assert servers == [servers[0], standin.process] and standin.process.poll() is None
    standin.close("new")


def test_what_no_server_outlives_is_an_error_with_its_status_and_stops_nobody_else(standin: StandIn) -> None:
    with pytest.raises(RuntimeError, match="the stand-in server ended with status 1"):
        standin.open("wrong", os.getpid(), WHO, [("no such protocol", 1)])
    standin.close("x")
    assert standin.process.poll() is None
