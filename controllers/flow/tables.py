"""The pipelines: which tables a packet passes in each kind of bridge, in which stage and what for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

# Priorities inside a table. Routes take ROUTE + prefix length, so the longest prefix wins (RFC 4632, section 5.1).
HIGH, NORMAL, LOW, MISS = 210, 200, 190, 0
ROUTE = 100


@dataclass(frozen=True, slots=True)
class Table:
    """One OpenFlow table. Numbers have gaps: a table inserted later renumbers no other under a running switch."""

    number: int
    name: str
    stage: str
    purpose: str

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"table {self.number}"


CLASSIFIER = Table(0, "Classifier", "Classification", "in_port decides PktSource")
SPOOF_GUARD = Table(5, "SpoofGuard", "Validation", "a pod uses only its own MAC and IP")
ARP_RESPONDER = Table(8, "ARPResponder", "Validation", "answers every ARP request itself; ARP ends here")
IDENTITY = Table(9, "Identity", "Validation", "which security identity sent it, where the CNI knows identities")
UN_SNAT = Table(10, "UnSNAT", "ConntrackState", "replies to masqueraded connections get their client back")
SCTP_REPLY = Table(11, "SctpReply", "ConntrackState", "asks SctpMemory whether an SCTP packet is an answer")
CONNTRACK = Table(12, "Conntrack", "ConntrackState", "looks the connection up and undoes or repeats its NAT")
SCTP_MEMORY = Table(13, "SctpMemory", "ConntrackState", "learned: answers of SCTP associations that were allowed")
CONNTRACK_STATE = Table(14, "ConntrackState", "ConntrackState", "invalid -> Drop; answer -> L3Forwarding; else on")
SERVICE_LB = Table(24, "ServiceLB", "PreRouting", "Service address and port -> an endpoint; none -> Reject")
SERVICE_MEMORY = Table(25, "ServiceMemory", "PreRouting", "learned: a client's endpoint, a Service's next turn")
ENDPOINT_CHOICE = Table(26, "EndpointChoice", "PreRouting", "Service and index -> an endpoint, unless memory named one")
ENDPOINT_DNAT = Table(27, "EndpointDNAT", "PreRouting", "Service and endpoint -> its address; affinity remembers it")
EGRESS_SUBJECTS = Table(28, "EgressSubjects", "EgressSecurity", "which pods of this node are governed as senders")
EGRESS_ADMIN = Table(29, "EgressAdmin", "EgressSecurity", "what admin policies say of what it sends")
EGRESS_POLICY = Table(
    30, "EgressPolicy", "EgressSecurity", "what its namespace's policies say; isolated pods are refused"
)
EGRESS_DEFAULT = Table(34, "EgressDefault", "EgressSecurity", "baseline policies")
L3_FORWARDING = Table(40, "L3Forwarding", "Routing", "the CNI's routes: prefix -> port, next hop, tunnel")
L3_DEC_TTL = Table(44, "L3DecTTL", "Routing", "TTL of packets this node routes")
INGRESS_SUBJECTS = Table(66, "IngressSubjects", "IngressSecurity", "which pods of this node are governed as receivers")
INGRESS_ADMIN = Table(68, "IngressAdmin", "IngressSecurity", "what admin policies say of what it receives")
INGRESS_POLICY = Table(70, "IngressPolicy", "IngressSecurity", "its namespace's policies, and isolation")
INGRESS_DEFAULT = Table(74, "IngressDefault", "IngressSecurity", "baseline policies")
SCTP_LEARN = Table(78, "SctpLearn", "Conntrack", "remembers how answers of an allowed SCTP packet will look")
CONNTRACK_COMMIT = Table(80, "ConntrackCommit", "Conntrack", "remembers the connection, marked Allowed")
# After the commit, so that the committed connection carries the client's own address.
SNAT = Table(85, "SNAT", "PostRouting", "hides clients where a reply would miss this node: hairpin, masquerade")
OUTPUT = Table(90, "Output", "Output", "leaves by OutPort")
REJECT = Table(95, "Reject", "Output", "to the node's kernel, which answers TCP RST or ICMP port unreachable")
DENY = Table(97, "Deny", "Output", "takes from a connection the mark that it is allowed, so that its answers stop too")
DROP = Table(99, "Drop", "Output", "one counted flow per reason")

UPLINK = Table(0, "Uplink", "Forwarding", "between the wire, the node's own stack and the pod bridge")

FABRIC_ARP = Table(0, "FabricARP", "Validation", "answers ARP requests for nodes; nothing is flooded")
FABRIC_FORWARD = Table(10, "FabricForward", "Forwarding", "node MAC -> port, or any of the equal-cost ports")
FABRIC_ROUTE = Table(
    20, "FabricRoute", "Forwarding", "where racks have subnets of their own: prefix -> next router, or the node"
)

Pipeline = tuple[Table, ...]
POD_BRIDGE: Pipeline = (
    CLASSIFIER,
    SPOOF_GUARD,
    ARP_RESPONDER,
    IDENTITY,
    UN_SNAT,
    SCTP_REPLY,
    CONNTRACK,
    SCTP_MEMORY,
    CONNTRACK_STATE,
    SERVICE_LB,
    SERVICE_MEMORY,
    ENDPOINT_CHOICE,
    ENDPOINT_DNAT,
    EGRESS_SUBJECTS,
    EGRESS_ADMIN,
    EGRESS_POLICY,
    EGRESS_DEFAULT,
    L3_FORWARDING,
    L3_DEC_TTL,
    INGRESS_SUBJECTS,
    INGRESS_ADMIN,
    INGRESS_POLICY,
    INGRESS_DEFAULT,
    SCTP_LEARN,
    CONNTRACK_COMMIT,
    SNAT,
    OUTPUT,
    REJECT,
    DENY,
    DROP,
)
UPLINK_BRIDGE: Pipeline = (UPLINK,)
FABRIC_SWITCH: Pipeline = (FABRIC_ARP, FABRIC_FORWARD, FABRIC_ROUTE)
# One name a kind of bridge, as the command line and the lab's database use it.
PIPELINES: Mapping[str, Pipeline] = {"br-int": POD_BRIDGE, "br-ex": UPLINK_BRIDGE, "br-fabric": FABRIC_SWITCH}

_NEXT: dict[Table, Table] = {one: two for pipeline in PIPELINES.values() for one, two in pairwise(pipeline)}


def after(table: Table) -> Table:
    """The table that follows in the same pipeline. Raises KeyError at the end of one."""
    return _NEXT[table]


_FURTHER: dict[Table, frozenset[Table]] = {
    table: frozenset(pipeline[i + 1 :]) for pipeline in PIPELINES.values() for i, table in enumerate(pipeline)
}


def further(table: Table) -> frozenset[Table]:
    """The tables that a packet may still reach from `table`: the later ones of its pipeline."""
    return _FURTHER.get(table, frozenset())
