"""The fixed part of the pod bridge: table misses, conntrack, the gateway, reject and drop."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import (
    ALLOWED,
    EXTERNAL,
    IN_PORT_NUMBER,
    MASQUERADED,
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
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, MatchItem, Writer, match
from controllers.state import Node, NodeView
from topo.cluster.wiring import GATEWAY_PORT, HAIRPIN_IP, NODEPORT_IP, REJECT_MAC, TUNNEL_PORT, UPLINK_PORT

# Ports of clients that bear the node's own address.
BEHIND_NODE = (1024, 32767)
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
    w.flow(t.IDENTITY, t.MISS, match(), Goto(t.after(t.IDENTITY)))

    w.flow(
        t.UN_SNAT,
        t.NORMAL,
        match("ip", nw_dst=HAIRPIN_IP),
        Set(f.HAIRPIN, 1),
        Ct(SNAT_ZONE, t.after(t.UN_SNAT), nat=Nat()),
    )
    w.flow(t.UN_SNAT, t.MISS, match(), Goto(t.after(t.UN_SNAT)))
    w.flow(t.SCTP_REPLY, t.MISS, match(), Goto(t.CONNTRACK))
    w.flow(t.CONNTRACK, t.NORMAL, match("ip"), Ct(ZONE, t.CONNTRACK_STATE, nat=Nat()))
    # What the kernel answers to a rejected packet: no connection was committed, so conntrack finds it invalid.
    for answer in (match("tcp", ct_state="+inv+trk", PktSource=f.FROM_GATEWAY), _about_reject()):
        w.flow(t.CONNTRACK_STATE, t.HIGH + 1, answer, Goto(t.L3_FORWARDING))
    w.flow(t.CONNTRACK_STATE, t.HIGH, match("ip", ct_state="+inv+trk"), *drop(f.DROP_INVALID))
    # Whoever opened a connection is judged with every packet, for policies change; answers pass while it is allowed.
    # NAT commits a connection before it is judged: it is not allowed yet.
    allowed = {"ct_mark": (ALLOWED, ALLOWED)}
    back = (Set(f.REPLY, 1), Goto(t.L3_FORWARDING))
    w.flow(t.CONNTRACK_STATE, t.NORMAL, match("ip", ct_state="-new+est+rpl+trk", **allowed), *back)
    w.flow(t.CONNTRACK_STATE, t.NORMAL, match("ip", ct_state="-new+rel+trk"), *back)
    w.flow(t.CONNTRACK_STATE, t.LOW, match("ip", ct_state="-new+est+rpl+trk"), *drop(f.DROP_DENIED_REPLY))
    w.flow(t.CONNTRACK_STATE, t.LOW, match("ip", ct_state="-new+est-rpl+trk"), Goto(t.after(t.ENDPOINT_DNAT)))
    w.flow(t.CONNTRACK_STATE, t.MISS, match(), Goto(t.after(t.CONNTRACK_STATE)))
    # A Service address that no Service port claims (kube-proxy: KUBE-SERVICES' reject of cluster IPs).
    w.flow(t.SERVICE_LB, t.LOW, match("ip", nw_dst=service_subnet), Goto(t.REJECT))
    w.flow(t.SERVICE_LB, t.MISS, match(), Goto(t.after(t.ENDPOINT_DNAT)))
    w.flow(t.ENDPOINT_CHOICE, t.MISS, match(), Goto(t.after(t.ENDPOINT_CHOICE)))
    # What memory named is no endpoint any more.
    w.flow(t.ENDPOINT_DNAT, t.MISS, match("ip"), Goto(t.REJECT))

    _without_policies(w)
    # A pod address that no route leads to must not take the default route: the kernel would send it back here.
    pods = t.ROUTE + int(pod_subnet.partition("/")[2])
    w.flow(t.L3_FORWARDING, pods, match("ip", nw_dst=pod_subnet), *drop(f.DROP_NO_ROUTE))
    w.flow(t.L3_FORWARDING, t.MISS, match(), *drop(f.DROP_NO_ROUTE))
    # The kernel has already decremented what it forwarded, and starts its own packets at the full TTL.
    w.flow(t.L3_DEC_TTL, t.NORMAL, match("ip", PktSource=f.FROM_GATEWAY), Goto(t.after(t.L3_DEC_TTL)))
    w.flow(t.L3_DEC_TTL, t.LOW, match("ip"), DecTtl(), Goto(t.after(t.L3_DEC_TTL)))

    _commits(w)
    w.flow(t.CONNTRACK_COMMIT, t.MISS, match(), Goto(t.after(t.CONNTRACK_COMMIT)))
    w.flow(t.SNAT, t.MISS, match(), Goto(t.after(t.SNAT)))
    w.flow(t.OUTPUT, t.HIGH, match(Hairpin=1), ForgetInPort(), OutputField(f.OUT_PORT))
    for source, port in ((f.FROM_UPLINK, UPLINK_PORT), (f.FROM_GATEWAY, GATEWAY_PORT)):
        w.flow(t.OUTPUT, t.NORMAL, match(PktSource=source, OutPort=port), ForgetInPort(), OutputField(f.OUT_PORT))
    w.flow(t.OUTPUT, t.LOW, match(), OutputField(f.OUT_PORT))
    for reason in f.DROP_REASON.values:
        w.flow(t.DROP, t.NORMAL, match(DropReason=reason))
    return w.fragment()


def _without_policies(w: Writer) -> None:
    """What holds for pods that no policy governs: the tables of policies let them pass."""
    for table in (t.EGRESS_SUBJECTS, t.EGRESS_DEFAULT):
        w.flow(table, t.MISS, match(), Goto(t.L3_FORWARDING))
    for table in (t.INGRESS_SUBJECTS, t.INGRESS_DEFAULT):
        w.flow(table, t.MISS, match(), Goto(t.SCTP_LEARN))
    for table in (t.EGRESS_ADMIN, t.EGRESS_POLICY, t.INGRESS_ADMIN, t.INGRESS_POLICY, t.SCTP_LEARN):
        w.flow(table, t.MISS, match(), Goto(t.after(table)))
    # As OVN does with ct_mark.blocked: the answers of a connection that is denied now must stop too.
    denied = match("ip", ct_state="-new+est-rpl+trk", ct_mark=(ALLOWED, ALLOWED))
    w.flow(t.DENY, t.NORMAL, denied, Ct(ZONE, t.DROP, commit=True, unmark=ALLOWED))
    w.flow(t.DENY, t.MISS, match(), Goto(t.DROP))


def _about_reject() -> tuple[MatchItem, ...]:
    return match("icmp", ct_state="+inv+trk", PktSource=f.FROM_GATEWAY, icmp_type=3)


def _commits(w: Writer) -> None:
    """Remember a connection with all that its later packets must know. One that a Service's NAT committed is judged
    only now: every packet until the first is marked comes here."""
    after = t.after(t.CONNTRACK_COMMIT)
    kinds = (
        (t.HIGH, {"PktSource": f.FROM_UPLINK, "Masquerade": 0}, ALLOWED | EXTERNAL),
        (t.HIGH, {"PktSource": f.FROM_UPLINK, "Masquerade": 1}, ALLOWED | EXTERNAL | MASQUERADED),
        # A Service of the node's own whose endpoint is beyond its own kernel: the answer must come back through here.
        (t.HIGH, {"PktSource": f.FROM_GATEWAY, "OutPort": GATEWAY_PORT}, ALLOWED | MASQUERADED),
        (t.NORMAL, {"Masquerade": 1}, ALLOWED | MASQUERADED),
        (t.NORMAL, {"Masquerade": 0}, ALLOWED),
    )
    for priority, fields, mark in kinds:
        new: dict[str, Any] = {"ct_state": "+new+trk", **fields}
        unjudged: dict[str, Any] = {"ct_state": "-new+est+trk", "ct_mark": (0, ALLOWED), **fields}
        for wanted in (new, unjudged):
            w.flow(t.CONNTRACK_COMMIT, priority, match("ip", **wanted), Ct(ZONE, after, commit=True, mark=mark))


@kept
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
    # A client behind this node's address: its answers come to that address, and go on wherever they came from.
    w.flow(
        t.UN_SNAT,
        t.NORMAL,
        match("ip", nw_dst=node.gateway_ip),
        Ct(SNAT_ZONE, t.after(t.UN_SNAT), nat=Nat()),
    )
    masqueraded = {"ct_mark": (MASQUERADED, MASQUERADED)}
    # The node's own connections bear that address from the start, and ports of the kernel's range (32768 to 60999);
    # clients behind it get others, or two with one port number would meet at their server.
    hide = Nat("src", node.gateway_ip, *BEHIND_NODE)
    # What goes to the kernel would be taken for its own if it bore its own address.
    hide_from_kernel = Nat("src", f.ip_number(HAIRPIN_IP))
    new: dict[str, Any] = {"ct_state": "+new+trk", **masqueraded}
    to_kernel = Ct(SNAT_ZONE, t.after(t.SNAT), True, hide_from_kernel)
    w.flow(t.SNAT, t.LOW + 2, match("ip", **new, OutPort=GATEWAY_PORT), to_kernel)
    w.flow(t.SNAT, t.LOW + 1, match("ip", **new, nw_src=node.gateway_ip), Goto(t.after(t.SNAT)))
    w.flow(t.SNAT, t.LOW, match("ip", **new), Ct(SNAT_ZONE, t.after(t.SNAT), True, hide))
    w.flow(
        t.SNAT,
        t.LOW,
        match("ip", ct_state="-new+est-rpl+trk", ct_mark=(MASQUERADED, MASQUERADED)),
        Ct(SNAT_ZONE, t.after(t.SNAT), nat=Nat()),
    )
    # The kernel takes the TTL of what it forwards, and none of what is its own.
    to_gateway = (Set(f.ETH_DST, node.gateway_mac), Set(f.OUT_PORT, GATEWAY_PORT), Goto(t.after(t.L3_DEC_TTL)))
    for address in (node.gateway_ip, node.ip, f.ip_number(HAIRPIN_IP), f.ip_number(NODEPORT_IP)):
        w.flow(t.L3_FORWARDING, t.ROUTE + 32, match("ip", nw_dst=address), *to_gateway)
    w.flow(t.L3_FORWARDING, t.ROUTE, match("ip"), *to_gateway)
    # Even if it came from there. The kernel knows by the source MAC what it is to do (nft(8), "ether saddr").
    w.flow(
        t.REJECT,
        t.NORMAL,
        match("ip"),
        Set(f.ETH_SRC, f.mac_number(REJECT_MAC)),
        Set(f.ETH_DST, node.gateway_mac),
        ForgetInPort(),
        Output(GATEWAY_PORT),
    )
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
