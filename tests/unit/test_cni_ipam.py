"""Addresses: host-local's own cases, our IPAM plugin through the protocol, and no address twice whatever happens."""

from __future__ import annotations

import json
import random
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topo.cni import ranges
from topo.cni.errors import Code
from topo.cni.ipam import Ipam
from topo.cni.protocol import serve

CASES = json.loads((Path(__file__).parents[1] / "data" / "cni" / "host-local-ipam.json").read_text())


def set_of(*subnets: str) -> ranges.RangeSet:
    return tuple(ranges.read({"subnet": subnet}) for subnet in subnets)


def last_of(case: dict[str, Any]) -> ranges.IP | None:
    return ip_address(case["last_reserved"]) if case.get("last_reserved") else None


@pytest.mark.parametrize("case", [*CASES["allocate"], *CASES["exhausted"]], ids=lambda c: str(c)[:60])
def test_the_next_address_is_host_locals(case: dict[str, Any]) -> None:
    taken = {ip_address(one) for one in case["reserved"]}
    found = ranges.next_free(set_of(*case["subnets"]), taken, last_of(case))
    assert str(found) == case.get("expect_ip", "None")


@pytest.mark.parametrize("case", CASES["iteration"], ids=lambda c: str(c.get("last_reserved")))
def test_the_order_is_host_locals(case: dict[str, Any]) -> None:
    assert [str(one) for one in ranges.candidates(set_of(case["subnet"]), last_of(case))] == case["order"]


@given(st.integers(0, 2**32), st.integers(24, 30))
@settings(max_examples=20, deadline=None)
def test_no_address_twice_in_200_random_adds_and_deletes(seed: int, prefix: int) -> None:
    rng, one, last = random.Random(seed), set_of(f"10.0.0.0/{prefix}"), None
    given_out: set[ranges.IP] = set()
    for _ in range(200):
        if given_out and rng.random() < 0.45:
            given_out.remove(rng.choice(sorted(given_out, key=int)))
            continue
        found = ranges.next_free(one, given_out, last)
        if found is None:
            assert len(given_out) == len(one[0]) == 2 ** (32 - prefix) - 3
        else:
            assert found not in given_out and found in one[0]
            given_out.add(found)
            last = found


class Caller:
    """Calls the plugin as a runtime does."""

    def __init__(self, folder: Path, **ipam: Any) -> None:
        self.ipam = {"type": "mininetes-ipam", "dataDir": str(folder), **(ipam or {"subnet": "10.0.0.0/29"})}

    def ask(self, command: str, container: str = "c1", version: str = "1.1.0", **config: Any) -> tuple[int, Any]:
        environment = {"CNI_COMMAND": command, "CNI_CONTAINERID": container, "CNI_IFNAME": "eth0"}
        environment |= {"CNI_NETNS": "/proc/1/ns/net", "CNI_PATH": "/nowhere"}
        environment |= {"CNI_ARGS": config.pop("args_text")} if "args_text" in config else {}
        status, said = serve(
            Ipam(), environment, json.dumps({"cniVersion": version, "name": "net", "ipam": self.ipam, **config})
        )
        return status, json.loads(said) if said else None

    def address(self, container: str, **config: Any) -> str:
        status, said = self.ask("ADD", container, **config)
        assert status == 0, said
        return str(said["ips"][0]["address"].partition("/")[0])


@pytest.mark.statement("ipam-abbreviated", "add-same-version")
@pytest.mark.parametrize("version", ["0.4.0", "1.0.0", "1.1.0"])
def test_a_result_is_abbreviated_and_of_the_requests_version(tmp_path: Path, version: str) -> None:
    caller = Caller(tmp_path, ranges=[[{"subnet": "10.0.0.0/29"}]], routes=[{"dst": "0.0.0.0/0"}])
    status, said = caller.ask("ADD", version=version, dns={"nameservers": ["10.0.0.9"]})
    assert status == 0 and said["cniVersion"] == version and "interfaces" not in said
    assert said["ips"][0].pop("version", "4") == "4"
    assert said["ips"] == [{"address": "10.0.0.2/29", "gateway": "10.0.0.1"}]
    assert said["routes"] == [{"dst": "0.0.0.0/0"}] and said["dns"] == {"nameservers": ["10.0.0.9"]}


