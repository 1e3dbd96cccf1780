"""The scenarios that put loads on labs, each in a small form: what they measure went through the network they built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from running import scenario

FEW = ("--no-dns", "--nodes", "2")


def medians(found: Any, name: str) -> dict[str, float]:
    """Path -> median of a measurement, where there is one."""
    return {m["path"]: m["summary"]["p50"] for m in found["measurements"] if m["name"] == name and m["summary"]}


def test_online_boutiques_pages_cross_the_network_of_the_lab(tmp_path: Path) -> None:
    small = ("cnis=flannel vxlan", "modes=ovs", "connections=looked-up", "rate=8", "seconds=2")
    found = scenario(tmp_path, "online-boutique", *small, words=())
    products = medians(found, "product")
    before = "flannel vxlan, ovs: "
    assert set(products) == {f"{before}loopback, looked-up", f"{before}lab, looked-up"}
    # A product page is 17 calls, of which most cross nodes.
    assert products[f"{before}lab, looked-up"] > 2 * products[f"{before}loopback, looked-up"]
    pages, loads = found["tables"]
    assert [row[2] for row in pages["rows"]] == ["home", "product", "cart", "add to cart", "checkout", "set currency"]
    assert [row[4] for row in loads["rows"]] == ["0", "0"]  # errors


def test_latency_grows_with_the_queue_that_others_fill(tmp_path: Path) -> None:
    found = scenario(
        tmp_path, "latency-under-load", "rate=5", "queues=pfifo 50,fq_codel", "loads=idle,full", "seconds=1"
    )
    times = medians(found, "udp_rr")
    # 50 packets take 121 ms; TCP fills the queue by a half at least, whatever else the machine does.
    assert times["pfifo 50, full"] > 40_000 + times["pfifo 50, idle"]
    assert medians(found, "bulk")["pfifo 50, full"] < 5e6
    rows = {(row[0], row[1]): row for row in found["tables"][0]["rows"]}
    assert ("fq_codel", "full") in rows or rows["fq_codel", "left out"][2] == "needs sch_fq_codel"


def test_connection_churn_finds_the_connections_that_the_node_tracks(tmp_path: Path) -> None:
    found = scenario(tmp_path, "connection-churn", "modes=ovs", "rates=60", "seconds=1", "ports=40", words=FEW)
    summary, rows = (table["rows"] for table in found["tables"])
    for row in rows:
        assert row[1:3] in (["pod", "60"], ["Service", "60"])
        assert float(row[4]) < 50 and float(row[6]) >= 1.5  # percent that failed; 60 connections had 40 ports
    # Of 40 ports: no more than these can be remembered of a way, and some of them are.
    assert 10 <= sum(int(row[7]) for row in rows) <= 80 and summary[0][0] == "ovs"


def test_incast_overflows_a_short_queue(tmp_path: Path) -> None:
    small = ("senders=1,6", "bytes=40000", "rate=20", "queues=4", "rounds=3")
    found = scenario(tmp_path, "incast", *small, words=FEW)
    alone, many = found["tables"][0]["rows"]
    # Six times the bytes, and what did not fit into four packets' room was sent again.
    assert float(many[6]) > 1 and float(many[4]) < 20
    times = medians(found, "completion")
    assert times["queue 4, 6 senders"] > max(90_000, times["queue 4, 1 senders"]) and alone[:2] == ["4", "1"]


def test_a_neighbour_gets_what_its_annotations_leave_it(tmp_path: Path) -> None:
    small = ("rate=8", "traffic=udp", "cases=egress held,ingress held", "seconds=1")
    arrived = medians(scenario(tmp_path, "multi-tenant", *small, words=FEW), "neighbour")
    # Of a link of 8 Mbit/s a quarter, and the burst of a tenth of a second; 9.6 Mbit/s are sent.
    assert set(arrived) == {"egress held, udp", "ingress held, udp"}
    assert all(0.8e6 < rate < 2.2e6 for rate in arrived.values())


def test_virtual_devices_are_told_apart_by_what_they_do_to_a_packet(tmp_path: Path) -> None:
    small = ("devices=TAP,routed,iptables filter 10000,OVS kernel", "offload=off")
    found = scenario(tmp_path, "virtual-devices", *small, words=("--no-dns", "--seconds", "0.05"))
    times = medians(found, "icmp_rtt")
    # Every packet passes 10,000 rules, there and back.
    assert times["iptables filter 10000, offload off"] > 4 * times["routed, offload off"]
    assert medians(found, "cpu_per_gbit")["TAP, offload off"] > 0
    rows = {row[0]: row for row in found["tables"][0]["rows"]}
    missing = [note for note in found["notes"] if note.startswith("OVS kernel is left out: ")]
    assert rows["OVS kernel"][1] == "off" or "openvswitch" in missing[0]
