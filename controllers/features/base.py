"""The fixed part of the pod bridge: table misses, conntrack, the gateway, reject and drop."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import (
    ALLOWED,
    IN_PORT_NUMBER,
    SNAT_ZONE,
    ZONE,
    Copy,
    Ct,
    DecTtl,
    ForgetInPort,
    Goto,
    Nat,
    Output,
    OutputField,
    Set,
)
from controllers.flow.program import Fragment, Writer, match
from controllers.state import Node, NodeView
from topo.cluster.wiring import GATEWAY_PORT, TUNNEL_PORT, UPLINK_PORT

# The address a pod sees as its own client when it reaches itself through a Service: link-local, so it can be no pod.
HAIRPIN_IP = "169.254.169.252"
# The MAC by which the node's own kernel addresses pods: it is answered for every address asked from gw0.
ROUTER_MAC = f.mac_number("0a:58:00:00:00:01")


def fragments(view: NodeView) -> Iterable[Fragment]:
    """One fragment for the bridge and one for the gateway of the node."""
    yield _bridge(view.lab.service_subnet, view.lab.pod_subnet)
    yield _gateway(view.node)


def drop(reason: int) -> tuple[Set, Goto]:
    """Actions that end in the Drop table's counter of `reason`."""
    return Set(f.DROP_REASON, reason), Goto(t.DROP)


@lru_cache(maxsize=64)
def _bridge(service_subnet: str, pod_subnet: str) -> Fragment:
    w = Writer("base", "bridge")
    for port, source in ((TUNNEL_PORT, f.FROM_TUNNEL), (UPLINK_PORT, f.FROM_UPLINK)):
        w.flow(t.CLASSIFIER, t.NORMAL, match(in_port=port), Set(f.PKT_SOURCE, source), Goto(t.after(t.CLASSIFIER)))
    for table in (t.SPOOF_GUARD, t.ARP_RESPONDER):
        w.flow(table, t.LOW, match("ip"), Goto(t.after(table)))
    w.flow(t.SPOOF_GUARD, t.NORMAL, match("ip", PktSource=f.FROM_POD), *drop(f.DROP_SPOOF))
    w.flow(t.SPOOF_GUARD, t.NORMAL, match("arp", PktSource=f.FROM_POD), *drop(f.DROP_SPOOF))
    w.flow(t.SPOOF_GUARD, t.LOW, match("arp"), Goto(t.after(t.SPOOF_GUARD)))
    w.flow(t.ARP_RESPONDER, t.MISS, match(), *drop(f.DROP_ARP))

    w.flow(
        t.UN_SNAT,
        t.NORMAL,
        match("ip", nw_dst=HAIRPIN_IP),
        Set(f.HAIRPIN, 1),
        Ct(SNAT_ZONE, t.after(t.UN_SNAT), nat=Nat()),
    )
    w.flow(t.UN_SNAT, t.MISS, match(), Goto(t.after(t.UN_SNAT)))
    # What the kernel answers to a rejected connection belongs to none: it is not tracked.
    w.flow(
        t.CONNTRACK,
        t.HIGH,
        match("ip", PktSource=f.FROM_GATEWAY, nw_src=service_subnet),
        Goto(t.L3_FORWARDING),
    )
    w.flow(t.CONNTRACK, t.NORMAL, match("ip"), Ct(ZONE, t.after(t.CONNTRACK), nat=Nat()))
    # The kernel's ICMP error about a rejected packet: no connection was committed, so conntrack finds it invalid.
    about_reject = match("icmp", ct_state="+inv+trk", PktSource=f.FROM_GATEWAY, icmp_type=3)
    w.flow(t.CONNTRACK_STATE, t.HIGH + 1, about_reject, Goto(t.L3_FORWARDING))
    w.flow(t.CONNTRACK_STATE, t.HIGH, match("ip", ct_state="+inv+trk"), *drop(f.DROP_INVALID))
    # Only a connection that was judged once may skip the judges: NAT commits it before that.
    w.flow(
        t.CONNTRACK_STATE,
        t.NORMAL,
        match("ip", ct_state="-new+est+trk", ct_mark=(ALLOWED, ALLOWED)),
        Goto(t.L3_FORWARDING),
    )
    w.flow(t.CONNTRACK_STATE, t.NORMAL, match("ip", ct_state="-new+rel+trk"), Goto(t.L3_FORWARDING))
    w.flow(t.CONNTRACK_STATE, t.LOW, match("ip", ct_state="-new+est+trk"), Goto(t.after(t.SERVICE_LB)))
    w.flow(t.CONNTRACK_STATE, t.MISS, match(), Goto(t.after(t.CONNTRACK_STATE)))
    # A Service address that no Service port claims (kube-proxy: KUBE-SERVICES' reject of cluster IPs).
    w.flow(t.SERVICE_LB, t.LOW, match("ip", nw_dst=service_subnet), Goto(t.REJECT))
    w.flow(t.SERVICE_LB, t.MISS, match(), Goto(t.after(t.SERVICE_LB)))

    # A pod address that no route leads to must not take the default route: the kernel would send it back here.
    pods = t.ROUTE + int(pod_subnet.partition("/")[2])
    w.flow(t.L3_FORWARDING, pods, match("ip", nw_dst=pod_subnet), *drop(f.DROP_NO_ROUTE))
    w.flow(t.L3_FORWARDING, t.MISS, match(), *drop(f.DROP_NO_ROUTE))
    # The kernel has already decremented what it forwarded, and starts its own packets at the full TTL.
    w.flow(t.L3_DEC_TTL, t.NORMAL, match("ip", PktSource=f.FROM_GATEWAY), Goto(t.after(t.L3_DEC_TTL)))
    w.flow(t.L3_DEC_TTL, t.LOW, match("ip"), DecTtl(), Goto(t.after(t.L3_DEC_TTL)))

    w.flow(
        t.CONNTRACK_COMMIT,
        t.NORMAL,
        match("ip", ct_state="+new+trk"),
        Ct(ZONE, t.after(t.CONNTRACK_COMMIT), commit=True, mark=ALLOWED),
    )
    # Committed by a Service's NAT, judged only now: every packet until the first is marked comes here.
    w.flow(
        t.CONNTRACK_COMMIT,
        t.NORMAL,
        match("ip", ct_state="-new+est+trk", ct_mark=(0, ALLOWED)),
        Ct(ZONE, t.after(t.CONNTRACK_COMMIT), commit=True, mark=ALLOWED),
    )
    w.flow(t.CONNTRACK_COMMIT, t.MISS, match(), Goto(t.after(t.CONNTRACK_COMMIT)))
    w.flow(t.SNAT, t.MISS, match(), Goto(t.after(t.SNAT)))
    w.flow(t.OUTPUT, t.NORMAL, match(Hairpin=1), ForgetInPort(), OutputField(f.OUT_PORT))
    w.flow(t.OUTPUT, t.LOW, match(), OutputField(f.OUT_PORT))
    for reason in f.DROP_REASON.values:
        w.flow(t.DROP, t.NORMAL, match(DropReason=reason))
    return w.fragment()


