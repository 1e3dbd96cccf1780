"""BIRD's configuration as text, for a node and for a router outside the cluster; pure.

Source: BIRD 2.0 User's Guide (chapters 3 Configuration and 6 Protocols: BFD, BGP, Device, Direct, Kernel, Static);
Calico, "Configure BGP peering" and "Advertise Kubernetes service IP addresses", for what a node tells whom.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Network

from controllers.announce import routed_addresses
from controllers.bgp.options import Announced, Bgp, of
from controllers.cni import blocks
from controllers.flow.fields import ip_text
from controllers.rib import Rule
from controllers.state import Node, NodeView

# Calico, "Configure BGP peering": the example cluster ID of route reflectors. Both have it: each client speaks to both.
CLUSTER_ID = "244.0.0.1"
# Milliseconds between BFD's packets, and how many may be missed (RFC 5880, section 6.8.4): half a second, which is more
# than a busy machine that emulates all nodes keeps one of them waiting.
BFD_INTERVAL, BFD_MULTIPLIER = 100, 5
# Seconds that neighbours keep the routes of one that starts again (RFC 4724, section 3: restart time), and that it
# waits for theirs before it takes from the kernel what nobody announced anew. Those that live are back within five
# (`timers`). A neighbour that leaves meanwhile is waited for to the end (BIRD 2.0.12), with no new route in the kernel.
RESTART_TIME, RESTART_WAIT = 120, 10
# Seconds between looks at what the kernel holds; changes that BIRD makes do not wait for it.
SCAN = 2
# What a node calls its session with its rack's router.
LEAF = "leaf"
# What a neighbour is told, and where a next hop is that it tells.
_TOLD = "export where source ~ [ RTS_STATIC, RTS_BGP ]; gateway direct;"


def node_config(view: NodeView) -> str:
    """What BIRD on this node does: announces what is the node's, and gives the kernel what its peers announce."""
    bgp = of(view.lab)
    address = ip_text(view.node.ip)
    return "\n".join(
        [
            f"# {view.node.name}",
            *base(address),
            *_own(view, bgp),
            *_kernel(view),
            *(bfd("br-ex") if bgp.bfd else ()),
            *(_import(bgp.imports) if bgp.imports else ()),
            *_template("nodes", bgp.asn, address, bgp),
            *_nodes(view, bgp),
            *_peers(view, bgp),
            "",
        ]
    )


def outside_config(address: str, interface: str, nodes: str, networks: tuple[str, ...], bgp: Bgp) -> str:
    """What BIRD in the machine outside the cluster does: takes what nodes announce, with all equally good next hops.

    address: its own, on that interface. nodes: the subnet of the nodes, any of which may come. networks: its own.
    """
    return "\n".join(
        [
            "# outside the cluster",
            *base(address, interface),
            *_static("own", networks),
            "protocol kernel {",
            "  ipv4 { import none; export where source = RTS_BGP; };",
            f"  merge paths on; persist; graceful restart on; scan time {SCAN};",
            "}",
            *(bfd(interface) if bgp.bfd else ()),
            *_template("nodes", bgp.outside_asn, address, bgp),
            f'protocol bgp anybody from nodes {{ neighbor range {nodes} external; dynamic name "node"; passive on; }}',
            "",
        ]
    )


def reflectors(view: NodeView, bgp: Bgp) -> tuple[str, ...]:
    """The nodes that reflect routes: the first by name, of all that there are."""
    names = sorted(node.name for node in (view.node, *view.peers))
    return tuple(names[: bgp.reflectors]) if bgp.peering == "reflector" else ()


def sessions(view: NodeView) -> tuple[Node, ...]:
    """The nodes that this one has a session with, by name."""
    bgp = of(view.lab)
    if bgp.peering == "tor":
        return ()
    chosen = reflectors(view, bgp)
    everyone = sorted(view.peers, key=lambda node: node.name)
    return tuple(n for n in everyone if not chosen or view.node.name in chosen or n.name in chosen)


