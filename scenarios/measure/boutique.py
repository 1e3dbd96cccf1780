"""Online Boutique's services as small HTTP servers that call one another as the real ones do; runs as a script in pods.

    boutique.py serve SERVICE ADDRESS PORT [VARIABLE=HOST:PORT ...]
    boutique.py load HOST PORT WAY RATE SECONDS USERS SEED

A server prints "ready" and calls the others at what the variables say, which are those of the real manifests
(PRODUCT_CATALOG_SERVICE_ADDR=productcatalogservice:3550). Who calls whom, how often and in which order is what the
application's source does (microservices-demo: src/frontend/handlers.go and rpc.go, src/checkoutservice/main.go,
src/recommendationservice/recommendation_server.py, src/cartservice/src/cartstore): one call after the other, HTTP/1.1
in place of gRPC and of Redis' protocol. What each computes is left out; a page has PAGE bytes.

The load is users' tasks with the weights of src/loadgenerator/locustfile.py, at RATE tasks a second on average
(exponential gaps, from SEED), whether or not earlier ones were answered. The first page of a task counts from when it
was to be asked for, so that what waits behind a slow one is slow too; a page that follows counts from when the one
before it was there. It prints {"pages": {PAGE: [us, ...]}, "errors": {"PAGE: REASON": COUNT}, "late_us": [...]}.
late_us: how late each task began that found a free worker, which is the load's own fault.

WAY is how all of them call: "kept" (connections are used again, as gRPC's are), "new" (one a call, its name looked up
once) or "looked-up" (one a call, its name looked up each time). It goes with a page to every service it needs.
"""

from __future__ import annotations

import contextlib
import json
import queue
import random
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

KEPT, NEW, LOOKED_UP = WAYS = ("kept", "new", "looked-up")
PAGE, TIMEOUT, RECOMMENDED, WORKERS = 8192, 5.0, 5, 48
PRODUCTS = [f"product-{number}" for number in range(1, 10)]  # as many as the real catalogue has
# What a user does next, and how often of 19 times. A task is pages, each asked for when the one before is there; after
# a POST the browser is sent on.
TASKS = {"home": 1, "currency": 2, "product": 10, "add": 2, "cart": 3, "checkout": 1}
Ask = Callable[..., bytes]


class Lost(Exception):
    """A call that was not answered as it should be; the message says why."""


class Connection:
    """One TCP connection that carries one HTTP message after the other, of either side."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self._rest = sock, b""
        sock.settimeout(TIMEOUT)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, first: str, way: str, body: bytes) -> None:
        """One message. A connection that is not kept ends with it (RFC 9112, 9.6)."""
        close = "" if way == KEPT else "Connection: close\r\n"
        head = f"{first}\r\nHost: boutique\r\nX-Connections: {way}\r\n{close}Content-Length: {len(body)}\r\n\r\n"
        self.sock.sendall(head.encode() + body)

    def receive(self) -> tuple[list[str], dict[str, str], bytes] | None:
        """The words of the first line, the headers, the body; None if the connection ended before it."""
        data = self._rest
        while (end := data.find(b"\r\n\r\n")) < 0:
            more = self.sock.recv(1 << 16)
            if not more:
                return None
            data += more
        first, *lines = data[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = end + 4 + int(headers.get("content-length", 0))
        while len(data) < length:
            more = self.sock.recv(1 << 16)
            if not more:
                return None
            data += more
        self._rest = data[length:]
        return first.split(" ", 2), headers, data[end + 4 : length]


class Peer:
    """Another service, as one that calls it sees it."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self._idle: list[Connection] = []
        self._address = ""

    def ask(self, path: str, way: str, body: bytes = b"") -> bytes:
        """The body of its answer. Raises OSError and Lost."""
        connection = self._idle.pop() if way == KEPT and self._idle else self._connect(way)
        try:
            connection.send(f"{'POST' if body else 'GET'} {path} HTTP/1.1", way, body)
            answer = connection.receive()
        except BaseException:
            connection.sock.close()
            raise
        if way == KEPT and answer is not None:
            self._idle.append(connection)
        else:
            connection.sock.close()
        if answer is None:
            raise Lost("closed without an answer")
        if answer[0][1] not in ("200", "302"):
            raise Lost(f"status {answer[0][1]}")
        return answer[2]

    def _connect(self, way: str) -> Connection:
        if way == LOOKED_UP or not self._address:
            found = socket.getaddrinfo(self.host, self.port, socket.AF_INET, socket.SOCK_STREAM)
            self._address = str(found[0][4][0])
        return Connection(socket.create_connection((self._address, self.port), TIMEOUT))