@pytest.mark.statement("del-twice", "del-netns-gone", "del-empty-prevresult")
def test_what_is_given_back_is_given_out_again_but_not_at_once(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    assert [caller.address("a"), caller.address("b")] == ["10.0.0.2", "10.0.0.3"]
    assert caller.ask("DEL", "a") == (0, None) and caller.ask("DEL", "a") == (0, None)
    assert [caller.address(c) for c in "cdef"] == ["10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.2"]


@pytest.mark.statement("status-ok")
def test_a_range_that_is_exhausted_says_so(tmp_path: Path) -> None:
    caller = Caller(tmp_path, subnet="10.0.0.0/30")
    assert caller.ask("STATUS") == (0, None)
    caller.address("a")
    status, said = caller.ask("STATUS")
    assert (status, said["code"]) == (1, Code.UNAVAILABLE) and "10.0.0.1-10.0.0.2" in said["msg"]
    status, said = caller.ask("ADD", "b")
    assert (status, said["code"]) == (1, Code.TRY_LATER) and "no IP addresses available" in said["msg"]


def test_of_two_range_sets_it_gives_an_address_each_or_none(tmp_path: Path) -> None:
    caller = Caller(tmp_path, ranges=[[{"subnet": "10.0.0.0/29"}], [{"subnet": "10.9.0.0/30"}]])
    said = caller.ask("ADD", "a")[1]
    assert [one["address"] for one in said["ips"]] == ["10.0.0.2/29", "10.9.0.2/30"]
    assert caller.ask("ADD", "b")[0] == 1
    assert sorted(f.name for f in (tmp_path / "net").glob("10.*")) == ["10.0.0.2", "10.9.0.2"]


@pytest.mark.parametrize(
    "asked",
    [
        {"runtimeConfig": {"ips": ["10.0.0.5"]}},
        {"args": {"cni": {"ips": ["10.0.0.5/29"]}}},
        {"args_text": "IP=10.0.0.5"},
    ],
)
def test_an_address_can_be_asked_for_and_is_given_once(tmp_path: Path, asked: dict[str, Any]) -> None:
    caller = Caller(tmp_path, subnet="10.0.0.0/29", rangeEnd="10.0.0.5")
    assert caller.address("a", **asked) == "10.0.0.5"
    assert caller.ask("ADD", "b", **asked)[1]["code"] == Code.ADDRESS_TAKEN
    assert caller.address("b") == "10.0.0.2", "what was asked for does not move the turn"
    outside = caller.ask("ADD", "c", runtimeConfig={"ips": ["10.0.0.6"]})[1]
    assert (outside["code"], outside["msg"]) == (Code.ADDRESS_TAKEN, "10.0.0.6: not one of 10.0.0.1-10.0.0.5")
    assert caller.ask("DEL", "c") == (0, None) and caller.address("d") == "10.0.0.3"


@pytest.mark.statement("check-ipam")
def test_a_reservation_that_went_is_missed(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    previous = caller.ask("ADD", "a")[1]
    assert caller.ask("CHECK", "a", prevResult=previous) == (0, None)
    (tmp_path / "net" / "10.0.0.2").unlink()
    status, said = caller.ask("CHECK", "a", prevResult=previous)
    assert (status, said["msg"]) == (1, "no reservation of 10.0.0.2 for a")


@pytest.mark.statement("gc-valid")
def test_gc_gives_back_what_belongs_to_nobody(tmp_path: Path) -> None:
    caller = Caller(tmp_path)
    for name in "abc":
        caller.address(name)
    valid = [{"containerID": "b", "ifname": "eth0"}, {"containerID": "c", "ifname": "eth1"}]
    assert caller.ask("GC", **{"cni.dev/valid-attachments": valid}) == (0, None)
    assert [f.name for f in (tmp_path / "net").glob("10.*")] == ["10.0.0.3"]


@pytest.mark.statement("concurrent")
def test_50_at_once_get_50_addresses(tmp_path: Path) -> None:
    caller = Caller(tmp_path, subnet="10.0.0.0/26")
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(caller.address, [f"c{i}" for i in range(50)]))
    assert len(set(found)) == 50


@pytest.mark.statement("err-conf")
@pytest.mark.parametrize(
    ("ipam", "code", "said"),
    [
        ({"subnet": "192.168.0.0/31"}, 7, "ipam.subnet: 192.168.0.0/31 is too small to allocate from"),
        ({"subnet": "nonsense"}, 7, "ipam.subnet: 'nonsense' does not appear to be an IPv4 or IPv6 network"),
        ({"ranges": [[{}]]}, 7, "ipam.subnet: is missing; expected a prefix"),
        ({"ranges": []}, 7, "ipam.ranges: no range"),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.1.1"}, 7, "ipam.rangeStart: 10.0.1.1 is not in 10.0.0.0/24"),
        ({"subnet": "10.0.0.0/24", "rangeStart": "10.0.0.9", "rangeEnd": "10.0.0.8"}, 7, "ipam.rangeEnd: 10.0.0.8"),
        ({"subnet": "10.0.0.0/24", "routes": [{}]}, 7, "ipam.routes: 'dst'"),
        ({"subnet": "10.0.0.0/24", "resolvConf": "/x"}, 2, "ipam.resolvConf: '/x'"),
    ],
)
def test_what_does_not_validate_is_named(tmp_path: Path, ipam: dict[str, Any], code: int, said: str) -> None:
    status, error = Caller(tmp_path, **ipam).ask("ADD")
    assert (status, error["code"]) == (1, code) and said in error["msg"], error
    assert not list(tmp_path.glob("net/10.*")), "a bad request keeps no address"