def expected(view: NodeView) -> dict[str, str]:
    """Protocol -> whom it speaks to, of sessions that must come up: with nodes that are ready and the lab's router."""
    if not view.node.ready:
        return {}
    found = {protocol_of(node): node.name for node in sessions(view) if node.ready}
    if of(view.lab).peering == "tor":
        return {LEAF: "its leaf"}
    if of(view.lab).outside:
        found |= {_peer_name(ip_text(machine.ip)): machine.name for machine in view.outside[:1]}
    return found


def protocol_of(node: Node) -> str:
    """What BIRD calls the session with a node."""
    return "node_" + ip_text(node.ip).replace(".", "_")


def base(address: str, interface: str = "br-ex") -> Iterator[str]:
    """What every router of ours has. address: its ID."""
    yield f"router id {address};"
    yield "log stderr all;"
    yield f"graceful restart wait {RESTART_WAIT};"
    yield f"protocol device {{ scan time {SCAN}; }}"
    yield f'protocol direct {{ ipv4; interface "{interface}"; }}'


def own_prefixes(view: NodeView, bgp: Bgp) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What is this node's: its pods, and (as MetalLB and Calico do) Service addresses that it may take traffic for."""
    services = [f"{ip_text(address)}/32" for address in routed_addresses(view.services, view.node)]
    if bgp.service_subnet and view.node.ready:
        services.append(view.lab.service_subnet)
    routes = view.lab.options.get("cni", {}).get("routes", "node")
    addresses = view.addresses.get(view.node.name, ())
    return tuple(blocks.announced(routes, view.node.pod_cidr, addresses)), tuple(sorted(services))


def _own(view: NodeView, bgp: Bgp) -> Iterator[str]:
    pods, services = own_prefixes(view, bgp)
    yield from _static("pods", pods)
    yield from _static("services", services)
    yield from _announced(bgp.own(view.node.name))


def _announced(own: Iterable[Announced]) -> Iterator[str]:
    """What the lab file has this node announce beside its pods, with its attributes."""
    for number, one in enumerate(own, start=1):
        words = [f"bgp_local_pref = {one.local_preference}", f"bgp_med = {one.med}"]
        words += [f"bgp_community.add(({a},{b}))" for a, b in sorted(one.communities)]
        yield f"protocol static announced{number} {{"
        yield "  ipv4;"
        yield f"  route {one.prefix} blackhole {{ {'; '.join(words)}; }};"
        yield "}"


def _import(rules: Iterable[Rule]) -> Iterator[str]:
    """What is let in of what other nodes tell, rule by rule, as the controller's RIB does it."""
    yield "filter let_in {"
    for rule in rules:
        prefix = rule.prefix or "0.0.0.0/0"
        # In BIRD a length below the prefix's own is that of prefixes round it.
        tests = [f"net ~ [ {prefix}{{{max(rule.shortest, int(prefix.partition('/')[2]))},{rule.longest}}} ]"]
        tests += [f"({rule.community[0]},{rule.community[1]}) ~ bgp_community"] if rule.community else []
        acts = [f"bgp_local_pref = {rule.local_preference}"] if rule.local_preference is not None else []
        acts += [f"bgp_community.add(({a},{b}))" for a, b in sorted(rule.add)]
        does = "; ".join([*(acts if rule.accept else ()), "accept" if rule.accept else "reject"])
        yield f"  if {' && '.join(tests)} then {{ {does}; }}"
    yield "  accept;"
    yield "}"


def _static(name: str, prefixes: tuple[str, ...]) -> Iterator[str]:
    """Routes that are announced, and never given to the kernel, which has its own ways to what is the node's."""
    yield f"protocol static {name} {{"
    yield "  ipv4;"
    yield from (f"  route {prefix} blackhole;" for prefix in prefixes)
    yield "}"


def _kernel(view: NodeView) -> Iterator[str]:
    """Learnt routes for the kernel; but a node's own connections to Services go to its own switch."""
    services = [
        f"{net}{{{net.partition('/')[2]},32}}" for net in (view.lab.service_subnet, view.lab.load_balancer_pool) if net
    ]
    yield "protocol kernel {"
    yield f"  ipv4 {{ import none; export where source = RTS_BGP && net !~ [ {', '.join(services)} ]; }};"
    yield f"  merge paths on; persist; graceful restart on; scan time {SCAN};"
    yield "}"


