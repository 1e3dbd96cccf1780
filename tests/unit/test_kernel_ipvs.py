"""Mode kernel-ipvs: what it writes into a kernel; that a change writes what changed, and leaves no trace of before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_tables import Kernel
from test_golden import assert_kept
from views import BALANCED, DATAGRAMS, EVERY_TYPE, NODE_PORT, NONE, PLAIN, STICKY, served, typed

from controllers.flow.fields import ip_number, ip_text
from controllers.kernel import ipsets, ipvs, ipvs_part
from controllers.kernel.ipvs_part import IpvsRules
from controllers.kernel.ipvs_state import wanted
from controllers.proxy.kernel_ipvs import PROXY
from controllers.services import Endpoint, ServicePort
from controllers.state import NodeView
from topo import platform
from topo.cluster.errors import InputError, PlatformError

GOLDEN = Path(__file__).parent / "golden-kernel"
LOCAL_EXTERNAL = typed(
    19, "local-external:80/tcp", 9, external_ips=(ip_number("192.0.2.9"), ip_number("172.18.0.2")), external_local=True
)
LIMITED = replace(
    typed(20, "limited:80/tcp", 10, load_balancer_ips=(ip_number("172.18.255.201"),)),
    source_ranges=("172.18.0.0/24", "203.0.113.9/32", "0.0.0.0/0"),
)
STREAMS = replace(typed(21, "streams:80/sctp", 11, node_port=30090, external_local=True), protocol="sctp")
ALL = {p.key: p for p in (*EVERY_TYPE.values(), STICKY, LOCAL_EXTERNAL, LIMITED, STREAMS, NONE)}


def view_of(*ports: ServicePort, **options: object) -> NodeView:
    return served("kernel-ipvs", {port.key: port for port in ports}, **options)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    return fresh(monkeypatch)


def fresh(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """One that the node's part writes to from now on."""
    made = Kernel()
    monkeypatch.setattr(ipvs_part, "run", made.run)
    monkeypatch.setattr("controllers.kernel.part.run", made.run)
    monkeypatch.setattr(IpvsRules, "_connections", lambda _: ipvs.connections(made.proc()))
    return made


def text_of(view: NodeView) -> str:
    """All of it, as the programs list it."""
    want = wanted(view)
    parts = {
        "ipvsadm -S -n": ipvs.listing(want.table),
        "ip address show dev kube-ipvs0": [ip_text(a) for a in sorted(want.addresses)],
        "ipset save": ipsets.restore(want.sets, {}).splitlines(),
        "iptables-legacy-save": [
            line
            for table, chains in want.chains.items()
            for line in (f"*{table}", *(f"-A {name} {rule}" for name, rules in chains.items() for rule in rules))
        ],
    }
    return "".join(f"# {title}\n" + "".join(f"{line}\n" for line in lines) for title, lines in parts.items())


@pytest.mark.parametrize(
    ("name", "options"),
    [("rr", {}), ("mh", {"scheduler": "mh", "masqueradeAll": True}), ("lc", {"scheduler": "lc", "detectLocal": False})],
)
def test_the_node_is_as_it_was_reviewed(name: str, options: Mapping[str, object]) -> None:
    assert_kept(GOLDEN / f"ipvs-{name}.txt", text_of(view_of(*ALL.values(), **options)))


def test_every_golden_file_is_compared() -> None:
    assert {file.name for file in GOLDEN.iterdir()} == {"ipvs-rr.txt", "ipvs-mh.txt", "ipvs-lc.txt"}


def test_what_is_listed_is_read_back() -> None:
    for scheduler in ("rr", "mh"):
        want = wanted(view_of(*ALL.values(), scheduler=scheduler))
        assert ipvs.parse("\n".join(ipvs.listing(want.table))) == want.table
        assert ipsets.parse(ipsets.restore(want.sets, {})) == want.sets


def reals(kernel: Kernel, virtual: str) -> dict[str, int]:
    return kernel.servers[virtual][1]


