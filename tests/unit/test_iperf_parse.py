"""Parsing what iperf3 3.12 really printed (intervals and streams left out)."""

from __future__ import annotations

import json

import pytest

from scenarios.measure import iperf
from scenarios.measure.iperf import Throughput, parse
from scenarios.measure.place import Place, ProgramError

TCP = """{"start": {"connected": [{"socket": 5, "local_host": "127.0.0.1", "local_port": 42108,
"remote_host": "127.0.0.1", "remote_port": 5201}], "version": "iperf 3.12", "tcp_mss_default": 32768,
"target_bitrate": 0, "sock_bufsize": 0, "sndbuf_actual": 16384, "rcvbuf_actual": 131072, "test_start":
{"protocol": "TCP", "num_streams": 1, "blksize": 131072, "omit": 0, "duration": 1, "bytes": 0, "blocks": 0,
"reverse": 0, "tos": 0, "target_bitrate": 0}}, "end": {"sum_sent": {"start": 0, "end": 1.000792,
"seconds": 1.000792, "bytes": 1435238400, "bits_per_second": 11472820725.985022, "retransmits": 13, "sender": true},
"sum_received": {"start": 0, "end": 1.000876, "seconds": 1.000876, "bytes": 1435238400,
"bits_per_second": 11471857852.52119, "sender": true}, "cpu_utilization_percent": {"host_total": 92.8149799145261,
"host_user": 1.5371180950278134, "host_system": 91.2773645312113, "remote_total": 45.17283134082912,
"remote_user": 3.0640871679797947, "remote_system": 42.10874417284932}, "sender_tcp_congestion": "bbr",
"receiver_tcp_congestion": "bbr"}}"""

UDP = """{"start": {"version": "iperf 3.12", "target_bitrate": 0, "sock_bufsize": 0, "sndbuf_actual": 212992,
"rcvbuf_actual": 212992, "test_start": {"protocol": "UDP", "num_streams": 1, "blksize": 32768, "omit": 0,
"duration": 1, "bytes": 0, "blocks": 0, "reverse": 0, "tos": 0, "target_bitrate": 0}}, "end": {"sum": {"start": 0,
"end": 1.000088, "seconds": 1.000088, "bytes": 2650603520, "bits_per_second": 21203873985.670643,
"jitter_ms": 0.009352065236777025, "lost_packets": 12883, "packets": 80890, "lost_percent": 15.926566942761776,
"sender": true}, "sum_sent": {"start": 0, "end": 1.000045, "seconds": 1.000045, "bytes": 2650603520,
"bits_per_second": 21203873985.670643, "jitter_ms": 0, "lost_packets": 0, "packets": 80890, "lost_percent": 0,
"sender": true}, "sum_received": {"start": 0, "end": 1.000088, "seconds": 1.000088, "bytes": 2228092928,
"bits_per_second": 17823174984.601353, "jitter_ms": 0.009352065236777025, "lost_packets": 12883, "packets": 80879,
"lost_percent": 15.926566942761776, "sender": false}, "cpu_utilization_percent": {"host_total": 98.7388689240018,
"host_user": 1.893243463065735, "host_system": 96.845525664222, "remote_total": 59.44681753097678,
"remote_user": 2.417548574948205, "remote_system": 57.02926895602858}}}"""

REFUSED = """{"start": {"connected": [], "version": "iperf 3.12"}, "intervals": [], "end": {},
"error": "unable to connect to server: Connection refused"}"""


def test_tcp() -> None:
    assert parse(TCP) == Throughput(
        bits_per_second=11471857852.52119,
        cpu_client=92.8149799145261,
        cpu_server=45.17283134082912,
        retransmits=13,
    )


def test_udp_counts_what_arrived_and_not_what_was_sent() -> None:
    assert parse(UDP) == Throughput(
        bits_per_second=17823174984.601353,
        cpu_client=98.7388689240018,
        cpu_server=59.44681753097678,
        lost=12883,
        packets=80879,
        jitter_ms=0.009352065236777025,
    )


def test_iperf3s_own_words_are_told() -> None:
    with pytest.raises(ProgramError, match="unable to connect to server: Connection refused"):
        parse(REFUSED)


def test_output_that_is_no_json_is_told() -> None:
    with pytest.raises(ProgramError, match="no JSON but 'killed'"):
        parse("killed\n")


def test_a_missing_part_is_named() -> None:
    document = json.loads(TCP)
    del document["end"]["sum_received"]
    with pytest.raises(ProgramError, match="'sum_received'"):
        parse(json.dumps(document))


@pytest.mark.parametrize(("protocol", "flags"), [("tcp", set()), ("udp", {"--udp"}), ("sctp", {"--sctp"})])
def test_the_sender_is_told_its_protocol(protocol: iperf.Protocol, flags: set[str]) -> None:
    _, send = iperf._commands(Place("two", 2, "10.0.0.2"), 1, protocol, address="10.96.0.1", port=5201)
    assert {"--udp", "--sctp"} & set(send) == flags and "10.96.0.1" in send
