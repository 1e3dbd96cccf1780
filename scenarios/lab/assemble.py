"""Puts a lab together: the chosen CNI and proxy mode, the controller's command line, the datapath."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from controllers import cni as cnis
from controllers import proxy as proxies
from controllers.bgp import options as bgp
from controllers.bgp import outside, tor
from controllers.cni import Cni, Traits
from controllers.flow.tables import PIPELINES
from controllers.proxy import Proxy
from controllers.registry import FOLDERS, choose, discover
from scenarios.report import traits
from topo import fabric, platform, podnetwork, routers
from topo.addons.dns import objects as cluster_dns
from topo.addons.ingress import objects as ingress_controller
from topo.cluster.errors import InputError, PlatformError
from topo.cluster.network import Daemon, PodNetwork
from topo.cluster.store import Object
from topo.config import LabConfig
from topo.lab import Parts

OURS = "mininetes"


@dataclass(frozen=True, slots=True)
class Choices:
    """What a user may choose besides the lab's configuration.

    controllers: "mininetes" or files with Ryu applications; datapath: auto, netdev or system.
    """

    controllers: tuple[str, ...] = (OURS,)
    datapath: str = "auto"
    seed: int = 0


def parts(config: LabConfig, choices: Choices) -> Parts:
    """Everything the lab needs to know of the controllers. Raises InputError for names that there are not."""
    cni = choose(discover(cnis, "CNI"), config.cni, "CNI", "--cni or mininetes.cni")
    modes = discover(proxies, "PROXY")
    mode = config.proxy_mode or cni.proxy
    proxy = choose(modes, mode, "proxy mode", "--proxy or networking.kubeProxyMode")
    for key in cni.proxy_options:
        if key in config.cni_options and mode != cni.proxy:
            problem = f"proxy mode {mode} does not heed it"
            raise InputError(f"mininetes.cni.{key}", problem, f"proxy mode {cni.proxy}, as if none is asked for")
    proxy.check(config.proxy_options)
    platform.require_parts(f"proxy mode {proxy.name}", proxy.needs(config.proxy_options))
    for app in choices.controllers:
        if app != OURS and not Path(app).is_file():
            raise InputError(f"--controller {app}", "no such file", f"{OURS!r} or a file with a Ryu application")
    if config.bgp and "speaker" not in cni.options:
        raise InputError("mininetes.bgp", f"CNI {cni.name} speaks no BGP", "calico or kube-router")
    routing = bgp.of_cni(config.cni_options, config.bgp)
    for number, one in enumerate(routing.announced):
        if unknown := sorted(set(one.nodes) - {node.name for node in config.nodes}):
            there = ", ".join(node.name for node in config.nodes)
            raise InputError(f"mininetes.bgp.announce[{number}].nodes", f"there is no node {unknown[0]!r}", there)
    platform.require_routers("bird" in (routing.speaker, routing.outside), routing.outside == "frr")
    command, agent = [sys.executable, "-m", "controllers"], [sys.executable, "-m", "controllers.agent"]
    for app in choices.controllers:
        command += ["--controller", app if app == OURS else str(Path(app).resolve())]
    for folder in FOLDERS:
        command += ["--plugins", str(folder)]
        agent += ["--plugins", str(folder)]
    network = _network(cni, proxy, config)
    return Parts(
        network=network,
        controller=command,
        agent=agent,
        confirms=OURS in choices.controllers,
        tables={bridge: tuple((t.number, t.name) for t in tables) for bridge, tables in PIPELINES.items()},
        datapath=platform.choose_datapath(choices.datapath),
        seed=choices.seed,
        outside=(*_outside(config, routing), *_own(cni, config)),
        routers=_routers(config, routing),
        caveats=(
            *platform.substitutes(cni.devices(config.cni_options)),
            *cni.stand_ins(config.cni_options),
            *_unserved(network, cni, proxy),
        ),
        # Where pods hang on a Linux bridge, no flows see what they send each other.
        enforces=cni.traits_of(config.cni_options).enforces if not network.bridged else (),
        proxy_mode=mode,
        identities=cni.identities,
        carries_identities=cni.carries_identities(config.cni_options),
    )


def _outside(config: LabConfig, routing: bgp.Bgp) -> tuple[Daemon, ...]:
    """The router in the machine outside the cluster."""
    networks = (str(fabric.CLIENT_NETWORK), str(fabric.WORLD_NETWORK))
    return outside.daemons(str(fabric.client_address(config)), str(config.node_subnet), networks, routing)


def _own(cni: Cni, config: LabConfig) -> tuple[Daemon, ...]:
    """The CNI's programs there. Raises PlatformError if they are not installed."""
    daemons = cni.outside(str(fabric.client_address(config)), config.cni_options)
    if any(daemon.name == "etcd" for daemon in daemons):
        platform.require_etcd()
    return daemons


def _routers(config: LabConfig, routing: bgp.Bgp) -> dict[str, tuple[Daemon, ...]]:
    """A BIRD for each switch, if the nodes are to peer with them. Raises InputError if the switches are no routers."""
    if routing.peering != "tor":
        return {}
    if not config.fabric.routed:
        expected = "mininetes.fabric.routing: l3"
        raise InputError("mininetes.cni.peering", "the fabric's switches are no routers", expected)
    if routers.excess(config) > 0:
        problem = f"{config.node_subnet} has too few addresses for the links between the switches"
        raise InputError("mininetes.nodeSubnet", problem, "a larger subnet")
    leaves, ends = fabric.leaves(config.fabric), routers.link_addresses(config)
    found: dict[str, tuple[Daemon, ...]] = {}
    for name, router in fabric.routers(config).items():
        plan = tor.RouterPlan(
            name,
            tor.asn_of(name, leaves),
            str(router.gateway or ends[name][0].address),
            str(router.subnet or ""),
            tuple(
                tor.Session(end.peer, tor.asn_of(end.peer, leaves), str(end.address), str(end.peer_address))
                for end in ends[name]
            ),
            str(fabric.client_address(config)) if name == fabric.attach_client(config.fabric).switch else "",
        )
        found[name] = (outside.bird_daemon(tor.config(plan, routing)),)
    return found