class TestWhoIsServed:
    """Where it differs from kube-proxy's other modes (Kubernetes pull request 97081; CategorizeEndpoints)."""

    here, there = Endpoint(1, 80, "node-1"), Endpoint(2, 80, "node-2")

    def weights(self, port: ServicePort) -> list[dict[tuple[int, int], int]]:
        return [dict(balanced.weights) for balanced in wanted(view_of(port)).table.values()]

    def test_policy_local_prefers_the_nodes_own(self) -> None:
        port = typed(1, "x:80/tcp", 1, (self.here, self.there), node_port=30001, external_local=True)
        assert self.weights(port) == [{(1, 80): 1, (2, 80): 1}, {(1, 80): 1}]

    def test_without_local_endpoints_external_policy_local_leads_to_all(self) -> None:
        port = typed(1, "x:80/tcp", 1, (self.there,), node_port=30001, external_local=True)
        assert self.weights(port) == [{(2, 80): 1}, {(2, 80): 1}]

    def test_without_local_endpoints_internal_policy_local_leads_nowhere_unless_there_are_node_ports(self) -> None:
        port = typed(1, "x:80/tcp", 1, (self.there,), internal_local=True)
        assert self.weights(port) == [{}]
        assert self.weights(replace(port, node_port=30001)) == [{(2, 80): 1}, {(2, 80): 1}]

    def test_weights_are_the_annotations(self) -> None:
        port = typed(1, "x:80/tcp", 1, (self.here._replace(weight=3), self.there._replace(weight=0)))
        assert self.weights(port) == [{(1, 80): 3, (2, 80): 0}]


PORTS = (
    *ALL.values(),
    replace(PLAIN, affinity=9),
    replace(BALANCED, source_ranges=()),
    replace(NODE_PORT, endpoints=()),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, len(PORTS) - 1)), min_size=1, max_size=5), st.integers(0, 4))
def test_any_sequence_of_changes_ends_as_if_begun_there(
    monkeypatch: pytest.MonkeyPatch, steps: list[set[int]], restart: int
) -> None:
    """Also when another agent goes on in between. The kernel refuses to add twice, and to remove what is not there."""
    after = fresh(monkeypatch)
    part = IpvsRules(1)
    for number, step in enumerate(steps):
        part = IpvsRules(1) if number == restart else part
        part.sync(view_of(*(PORTS[i] for i in sorted(step))))
    at_once = fresh(monkeypatch)
    IpvsRules(1).sync(view_of(*(PORTS[i] for i in sorted(steps[-1]))))
    assert (after.servers, after.sets, after.addresses) == (at_once.servers, at_once.sets, at_once.addresses)
    assert after.chains == at_once.chains


def test_a_change_that_failed_halfway_is_made_whole(kernel: Kernel) -> None:
    part = IpvsRules(1)
    part.sync(view_of(PLAIN))
    kernel.broken = "ipvsadm"
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            part.sync(view_of(STICKY, BALANCED))
    kernel.broken = ""
    part.sync(view_of(STICKY, BALANCED))
    assert set(kernel.servers) == {
        "-t 10.96.1.8:80",
        "-t 10.96.1.5:80",
        "-t 172.18.255.200:80",
        "-t 172.18.0.2:30050",
    }
    assert kernel.addresses == {"10.96.1.8/32", "10.96.1.5/32", "172.18.255.200/32"}


@pytest.fixture
def timers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Callable[[], None]]]:
    """What was to be done later."""
    found: list[Callable[[], None]] = []

    class Timer:
        def __init__(self, interval: float, act: Callable[[], None]) -> None:
            assert interval == 60
            found.append(act)

        def start(self) -> None: ...
        def cancel(self) -> None: ...

    monkeypatch.setattr(ipvs_part.threading, "Timer", Timer)
    yield found


class TestGracefulTermination:
    """An endpoint that goes while it has connections takes no new one, and goes for good when they have ended."""

    name, first, second = "-t 10.96.1.1:80", "10.244.1.3:8080", "10.244.2.2:8080"
    without = replace(PLAIN, endpoints=PLAIN.endpoints[:1])

    def busy(self, kernel: Kernel, port: ServicePort, count: int) -> None:
        gone = port.endpoints[1]
        kernel.busy[ipvs.Virtual(port.protocol, port.cluster_ip, port.port), (gone.ip, gone.port)] = count

    def test_it_stays_with_weight_0_until_a_later_look_finds_it_idle(self, kernel: Kernel, timers: list[Any]) -> None:
        part = IpvsRules(1)
        part.sync(view_of(PLAIN))
        self.busy(kernel, PLAIN, 1)
        part.sync(view_of(self.without))
        assert reals(kernel, self.name) == {self.first: 2, self.second: 0} and len(timers) == 1
        part.sync(view_of(self.without, NODE_PORT))
        assert reals(kernel, self.name)[self.second] == 0 and len(timers) == 1
        timers.pop()()
        assert reals(kernel, self.name)[self.second] == 0 and len(timers) == 1
        self.busy(kernel, PLAIN, 0)
        timers.pop()()
        assert reals(kernel, self.name) == {self.first: 2} and timers == []

    def test_one_that_comes_back_is_as_before(self, kernel: Kernel, timers: list[Any]) -> None:
        part = IpvsRules(1)
        part.sync(view_of(PLAIN))
        self.busy(kernel, PLAIN, 1)
        part.sync(view_of(self.without))
        part.sync(view_of(PLAIN))
        assert reals(kernel, self.name) == {self.first: 2, self.second: 1}
        timers.pop()()
        assert reals(kernel, self.name) == {self.first: 2, self.second: 1} and timers == []

    def test_an_idle_one_and_any_of_datagrams_go_at_once(self, kernel: Kernel, timers: list[Any]) -> None:
        part = IpvsRules(1)
        part.sync(view_of(PLAIN, DATAGRAMS))
        self.busy(kernel, DATAGRAMS, 5)
        part.sync(view_of(self.without, replace(DATAGRAMS, endpoints=DATAGRAMS.endpoints[:1])))
        assert reals(kernel, self.name) == reals(kernel, "-u 10.96.1.6:80") == {self.first: 2}
        assert timers == []

    def test_another_agent_goes_on_with_it(self, kernel: Kernel, timers: list[Any]) -> None:
        IpvsRules(1).sync(view_of(PLAIN))
        self.busy(kernel, PLAIN, 1)
        part = IpvsRules(1)
        part.sync(view_of(self.without))
        assert reals(kernel, self.name) == {self.first: 2, self.second: 0}
        part.close()
        self.busy(kernel, PLAIN, 0)
        timers.pop()()
        assert reals(kernel, self.name)[self.second] == 0  # a node that is gone is left alone