class Services:
    """What a service is called by, and what it then does. ask(VARIABLE's beginning, path, body) calls another."""

    def __init__(self) -> None:
        self._stored: dict[str, bytes] = {}

    def frontend(self, path: str, body: bytes, ask: Ask) -> bytes:
        """A page and its user after the ?, or the health check; nothing where the browser is sent on."""
        page, _, user = path.partition("?")
        if page.startswith("/product/"):
            _product(page.rpartition("/")[2], user, ask)
        elif page in _PAGES:
            _PAGES[page](user, ask)
        elif page == "/add":
            ask("PRODUCT_CATALOG", f"/product/{body.decode()}")
            ask("CART", f"/add/{user}", body)
        return b"" if page in ("/add", "/currency") else bytes(PAGE)

    def catalog(self, path: str, body: bytes, ask: Ask) -> bytes:
        """All products, or one."""
        return json.dumps(PRODUCTS if path == "/products" else {"id": path.rpartition("/")[2]}).encode()

    def cart(self, path: str, body: bytes, ask: Ask) -> bytes:
        """A user's cart, which is in the store."""
        _, what, user = path.split("/", 2)
        if what == "empty":
            return ask("REDIS", f"/set/{user}", b"[]")
        items = json.loads(ask("REDIS", f"/get/{user}") or b"[]")
        if what == "add":
            added = [*items, *({body.decode()} - set(items))]
            ask("REDIS", f"/set/{user}", json.dumps(added).encode())
        return json.dumps(items).encode()

    def store(self, path: str, body: bytes, ask: Ask) -> bytes:
        """Keys and values."""
        _, what, key = path.split("/", 2)
        if what == "set":
            self._stored[key] = body
        return self._stored.get(key, b"")

    def recommendation(self, path: str, body: bytes, ask: Ask) -> bytes:
        """Some products that are not among those it is told."""
        rest = sorted(set(json.loads(ask("PRODUCT_CATALOG", "/products"))) - set(json.loads(body)))
        return json.dumps(random.sample(rest, min(RECOMMENDED, len(rest)))).encode()

    def checkout(self, path: str, body: bytes, ask: Ask) -> bytes:
        """Everything that an order takes."""
        user = path.rpartition("/")[2]
        for item in json.loads(ask("CART", f"/get/{user}")):
            ask("PRODUCT_CATALOG", f"/product/{item}")
            ask("CURRENCY", "/convert")
        ask("SHIPPING", "/quote")
        ask("CURRENCY", "/convert")
        ask("PAYMENT", "/charge")
        ask("SHIPPING", "/ship")
        ask("CART", f"/empty/{user}")
        return ask("EMAIL", "/confirm")

    def leaf(self, path: str, body: bytes, ask: Ask) -> bytes:
        """Answers by itself."""
        return b'{"ok": true}'


def _home(user: str, ask: Ask) -> None:
    ask("CURRENCY", "/currencies")
    products = json.loads(ask("PRODUCT_CATALOG", "/products"))
    ask("CART", f"/get/{user}")
    for _ in products:
        ask("CURRENCY", "/convert")
    ask("AD", "/ads")


def _product(product: str, user: str, ask: Ask) -> None:
    ask("PRODUCT_CATALOG", f"/product/{product}")
    ask("CURRENCY", "/currencies")
    ask("CART", f"/get/{user}")
    ask("CURRENCY", "/convert")
    _recommend(ask, [product])
    ask("AD", "/ads")


def _cart(user: str, ask: Ask) -> None:
    ask("CURRENCY", "/currencies")
    items = json.loads(ask("CART", f"/get/{user}"))
    _recommend(ask, items)
    ask("SHIPPING", "/quote")
    ask("CURRENCY", "/convert")
    for item in items:
        ask("PRODUCT_CATALOG", f"/product/{item}")
        ask("CURRENCY", "/convert")


def _order(user: str, ask: Ask) -> None:
    ask("CHECKOUT", f"/order/{user}")
    _recommend(ask, [])
    ask("CURRENCY", "/currencies")


def _recommend(ask: Ask, products: Sequence[str]) -> None:
    for product in json.loads(ask("RECOMMENDATION", "/", json.dumps(products).encode())):
        ask("PRODUCT_CATALOG", f"/product/{product}")


_PAGES: Mapping[str, Callable[[str, Ask], None]] = {"/": _home, "/cart": _cart, "/checkout": _order}
# By the name of its Deployment; whoever is not here answers by itself.
HANDLERS: Mapping[str, str] = {
    "frontend": "frontend",
    "productcatalogservice": "catalog",
    "cartservice": "cart",
    "redis-cart": "store",
    "recommendationservice": "recommendation",
    "checkoutservice": "checkout",
}