def ingress(config: LabConfig, objects: Sequence[Object]) -> list[Object]:
    """The Ingress controller's objects, if it was asked for or an Ingress among these needs it; says the latter.

    Raises PlatformError if it was asked for and the machine cannot run it.
    """
    if config.ingress:
        platform.require_nginx()
    elif not ingress_controller.is_wanted(objects):
        return []
    else:
        try:
            platform.require_nginx()
        except PlatformError as error:
            print(f"mininetes: no Ingress is served: {error}", file=sys.stderr)
            return []
        print(
            "mininetes: the manifests have an Ingress, so the lab gets an Ingress controller (nginx)", file=sys.stderr
        )
    return ingress_controller.missing(objects)


def _network(cni: Cni, proxy: Proxy, config: LabConfig) -> PodNetwork:
    """How pods are attached. Raises InputError where the proxy mode's kernel has no device for the CNI's tunnel, and
    where the fabric's routers would get pods' packets as they are and know nothing of pods."""
    network = cni.plan(fabric.mtu(config.fabric), config.cni_options)
    routing = bgp.of_cni(config.cni_options, config.bgp) if "speaker" in cni.options else bgp.Bgp()
    traits = cni.traits_of(config.cni_options)
    is_plain = traits.crosses and traits.encapsulation == "none"
    if config.fabric.routed and routing.peering != "tor" and is_plain:
        named = f"{cni.name} {cni.variant(config.cni_options)}"
        problem = f"{named} does not wrap pods' packets, and routers between the racks have no routes to pods"
        expected = "l2, a CNI with an overlay, or for calico and kube-router speaker: bird, peering: tor"
        raise InputError("mininetes.fabric.routing", problem, expected)
    if network.plugins is not None:
        return _plugged(podnetwork.check(network, config), proxy)
    if proxy.attachment != "bridge" or network.bridged:
        return network
    if network.tunnel is not None and network.tunnel.type != "vxlan":
        problem = (
            f"proxy mode {proxy.name} has pods on Linux bridges, where CNI {cni.name} would need {network.tunnel.type}"
        )
        raise InputError("--proxy or networking.kubeProxyMode", problem, "a CNI without a tunnel, or with VXLAN")
    if network.sealed and network.tunnel is None:
        problem = f"proxy mode {proxy.name} has pods' packets leave by the node's kernel, past what would seal them"
        raise InputError("--proxy or networking.kubeProxyMode", problem, "a proxy mode of flows, or mode vxlan")
    if network.one_link:
        problem = f"proxy mode {proxy.name} has a Linux bridge in each node, where CNI {cni.name} has one link for all"
        raise InputError("--proxy or networking.kubeProxyMode", problem, "a proxy mode of flows")
    return replace(network, bridged=True)


def _unserved(network: PodNetwork, cni: Cni, proxy: Proxy) -> Iterator[str]:
    """What pods on a bridge miss of a proxy mode that works in the switch."""
    if network.bridged and proxy.attachment == "switch":
        yield (
            f"CNI {cni.name} has pods on a Linux bridge, past the switch: proxy mode {proxy.name} serves them no "
            "Service and no DNS; kernel-iptables and kernel-nftables do, by endpoints that a pod can reach"
        )


def _plugged(network: PodNetwork, proxy: Proxy) -> PodNetwork:
    """The user's CNI plugins with a proxy mode that sees what their pods send. Raises InputError."""
    if network.bridged and proxy.attachment != "bridge":
        problem = f"proxy mode {proxy.name} is flows of the node's switch, which pods of these CNI plugins do not pass"
        raise InputError(
            "--proxy or networking.kubeProxyMode", problem, "kernel-iptables, kernel-ipvs or kernel-nftables"
        )
    if not network.bridged and proxy.attachment == "bridge":
        problem = f"proxy mode {proxy.name} has pods on Linux bridges, the plugin mininetes-cni has them on the switch"
        raise InputError("--proxy or networking.kubeProxyMode", problem, 'another mode, or "bridge" in the .conflist')
    return network


def dns(config: LabConfig, objects: Sequence[Object]) -> list[Object]:
    """The cluster DNS' objects, less those that these bring themselves; none if the lab is to have no DNS."""
    if not config.dns:
        return []
    upstream = config.dns_upstream or str(fabric.client_address(config))
    return cluster_dns.missing(objects, config.service_subnet, upstream)


def cni_traits() -> dict[str, Traits]:
    """Of every CNI and variant, by "NAME VARIANT"."""
    return traits.by_variant(discover(cnis, "CNI"))


def traits_of(config: LabConfig) -> dict[str, dict[str, Any]]:
    """Of the CNI variant that a lab has, by its name, as data."""
    cni = discover(cnis, "CNI")[config.cni]
    return {f"{config.cni} {cni.variant(config.cni_options)}": traits.data(cni.traits_of(config.cni_options))}


def proxy_modes() -> dict[str, str]:
    """Every proxy mode, with a line on it."""
    return {name: proxy.description for name, proxy in discover(proxies, "PROXY").items()}