def many(number: int) -> dict[str, ServicePort]:
    ends = tuple(Endpoint(ip_number("10.244.2.2") + i, 8080, "node-2") for i in range(10))
    found = (typed(i, f"s{i}:80/tcp", 1, ends) for i in range(1, number + 1))
    return {p.key: replace(p, cluster_ip=ip_number("10.96.2.0") + p.group) for p in found}


def test_ten_thousand_services_are_a_dozen_programs_and_a_change_of_one_a_line(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, services = IpvsRules(1), many(10_000)
    view = replace(view_of(), services=services)
    part.sync(view)
    assert len(kernel.servers) == len(kernel.addresses) == 10_000 and len(reals(kernel, "-t 10.96.2.1:80")) == 10
    hooks = 2 * 9  # each is looked for, and then added
    assert sum(kernel.ran.values()) - hooks <= 12, kernel.ran
    assert len([rule for rules in kernel.chains.values() for rule in rules]) < 30
    written: list[str] = []
    monkeypatch.setattr(
        ipvs_part, "run", lambda pid, *argv, text="": (written.append(text), kernel.run(pid, *argv, text=text))[1]
    )
    one = services["default/s7:80/tcp"]
    part.sync(replace(view, services={**services, one.key: replace(one, endpoints=one.endpoints[1:])}))
    assert written == ["-d -t 10.96.2.7:80 -r 10.244.2.2:8080\n"]
    part.sync(replace(view, services={**services, one.key: replace(one, endpoints=one.endpoints[1:])}))
    assert len(written) == 1


class TestTheMode:
    def test_it_needs_its_schedulers_module(self) -> None:
        assert "ip_vs_rr" in PROXY.needs({}) and "ip_vs_nq" in PROXY.needs({"scheduler": "nq"})

    def test_a_scheduler_that_there_is_not_is_refused(self) -> None:
        for wrong in ("fastest", 7):
            with pytest.raises(
                InputError, match=r"mininetes\.proxy\.scheduler: there is no scheduler .*one of: rr, wrr"
            ):
                PROXY.check({"scheduler": wrong})

    def test_options_of_every_mode_are_known_and_others_refused(self) -> None:
        PROXY.check({"scheduler": "lc", "masqueradeAll": True, "detectLocal": False})
        with pytest.raises(InputError, match="has no such option"):
            PROXY.check({"shceduler": "lc"})

    def test_what_is_missing_is_said_with_what_would_provide_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        tried: list[str] = []

        def without_ipvs(command: list[str]) -> Any:
            tried.append(command[-1])
            return type("Done", (), {"returncode": int("ipvs" in command[-1])})

        monkeypatch.setattr(platform, "in_own_network", without_ipvs)
        monkeypatch.setattr(platform.shutil, "which", lambda name: None if name == "ipset" else name)
        with pytest.raises(PlatformError) as said:
            platform.require_parts("proxy mode kernel-ipvs", PROXY.needs({"scheduler": "mh"}))
        lacks = "ip_vs_mh (kernel lacks it), ip_set (ipset not found), xt_ipvs (kernel lacks it)"
        assert said.value.missing == f"proxy mode kernel-ipvs needs {lacks}"
        assert said.value.remedy == (
            "sudo modprobe ip_vs_mh; sudo apt-get install ipset; sudo modprobe xt_ipvs; "
            "or a VM with a distribution's kernel"
        )
        assert any("-s mh" in command for command in tried)
        platform.require_parts("proxy mode ovs", ())