def serve(service: str, address: str, port: int, variables: Sequence[str]) -> None:
    """Answer for ever, a thread a connection."""
    handle = getattr(Services(), HANDLERS.get(service, "leaf"))
    peers: dict[str, Peer] = {}
    for text in variables:
        name, _, where = text.partition("=")
        host, _, number = where.rpartition(":")
        peers[name.removesuffix("_ADDR").removesuffix("_SERVICE")] = Peer(host, int(number))

    def call(way: str, name: str, path: str, body: bytes = b"") -> bytes:
        return peers[name].ask(path, way, body)

    def one(sock: socket.socket) -> None:
        with sock:
            connection = Connection(sock)
            sock.settimeout(None)  # who calls keeps it
            while (message := _received(connection)) is not None:
                (_, path, _), headers, body = message
                way = headers.get("x-connections", NEW)
                try:
                    answer = handle(path, body, partial(call, way))
                    connection.send(f"HTTP/1.1 {'200 OK' if answer else '302 Found'}", way, answer)
                except (OSError, Lost) as problem:
                    connection.send("HTTP/1.1 500 Error", way, str(problem).encode())
                if way != KEPT:
                    return

    listener = socket.create_server((address, port), backlog=1024)
    print("ready", flush=True)
    while True:
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def _received(connection: Connection) -> tuple[list[str], dict[str, str], bytes] | None:
    try:
        return connection.receive()
    except OSError:
        return None


def pages(task: str, user: str, product: str) -> Iterator[tuple[str, str, bytes]]:
    """What a task asks for in turn: the page's name, its path, what is posted."""
    if task in ("product", "add", "checkout"):
        yield "product", f"/product/{product}?{user}", b""
    if task in ("add", "checkout"):
        yield "add to cart", f"/add?{user}", product.encode()
        yield "cart", f"/cart?{user}", b""
    if task == "checkout":
        yield "checkout", f"/checkout?{user}", b"order"
    elif task == "cart":
        yield "cart", f"/cart?{user}", b""
    elif task == "currency":
        yield "set currency", f"/currency?{user}", b"EUR"
    if task in ("home", "currency"):
        yield "home", f"/?{user}", b""


def schedule(rate: float, seconds: float, users: int, seed: int) -> list[tuple[float, str, str, str]]:
    """When, from the beginning, which task begins, of whom, about which product."""
    chance, moment = random.Random(seed), 0.0
    found = []
    while (moment := moment + chance.expovariate(rate)) < seconds:
        task = chance.choices(list(TASKS), list(TASKS.values()))[0]
        found.append((moment, task, f"{seed}-{chance.randrange(users)}", chance.choice(PRODUCTS)))
    return found


class Load:
    """The users, in threads."""

    def __init__(self, host: str, port: int, way: str) -> None:
        self._peer, self._way = Peer(host, port), way
        self.taken: dict[str, list[float]] = {}
        self.errors: dict[str, int] = {}
        self.late: list[float] = []

    def warm_up(self) -> None:
        """Every kind of page, for each service to have its connections and each switch its flows; what fails is not
        counted, and will fail again.
        """
        asked = [*pages("checkout", "warm-up", PRODUCTS[0]), *pages("home", "warm-up", "")]
        for _, path, body in asked * 2:
            with contextlib.suppress(OSError, Lost):
                self._peer.ask(path, self._way, body)

    def run(self, tasks: Sequence[tuple[float, str, str, str]]) -> None:
        """All tasks; returns when the last is done."""
        waiting: queue.SimpleQueue[tuple[float, str, str, str] | None] = queue.SimpleQueue()
        began = time.perf_counter()
        for one in [*tasks, *[None] * WORKERS]:
            waiting.put(one)

        def work() -> None:
            while (task := waiting.get()) is not None:
                due = began + task[0]
                if (left := due - time.perf_counter()) > 0:
                    time.sleep(left)
                    self.late.append((time.perf_counter() - due) * 1e6)
                self._task(due, *task[1:])

        threads = [threading.Thread(target=work, daemon=True) for _ in range(WORKERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _task(self, due: float, task: str, user: str, product: str) -> None:
        for page, path, body in pages(task, user, product):
            try:
                self._peer.ask(path, self._way, body)
            except (OSError, Lost) as problem:
                reason = "no answer in time" if isinstance(problem, TimeoutError) else str(problem)
                key = f"{page}: {reason}"
                self.errors[key] = self.errors.get(key, 0) + 1
                return
            now = time.perf_counter()
            self.taken.setdefault(page, []).append((now - due) * 1e6)
            due = now


def main(what: str, *words: str) -> None:
    if what == "serve":
        service, address, port, *variables = words
        serve(service, address, int(port), variables)
    host, port, way, rate, seconds, users, seed = words
    load = Load(host, int(port), way)
    load.warm_up()
    load.run(schedule(float(rate), float(seconds), int(users), int(seed)))
    print(json.dumps({"pages": load.taken, "errors": load.errors, "late_us": load.late}))


if __name__ == "__main__":
    main(*sys.argv[1:])
