"""Online Boutique's stand-ins call one another as the application does, and its load counts what waits."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest

from scenarios.measure.boutique import KEPT, NEW, PRODUCTS, TASKS, Connection, Load, Services, pages, schedule
from scenarios.online_boutique import OnlineBoutique, application
from topo import labfile
from topo.cluster.errors import InputError
from topo.cluster.wiring import COMMAND


class Graph:
    """All services in one process: a call is a function, and is counted."""

    def __init__(self) -> None:
        services = Services()
        self.handlers = {
            "PRODUCT_CATALOG": services.catalog,
            "CART": services.cart,
            "REDIS": services.store,
            "RECOMMENDATION": services.recommendation,
            "CHECKOUT": services.checkout,
        }
        self.frontend, self.leaf = services.frontend, services.leaf
        self.calls: Counter[str] = Counter()

    def ask(self, name: str, path: str, body: bytes = b"") -> bytes:
        self.calls[name] += 1
        return self.handlers.get(name, self.leaf)(path, body, self.ask)

    def page(self, path: str, body: bytes = b"") -> dict[str, int]:
        self.calls.clear()
        self.frontend(path, body, self.ask)
        return dict(self.calls)


def test_pages_make_the_calls_that_the_applications_source_makes() -> None:
    graph = Graph()
    assert graph.page("/?u") == {"CURRENCY": 10, "PRODUCT_CATALOG": 1, "CART": 1, "REDIS": 1, "AD": 1}
    # The product, one list for the recommendations, and each of the five.
    product = {"PRODUCT_CATALOG": 7, "CURRENCY": 2, "CART": 1, "REDIS": 1, "RECOMMENDATION": 1, "AD": 1}
    assert graph.page(f"/product/{PRODUCTS[0]}?u") == product
    assert graph.page("/add?u", PRODUCTS[0].encode()) == {"PRODUCT_CATALOG": 1, "CART": 1, "REDIS": 2}
    cart = {"CURRENCY": 3, "CART": 1, "REDIS": 1, "RECOMMENDATION": 1, "PRODUCT_CATALOG": 7, "SHIPPING": 1}
    assert graph.page("/cart?u") == cart
    order = graph.page("/checkout?u")
    leaves = {"CURRENCY": 3, "SHIPPING": 2, "PAYMENT": 1, "EMAIL": 1}
    assert order == leaves | {"CHECKOUT": 1, "CART": 2, "REDIS": 2, "PRODUCT_CATALOG": 7, "RECOMMENDATION": 1}
    assert graph.page("/cart?u")["CURRENCY"] == 2  # the order emptied the cart
    assert graph.page("/currency?u", b"EUR") == graph.page("/_healthz") == {}


def test_a_cart_is_a_users_own_and_has_each_product_once() -> None:
    graph = Graph()
    for product in (PRODUCTS[0], PRODUCTS[1], PRODUCTS[0]):
        graph.page("/add?u", product.encode())
    assert json.loads(graph.ask("CART", "/get/u")) == PRODUCTS[:2] and json.loads(graph.ask("CART", "/get/v")) == []


def test_users_do_what_the_real_ones_do_as_often() -> None:
    tasks = schedule(rate=100, seconds=100, users=10, seed=1)
    assert tasks == schedule(rate=100, seconds=100, users=10, seed=1) != schedule(100, 100, 10, seed=2)
    counts = Counter(task for _, task, _, _ in tasks)
    assert len(tasks) == pytest.approx(10_000, rel=0.04)
    for task, weight in TASKS.items():
        assert counts[task] == pytest.approx(len(tasks) * weight / 19, rel=0.15), task
    assert len({user for _, _, user, _ in tasks}) == 10
    names = {task: [name for name, _, _ in pages(task, "u", "p")] for task in TASKS}
    assert names["add"] == ["product", "add to cart", "cart"] and names["checkout"] == [*names["add"], "checkout"]
    assert names["currency"] == ["set currency", "home"] and names["home"] == ["home"]


def served(pause: float) -> int:
    """A server of one request after the other, each after a pause; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    one_at_a_time = threading.Lock()

    def one(sock: socket.socket) -> None:
        with sock:
            connection = Connection(sock)
            while connection.receive():
                with one_at_a_time:
                    time.sleep(pause)
                    connection.send("HTTP/1.1 200 OK", KEPT, b"x")

    def accept() -> None:
        while True:
            threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    return int(listener.getsockname()[1])


@pytest.mark.parametrize("way", [KEPT, NEW])
def test_what_waits_behind_others_is_slow_too(way: str) -> None:
    load = Load("127.0.0.1", served(0.005), way)
    load.run([(0.0, "cart", "u", "p")] * 100)  # more than there are workers
    taken = sorted(load.taken["cart"])
    assert len(taken) == 100 and load.errors == {}
    assert taken[0] >= 5_000 and taken[-1] >= 100 * 5_000 and taken[50] >= 50 * 5_000


def test_what_fails_is_counted_by_page_and_reason_and_ends_its_task() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    load = Load("127.0.0.1", port, NEW)
    load.warm_up()  # is not counted
    load.run([(0.0, "checkout", "u", "p")] * 3)
    assert load.taken == {} and load.errors == {"product: [Errno 111] Connection refused": 3}


def test_every_image_of_the_application_has_a_stand_in_that_knows_whom_to_call() -> None:
    deployments = [one for one in application(["a", "b"]) if one["kind"] == "Deployment"]
    commands = {
        one["metadata"]["name"]: (one["spec"]["template"]["metadata"].get("annotations") or {}).get(COMMAND)
        for one in deployments
    }
    assert len(commands) == 12 and [name for name, line in commands.items() if line is None] == ["loadgenerator"]
    assert str(commands["recommendationservice"]).endswith(
        "serve recommendationservice 0.0.0.0 8080 PRODUCT_CATALOG_SERVICE_ADDR=productcatalogservice:3550"
    )
    assert {one["spec"]["template"]["spec"]["nodeName"] for one in deployments} == {"a", "b"}


@pytest.mark.parametrize(
    ("option", "dns"), [(("cnis", "docker"), True), (("rate", "0"), True), (("cnis", "all"), False)]
)
def test_what_cannot_be_measured_is_refused_before_there_is_a_lab(option: tuple[str, str], dns: bool) -> None:
    chosen = dict([*OnlineBoutique.options.items(), option])
    with pytest.raises(InputError):
        OnlineBoutique().variants(replace(labfile.default_config(2), scenario=chosen, dns=dns))


def test_there_is_a_lab_for_each_cni_with_each_mode() -> None:
    config = replace(labfile.default_config(3), scenario=OnlineBoutique.options)
    found = [(one.config.cni, one.config.proxy_mode) for one in OnlineBoutique().variants(config)]
    assert found == [(cni, mode) for cni in ("flannel", "calico") for mode in ("ovs", "kernel-iptables")]