@lru_cache(maxsize=4096)
def _gateway(node: Node) -> Fragment:
    w = Writer("base", f"gateway of {node.name}")
    w.flow(
        t.CLASSIFIER,
        t.NORMAL,
        match(in_port=GATEWAY_PORT),
        Set(f.PKT_SOURCE, f.FROM_GATEWAY),
        Goto(t.after(t.CLASSIFIER)),
    )
    w.flow(
        t.ARP_RESPONDER,
        t.NORMAL,
        match("arp", arp_op=1, PktSource=f.FROM_GATEWAY),
        *_arp_answer_for_any(ROUTER_MAC),
    )
    # The kernel takes the TTL of what it forwards, and none of what is its own.
    to_gateway = (Set(f.ETH_DST, node.gateway_mac), Set(f.OUT_PORT, GATEWAY_PORT), Goto(t.after(t.L3_DEC_TTL)))
    for address in (node.gateway_ip, node.ip):
        w.flow(t.L3_FORWARDING, t.ROUTE + 32, match("ip", nw_dst=address), *to_gateway)
    w.flow(t.L3_FORWARDING, t.ROUTE, match("ip"), *to_gateway)
    # Back to the kernel even if it came from there: it then takes its own packet as one to forward, and rejects it.
    w.flow(t.REJECT, t.NORMAL, match("ip"), Set(f.ETH_DST, node.gateway_mac), ForgetInPort(), Output(GATEWAY_PORT))
    return w.fragment()


def arp_answer(mac: int, ip: int) -> tuple[Copy | Set | Output, ...]:
    """Turn an ARP request into the reply "ip is at mac" and send it back where it came from (RFC 826)."""
    return (
        Copy(f.ETH_SRC, f.ETH_DST),
        Set(f.ETH_SRC, mac),
        Set(f.ARP_OP, 2),
        Copy(f.ARP_SHA, f.ARP_THA),
        Set(f.ARP_SHA, mac),
        Copy(f.ARP_SPA, f.ARP_TPA),
        Set(f.ARP_SPA, ip),
        Output(IN_PORT_NUMBER),
    )


def _arp_answer_for_any(mac: int) -> tuple[Copy | Set | Output, ...]:
    """The same for whichever address was asked: sender and target address change places through a register."""
    return (
        Copy(f.ETH_SRC, f.ETH_DST),
        Set(f.ETH_SRC, mac),
        Set(f.ARP_OP, 2),
        Copy(f.ARP_SHA, f.ARP_THA),
        Set(f.ARP_SHA, mac),
        Copy(f.ARP_TPA, f.SWAP),
        Copy(f.ARP_SPA, f.ARP_TPA),
        Copy(f.SWAP, f.ARP_SPA),
        Output(IN_PORT_NUMBER),
    )
