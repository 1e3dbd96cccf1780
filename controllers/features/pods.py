"""A node's own pods: who they are, how they are reached, and how one reaches itself through a Service."""

from __future__ import annotations

from collections.abc import Iterable

from controllers.flow import fields as f
from controllers.flow import tables as t
from controllers.flow.actions import SNAT_ZONE, Ct, Goto, Nat, Set
from controllers.flow.kept import kept
from controllers.flow.program import Fragment, Writer, match
from controllers.state import NodeView, Pod
from topo.cluster.wiring import HAIRPIN_IP


def fragments(view: NodeView) -> Iterable[Fragment]:
    """One fragment a pod."""
    for pod in view.pods:
        yield _pod(pod, view.node.gateway_mac)


@kept
def _pod(pod: Pod, gateway_mac: int) -> Fragment:
    w = Writer("pods", pod.key)
    w.flow(t.CLASSIFIER, t.NORMAL, match(in_port=pod.port), Set(f.PKT_SOURCE, f.FROM_POD), Goto(t.after(t.CLASSIFIER)))
    own = Goto(t.after(t.SPOOF_GUARD))
    w.flow(t.SPOOF_GUARD, t.HIGH, match("ip", in_port=pod.port, dl_src=pod.mac, nw_src=pod.ip), own)
    w.flow(t.SPOOF_GUARD, t.HIGH, match("arp", in_port=pod.port, dl_src=pod.mac, arp_spa=pod.ip, arp_sha=pod.mac), own)
    w.flow(
        t.L3_FORWARDING,
        t.ROUTE + 32,
        match("ip", nw_dst=pod.ip),
        Set(f.ETH_SRC, gateway_mac),
        Set(f.ETH_DST, pod.mac),
        Set(f.OUT_PORT, pod.port),
        Goto(t.L3_DEC_TTL),
    )
    # A pod that was chosen as the endpoint of its own connection would answer itself past the switch; its
    # client address is hidden from it (Kubernetes, "Debug Services": hairpin).
    itself = {"nw_src": pod.ip, "nw_dst": pod.ip}
    hide = Nat("src", f.ip_number(HAIRPIN_IP))
    w.flow(
        t.SNAT,
        t.NORMAL,
        match("ip", ct_state="+new+trk", **itself),
        Set(f.HAIRPIN, 1),
        Ct(SNAT_ZONE, t.after(t.SNAT), commit=True, nat=hide),
    )
    w.flow(
        t.SNAT,
        t.NORMAL,
        match("ip", ct_state="-new+est-rpl+trk", **itself),
        Set(f.HAIRPIN, 1),
        Ct(SNAT_ZONE, t.after(t.SNAT), nat=Nat()),
    )
    return w.fragment()