def bfd(interface: str) -> Iterator[str]:
    """On interfaces of that pattern."""
    yield "protocol bfd {"
    interval = f"min rx interval {BFD_INTERVAL} ms; min tx interval {BFD_INTERVAL} ms; idle tx interval 1 s"
    yield f'  interface "{interface}" {{ {interval}; multiplier {BFD_MULTIPLIER}; }};'
    yield "}"


def _template(name: str, asn: int, address: str, bgp: Bgp) -> Iterator[str]:
    """What all sessions share. Everybody is on one subnet, so a next hop is where its address says (gateway direct)."""
    yield f"template bgp {name} {{"
    yield f"  local {address} as {asn};"
    yield f"  direct; {timers(bgp)}"
    yield f"  ipv4 {{ import all; {_TOLD} }};"
    yield "}"


def timers(bgp: Bgp) -> str:
    """A session's, and how it ends and comes again. A peer that is not there yet is soon: it is looked for every two
    seconds, not every two minutes."""
    restart = f"graceful restart {'on' if bgp.graceful_restart else 'off'}; graceful restart time {RESTART_TIME};"
    retry = "connect delay time 1; connect retry time 2; error wait time 1, 4; error forget time 10;"
    return f"hold time {bgp.hold_time}; {retry} {restart} bfd {'on' if bgp.bfd else 'off'};"


def _nodes(view: NodeView, bgp: Bgp) -> Iterator[str]:
    if bgp.peering == "tor":
        yield from _leaf(view, bgp)
    chosen = reflectors(view, bgp)
    for node in sessions(view):
        words = [f'description "{node.name}"', f"neighbor {ip_text(node.ip)} as {bgp.asn}"]
        if view.node.name in chosen and node.name not in chosen:
            words += ["rr client", f"rr cluster id {CLUSTER_ID}"]
        # One of the two calls the other, so that no connection must be given up (RFC 4271, section 6.8).
        words += ["passive on"] if view.node.ip > node.ip else []
        words += [f"ipv4 {{ import filter let_in; {_TOLD} }}"] if bgp.imports else []
        yield f"protocol bgp {protocol_of(node)} from nodes {{ {'; '.join(words)}; }}"


def _leaf(view: NodeView, bgp: Bgp) -> Iterator[str]:
    """The rack's router. All nodes are of one AS, so what it tells of other racks' has passed that AS already (Calico,
    BGPPeer, numAllowedLocalASNumbers)."""
    yield f"protocol bgp {LEAF} from nodes {{"
    yield f"  neighbor {IPv4Network(view.node.subnet).network_address + 1} external; allow local as 1;"
    imports = "import filter let_in" if bgp.imports else "import all"
    yield f"  ipv4 {{ {imports}; export where source = RTS_STATIC; gateway direct; }};"
    yield "}"


def _peers(view: NodeView, bgp: Bgp) -> Iterator[str]:
    """Routers outside the cluster, told only what is this node's own: every node speaks for itself."""
    for peer in peers(view, bgp):
        yield f"protocol bgp {_peer_name(peer[0])} from nodes {{"
        yield f"  neighbor {peer[0]} as {peer[1]};"
        yield "  ipv4 { import all; export where source = RTS_STATIC; gateway direct; };"
        yield "}"


def _peer_name(address: str) -> str:
    return "peer_" + address.replace(".", "_")


def peers(view: NodeView, bgp: Bgp) -> tuple[tuple[str, int], ...]:
    """(address, AS) of routers that are no nodes."""
    found = [(peer.address, peer.asn) for peer in bgp.peers]
    if bgp.outside and bgp.peering != "tor":
        found += [(ip_text(machine.ip), bgp.outside_asn) for machine in view.outside[:1]]
    return tuple(dict.fromkeys(found))
