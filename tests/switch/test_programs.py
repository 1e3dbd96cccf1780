"""A real Open vSwitch takes what the compilers make, gives it back unchanged, and forwards as the simulator says."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from controllers import compile as compiler
from controllers.flow.program import Program
from controllers.proxy.schedulers import SCHEDULERS
from controllers.simulate import Packet
from controllers.simulate import Switch as Simulated

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
import views

PORTS = (1, 2, 3, 10, 11)
Bridge = Callable[..., Any]


def pod_bridge(cni: str) -> Program:
    view = views.cluster(cni)["node-1"]
    return compiler.pod_bridge(view, views.cni_of(view), views.OVS)


def of_services(mode: str, **options: object) -> Program:
    """The pod bridge with a Service of every type, each also with affinity."""
    sticky = {f"{p.key}+": replace(p, key=f"{p.key}+", group=p.group + 100) for p in views.EVERY_TYPE.values()}
    moved = {
        key: replace(
            port,
            affinity=60,
            cluster_ip=port.cluster_ip + 100,
            node_port=port.node_port and port.node_port + 100,
            external_ips=tuple(ip + 1 for ip in port.external_ips),
            load_balancer_ips=tuple(ip + 1 for ip in port.load_balancer_ips),
        )
        for key, port in sticky.items()
    }
    view = views.served(mode, {**views.EVERY_TYPE, **moved}, **options)
    return compiler.pod_bridge(view, views.cni_of(view), views.proxy_of(view))


def programs() -> dict[str, Program]:
    found = {f"br-int {cni}": pod_bridge(cni) for cni in views.CNIS}
    for cni in views.CNIS:
        view = views.cluster(cni)["node-1"]
        found[f"br-ex {cni}"] = compiler.uplink_bridge(view, views.cni_of(view))
    for mode in ("ovs", "iptables"):
        found[f"Services {mode}"] = of_services(mode)
    for scheduler in SCHEDULERS:
        found[f"Services ipvs {scheduler}"] = of_services("ipvs", scheduler=scheduler)
    return found | {f"fabric {name}": compiler.fabric_switch(view) for name, view in views.fabric().items()}


@pytest.mark.parametrize("name", programs())
def test_every_program_is_accepted_and_read_back_as_nothing_to_do(bridge: Bridge, name: str) -> None:
    switch = bridge(*PORTS, 101, 102)
    program = programs()[name]
    before = switch.resync(program)
    assert len(before.change.set_flows) == sum(len(x.flows) for x in program.values())
    assert switch.load(program) == []
    after = switch.resync(program)
    assert not after.change and not after.stale_cookies and not after.stale_groups


def learned(switch: Any) -> set[str]:
    """What stands in ServiceMemory."""
    text = switch.command(
        "ovs-ofctl",
        "-O",
        "OpenFlow15",
        "--no-stats",
        "dump-flows",
        f"unix:{switch.run}/{switch.bridge}.mgmt",
        "table=25",
    )
    return {line.strip() for line in text.splitlines() if "table=25" in line}


@pytest.mark.parametrize("mode", ["ovs", "iptables", "ipvs"])
def test_what_the_switch_learned_is_not_taken_for_stale_and_goes_with_what_taught_it(bridge: Bridge, mode: str) -> None:
    switch = bridge(*PORTS)
    view = views.served(mode, {views.STICKY.key: views.STICKY})
    program = compiler.pod_bridge(view, views.cni_of(view), views.proxy_of(view))
    assert switch.load(program) == [] and not learned(switch)
    packet = {"in_port": views.A.port, "dl_src": mac(views.A), "dl_dst": view.node.gateway_mac}
    packet |= {"nw_src": views.A.ip, "nw_dst": views.STICKY.cluster_ip, "nw_ttl": 64, "tp_src": 40000, "tp_dst": 80}
    # -generate: with the side effects that a real packet has.
    command = ("ovs-appctl", "-t", str(switch.run / "vswitchd.ctl"), "ofproto/trace", switch.bridge)
    switch.command(*command, trace_text(packet), "--ct-next", "trk,new", "-generate")
    assert learned(switch)
    after = switch.resync(program)
    assert not after.change and not after.stale_cookies
    # Without the Service the flows that taught the switch go, and what it learned with them.
    rest = {key: fragment for key, fragment in program.items() if "sticky" not in key}
    todo = switch.resync(rest)
    from controllers import wire

    switch.send([wire.remove_cookie(*place) for place in todo.stale_cookies])
    assert not learned(switch)


def test_a_changed_program_is_told_from_the_one_that_stands(bridge: Bridge) -> None:
    switch = bridge(*PORTS)
    assert switch.load(pod_bridge("flannel")) == []
    view = views.without(views.cluster("flannel")["node-1"], views.WEB.key, "10.244.2.3:8080")
    todo = switch.resync(compiler.pod_bridge(view, views.cni_of(view), views.OVS))
    assert [g.owner for g in todo.change.set_groups] == [views.WEB.key]
    assert not todo.change.set_flows and not todo.stale_cookies
    assert switch.resync({}).stale_cookies


def test_a_refused_message_is_reported(bridge: Bridge) -> None:
    from controllers import wire
    from controllers.flow import tables as t
    from controllers.flow.actions import ToGroup
    from controllers.flow.program import Writer, match

    w = Writer("test", "no such group")
    w.flow(t.SERVICE_LB, t.NORMAL, match("ip"), ToGroup(999))
    errors = bridge(*PORTS).send([wire.set_flow(x) for x in w.fragment().flows])
    assert len(errors) == 1 and errors[0].startswith("type 2 code")  # OFPET_BAD_ACTION


def mac(pod: Any) -> int:
    return int(pod.mac)


def cases() -> dict[str, dict[str, int]]:
    """Packets as they enter node-1, by what they show."""
    a, b, c = views.A, views.B, views.C
    gateway = views.cluster("flannel")["node-1"].node.gateway_mac
    ip = {"dl_type": 0x800, "nw_proto": 6, "nw_ttl": 64, "tp_src": 40000, "tcp_flags": 2}
    here = {"in_port": a.port, "dl_src": mac(a), "nw_src": a.ip, **ip}
    return {
        "same node": {**here, "dl_dst": mac(b), "nw_dst": b.ip, "tp_dst": 80},
        "same node, routed": {**here, "dl_dst": gateway, "nw_dst": b.ip, "tp_dst": 80},
        "spoofed": {**here, "nw_src": c.ip, "dl_dst": gateway, "nw_dst": b.ip, "tp_dst": 80},
        "unknown pod": {**here, "dl_dst": gateway, "nw_dst": c.ip + 100 + (2 << 8), "tp_dst": 80},
        "to the gateway": {
            **here,
            "dl_dst": gateway,
            "nw_dst": views.cluster("flannel")["node-1"].node.gateway_ip,
            "tp_dst": 1,
        },
        "Service without endpoint": {
            **here,
            "dl_dst": gateway,
            "nw_dst": views.NONE.cluster_ip,
            "tp_dst": views.NONE.port,
        },
        "unknown Service": {**here, "dl_dst": gateway, "nw_dst": views.NONE.cluster_ip + 99, "tp_dst": 1},
        "from the uplink": {
            "in_port": 3,
            "dl_src": 0x0A5800000099,
            "dl_dst": gateway,
            "nw_src": c.ip,
            "nw_dst": a.ip,
            "tp_dst": 80,
            **ip,
        },
    }


def trace_text(packet: Packet) -> str:
    """The packet as ofproto/trace takes it."""
    from controllers.flow.fields import ip_text, mac_text

    show = {"dl_src": mac_text, "dl_dst": mac_text, "nw_src": ip_text, "nw_dst": ip_text}
    skip = ("dl_type", "nw_proto", "tcp_flags")
    return "tcp," + ",".join(f"{k}={show.get(k, str)(v)}" for k, v in packet.items() if k not in skip) + ",dp_hash=7"


def final_outputs(trace: str, ports: dict[str, int]) -> list[int]:
    """OpenFlow ports of the last datapath actions; dummy datapath ports are numbered as they were added."""
    actions = re.findall(r"Datapath actions: (.*)", trace)[-1]
    return sorted(ports[p] for p in re.findall(r"(?:^|,)(\d+)(?=,|$)", actions))


@pytest.mark.parametrize("cni", ["calico", "flannel"])
@pytest.mark.parametrize("case", cases())
def test_trace_and_simulator_agree_on_where_a_packet_goes(bridge: Bridge, cni: str, case: str) -> None:
    switch = bridge(*PORTS)
    program = pod_bridge(cni)
    assert switch.load(program) == []
    packet = cases()[case]
    shown = switch.command("ovs-appctl", "-t", str(switch.run / "vswitchd.ctl"), "dpif/show")
    numbers = {dp: int(of) for of, dp in re.findall(rf"{switch.bridge}-\d+ (\d+)/(\d+):", shown)}
    simulated = Simulated(program).run(packet)
    assert final_outputs(switch.trace(trace_text(packet)), numbers) == sorted(port for port, _ in simulated.outputs)


def test_a_service_reaches_each_of_its_endpoints_and_no_other(bridge: Bridge) -> None:
    switch = bridge(*PORTS)
    assert switch.load(pod_bridge("flannel")) == []
    gateway = views.cluster("flannel")["node-1"].node.gateway_mac
    found = set()
    for dp_hash in range(1, 64):
        packet = {
            "in_port": views.A.port,
            "dl_src": mac(views.A),
            "dl_dst": gateway,
            "nw_src": views.A.ip,
            "nw_dst": views.WEB.cluster_ip,
            "nw_ttl": 64,
            "tp_src": 40000,
            "tp_dst": views.WEB.port,
        }
        text = trace_text(packet).replace("dp_hash=7", f"dp_hash={dp_hash}")
        found |= set(re.findall(r"nat\(dst=([\d.:]+)\)", switch.trace(text)))
    from controllers.flow.fields import ip_text

    assert found == {f"{ip_text(e.ip)}:{e.port}" for e in views.WEB.endpoints}


def test_the_cases_above_end_in_different_places() -> None:
    """So that an agreement on "nowhere" cannot hide behind the comparison."""
    simulated = {name: [p for p, _ in Simulated(pod_bridge("flannel")).run(x).outputs] for name, x in cases().items()}
    assert simulated["same node"] == simulated["same node, routed"] == [views.B.port]
    assert simulated["spoofed"] == simulated["unknown pod"] == []
    assert simulated["to the gateway"] == simulated["unknown Service"] == simulated["Service without endpoint"] == [2]
    assert simulated["from the uplink"] == [views.A.port]
