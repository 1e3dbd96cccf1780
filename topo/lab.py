"""One running lab: builds fabric, nodes and control plane in the present capsule and keeps them together."""

from __future__ import annotations

import logging
import random
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from topo import fabric, hosts, links, linuxbridge, logs, nodes, outside, routers
from topo.cluster.ipam import AddressPool, service_pool
from topo.cluster.network import Daemon, PodNetwork
from topo.cluster.patience import patience
from topo.cluster.store import NotFound, Object, Store
from topo.cluster.wiring import GROUP
from topo.config import LabConfig, NodeConfig
from topo.config_rules import fabric_links
from topo.control.api import ApiServer
from topo.control.events import record
from topo.control.link import Controller, ControllerGone
from topo.control.loop import ControlLoop
from topo.kubelet import Kubelet
from topo.nodes import Machine, Node, Tables
from topo.ovs import Bridge, OpenVSwitch, Port, empty_database
from topo.podnetwork import NodeNetwork
from topo.standin.client import StandIn
from topo.threads import at_once
from topo.waiting import UnreadyPods, waiting_for
from topo.wires import Wires, port_name

# Seconds between two looks at whether the nodes' switches live.
_NODE_PERIOD = 0.2
# How many times as long as a look at whether all is ready takes the next one waits.
_SHARE = 5.0

LOG = logging.getLogger("mininetes")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the caller, who knows the controllers, hands to the lab.

    controller, agent: argument vectors of their processes; confirms: whether the controller confirms flows (a user's
    own may not).
    tables: names of OpenFlow tables by bridge. datapath: "netdev" or "system".
    """

    network: PodNetwork
    controller: Sequence[str]
    agent: Sequence[str]
    confirms: bool
    tables: Tables
    datapath: str
    seed: int = 0
    proxy_mode: str = ""
    # What policies the CNI enforces, as KIND/DIRECTION.
    enforces: tuple[str, ...] = ()
    # Whether the CNI knows pods by security identities, and whether packets to other nodes carry them.
    identities: bool = False
    carries_identities: bool = False
    # What runs in the machine outside the cluster.
    outside: Sequence[Daemon] = ()
    # What runs in the fabric's switches, if their kernels are routers.
    routers: Mapping[str, Sequence[Daemon]] = field(default_factory=dict)
    # What is not as the user may think, a sentence each: what stands in for what the kernel lacks, what does not work.
    caveats: tuple[str, ...] = ()


class NotReady(Exception):
    """The lab did not become ready; the message says what is missing."""


class Lab:
    """Built by `start`; everything in it ends with the capsule. run: its folder on the capsule's tmpfs."""

    def __init__(self, config: LabConfig, parts: Parts, run: Path) -> None:
        self.config, self.parts, self.run = config, parts, run
        self.store = Store()
        self.mininet = hosts.empty_network()
        self.nodes: dict[str, Node] = {}
        self.switches: dict[str, Machine] = {}
        self.outside: dict[str, hosts.Host] = {}
        self.api = ApiServer(self.store, run / "api.sock", self._connected)
        self.controller = Controller(self.store, run, parts.controller)
        self.agent = Controller(self.store, run, parts.agent, "agent")
        self.standin = StandIn()
        pool = fabric.load_balancer_pool(config)
        self.loop = ControlLoop(
            self.store,
            service_pool(config.service_subnet),
            random.Random(parts.seed),
            AddressPool(pool) if pool else None,
        )
        offloads = parts.datapath == "system" and parts.network.offloads
        self.kubelet = Kubelet(
            self.store,
            self.nodes,
            self.mininet,
            self.standin,
            self._connected,
            lambda node: NodeNetwork(node, parts.network, run / node.name / "cni", offloads),
            honour_delay=config.honour_initial_delay,
        )
        self._wires = Wires(config.fabric, self.store, self.mininet, self._host)
        self._database = empty_database(run)
        self._mtu = fabric.mtu(config.fabric)
        self._lock = threading.Lock()
        self._last_number = -1
        # Nodes that have joined, and whether their switches lived at the last look.
        self._up: dict[str, bool] = {}

    def start(self, progress: Progress = lambda _: None) -> None:
        """Build everything; returns when switches forward and the control plane runs. Pods follow as the store asks."""
        progress("fabric and nodes")
        self.controller.start()  # first, for it takes longest
        self.agent.start()
        lab = self.store.create(self._lab_object())
        for text in self.parts.caveats:
            record(self.store, lab, "Caveat", text)
        planned, forwarding = fabric.routers(self.config), "kernel" if self.parts.routers else "flows"
        for switch in fabric.switches(self.config.fabric):
            host = hosts.Host(switch.name)
            self.switches[switch.name] = Machine(host, OpenVSwitch(host, self.run / switch.name, self.parts.datapath))
            hosts.add(self.mininet, host, switch=True)
            self.store.create(fabric.switch_object(switch, planned.get(switch.name), forwarding))
        for wanted in self.config.nodes:
            self._plan(wanted)
        self._plan_client()
        ports = {name: self._wire_switch(name) for name in self.switches}
        progress("switches")
        bridges = {name: [self._switch_bridge(name, ports[name])] for name in self.switches}
        bridges |= {n.name: list(self._bridges_of(n)) for n in self.nodes.values()}
        machines = {**self.switches, **{n.name: n.machine for n in self.nodes.values()}}
        at_once(lambda name: nodes.prepare(machines[name], bridges[name], self._database), machines)
        # A switch that finds nobody there tries again only after a second.
        self.controller.wait_listening(len(self.bridges()))
        at_once(self._start_machine, machines)
        for name, daemons in self.parts.routers.items():
            outside.start(self.switches[name].host, self.run / name, daemons)
        progress("control plane")
        self.confirm()
        for node in self.nodes.values():
            nodes.greet(node, (n for n in self.nodes.values() if n is not node))
            self._joined(node.name)
        self.loop.start()
        self.kubelet.start()
        threading.Thread(target=self._watch_nodes, name="nodes", daemon=True).start()
        threading.Thread(target=logs.keep_short, args=(self.run,), name="logs", daemon=True).start()

    def add_node(self, node: NodeConfig) -> None:
        """A node joins the running lab. Raises InputError if there are no addresses for it."""
        with self._lock:
            planned = self._plan(node)
            machine = self.switches[planned.attachment.switch]
            name = self._wires.attach(planned)
            links.set_up(machine.pid, name, True)
            machine.switch.add_ports("br-fabric", [Port(name, planned.attachment.port)])
            nodes.prepare(planned.machine, self._bridges_of(planned), self._database)
            self.controller.wait_listening(len(self.bridges()))
            self._start_machine(planned.name)
            self.confirm()
            for other in self.nodes.values():
                if other is not planned:
                    nodes.greet(planned, [other])
                    nodes.greet(other, [planned])
            self._joined(planned.name)

    def numbers_for(self, names: Sequence[str]) -> list[int]:
        """What nodes that join are numbered. Raises InputError if there are not addresses for all of them."""
        taken = {node.index for node in self.nodes.values()}
        return fabric.free_numbers(self.config, names, taken, self._last_number)

    def remove_node(self, name: str) -> None:
        """A node leaves: its pods go with it, and others replace them elsewhere."""
        with self._lock:
            node = self.nodes.pop(name)
            self._up.pop(name, None)
            self.store.delete("Node", "", name)
            self._wires.note(node.attachment.switch, node.attachment.port, None)
            for sandbox in [s for s in self.kubelet.sandboxes.values() if s.node is node and s.attachment]:
                sandbox.host.end()
            for thing in [a for a in self.store.list("Attachment") if a["spec"]["node"] == name]:
                self.store.delete("Attachment", "", thing["metadata"]["name"])
            machine = self.switches[node.attachment.switch]
            machine.switch.delete_ports("br-fabric", [port_name(node.attachment.port)])
            node.machine.end()
            hosts.remove(self.mininet, node.machine.host)
            # Where it kept its pods' addresses; not while one of them is being attached.
            self.kubelet.ask(lambda: shutil.rmtree(self.run / name / "cni", ignore_errors=True))

    def restore(self, name: str) -> None:
        """After a machine's switch came back: its kernel's ports are new, so addresses and neighbours are set again.

        Raises NotReady if its flows are not confirmed.
        """
        node = self.nodes.get(name)
        if node is not None:
            self._configure_stack(node)
            self.store.update("Node", "", name, nodes.count_restored)
        else:
            self._configure_router(name)
        self.confirm()
        if node is not None:
            nodes.greet(node, (n for n in self.nodes.values() if n is not node))

    def bridges(self) -> list[tuple[str, str]]:
        """(machine, bridge) of every bridge there is."""
        return [(n, b) for n in self.nodes for b in ("br-int", "br-ex")] + [(n, "br-fabric") for n in self.switches]

    def wait_ready(self, timeout: float, progress: Progress = lambda _: None) -> None:
        """Until every pod that should run is ready and every switch has confirmed its flows.

        Raises NotReady, and InputError if no pod can be attached, for the CNI plugins refuse their configuration.
        """
        things, _, watch = self.store.watch()
        unready = UnreadyPods(things)
        try:
            waited, step = 0.0, 0.1
            while True:
                began = time.monotonic()
                if not (waiting := unready.sentences() or self.waiting_for()):
                    break
                # Looking must not become a large lab's main work.
                time.sleep(min(1.0, _SHARE * (time.monotonic() - began)))
                if self.kubelet.refusal is not None:
                    raise self.kubelet.refusal
                progress(f"pods ready: {waiting[0]}" + (f" and {len(waiting) - 1} more" if waiting[1:] else ""))
                events = watch.batch(timeout=step) or ()
                unready.follow(events)
                waited += 0 if events else step
                if waited > timeout:
                    raise NotReady(f"not ready after {timeout:.0f} s: {'; '.join(self.waiting_for()[:5])}")
        finally:
            watch.close()
        self.confirm()

    def confirm(self, timeout: float = 30.0) -> None:
        """Until every bridge holds the flows of the store as it is now. Raises NotReady."""
        revision = self.store.revision
        try:
            self._agent_synced(revision, timeout)
            if self.parts.confirms:
                self.controller.wait_synced(self.bridges(), revision, timeout)
        except ControllerGone as error:
            raise NotReady(str(error)) from error

    def _agent_synced(self, revision: int, timeout: float) -> None:
        """Wait for the agent, also through its death and new start. Raises ControllerGone."""
        deadline = time.monotonic() + patience(timeout)
        while True:
            try:
                return self.agent.wait_synced([(name, "agent") for name in self.nodes], revision, timeout)
            except ControllerGone:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_NODE_PERIOD)

    def _connected(self, names: set[str], revision: int) -> None:
        """For the kubelet. A controller or agent that is down delays readiness, as a CNI's that is down does."""
        for process, part in ((self.agent, "agent"), *([(self.controller, "br-int")] if self.parts.confirms else [])):
            while True:
                try:
                    process.wait_synced([(name, part) for name in names if name in self.nodes], revision, timeout=5)
                    break
                except ControllerGone as error:
                    LOG.warning("pods wait for the %s: %s", process.name, error)
                    time.sleep(0.2)

    def waiting_for(self) -> list[str]:
        """What is not yet as the store asks for it, a sentence each."""
        return waiting_for(self.store)

    def _lab_object(self) -> Object:
        config = self.config
        spec = {
            "pod_subnet": str(config.pod_subnet),
            "service_subnet": str(config.service_subnet),
            "cni": config.cni,
            "proxy_mode": self.parts.proxy_mode,
            "fabric_mtu": self._mtu,
            "attachment": "bridge" if self.parts.network.bridged else "switch",
            "enforces": list(self.parts.enforces),
            "identities": self.parts.identities,
            "carries_identities": self.parts.carries_identities,
            "datapath": self.parts.datapath,
            "load_balancer_pool": str(fabric.load_balancer_pool(config) or ""),
            "options": {"cni": dict(config.cni_options), "proxy": dict(config.proxy_options), "bgp": dict(config.bgp)},
        }
        return {"apiVersion": GROUP, "kind": "Lab", "metadata": {"name": config.name}, "spec": spec}

    def _plan(self, config: NodeConfig) -> Node:
        (number,) = self.numbers_for([config.name])
        self._last_number = number
        node = nodes.plan_node(self.config, self.parts.network, config, number, self.run, self.parts.datapath)
        self.nodes[node.name] = node
        hosts.add(self.mininet, node.machine.host)
        thing = nodes.node_object(node)
        thing["status"]["conditions"][0] |= {"status": "False", "reason": "KubeletNotReady"}
        if self.store.get("Node", "", node.name):  # applied by hand, with labels or taints of its own
            self.store.update("Node", "", node.name, lambda have: nodes.fill_object(have, thing))
        else:
            self.store.create(thing)
        self._wires.note(node.attachment.switch, node.attachment.port, node.name)
        return node

    def _wire_switch(self, name: str) -> dict[int, str]:
        """Make the links of a switch that it owns (fabric_links has it first) and those to its nodes. All its ports."""
        ports = {}
        for number, peer in self._wires.ports(name).items():
            ports[number] = port_name(number)
            if peer in self.nodes:
                self._wires.attach(self.nodes[peer])
            elif peer in self.outside:
                self._wire_client(peer, name, ports[number])
            elif (name, peer) in fabric_links(self.config):
                back = next(n for n, p in self._wires.ports(peer).items() if p == name)
                self._wires.connect(peer, port_name(back), name, ports[number])
        return ports

    def _plan_client(self) -> None:
        self.outside[fabric.CLIENT] = host = hosts.Host(fabric.CLIENT)
        hosts.add(self.mininet, host)
        self.store.create(fabric.client_object(self.config))
        place = fabric.attach_client(self.config.fabric)
        self._wires.note(place.switch, place.port, fabric.CLIENT)

    def _wire_client(self, name: str, switch: str, port: str) -> None:
        address = fabric.client_address(self.config)
        self._wires.connect(name, "eth0", switch, port, str(address), fabric.mac_of(address))
        outside.configure(self.outside[name], self.config, self._mtu, self.parts.datapath == "system")
        outside.start(self.outside[name], self.run / name, self.parts.outside)
        if self.config.dns:
            outside.start_resolver(self.outside[name], self.config)

    def _host(self, name: str) -> hosts.Host:
        if name in self.outside:
            return self.outside[name]
        machine = self.switches[name] if name in self.switches else self.nodes[name].machine
        return machine.host

    def _bridges_of(self, node: Node) -> tuple[Bridge, Bridge]:
        return nodes.node_bridges(node, self.parts.network, self.parts.tables)

    def _start_machine(self, name: str) -> None:
        """Start a switch; on a node give its own stack what it needs."""
        node = self.nodes.get(name)
        (node.machine if node else self.switches[name]).switch.start_switch()
        if node:
            self._configure_stack(node)
        else:
            self._configure_router(name)

    def _switch_bridge(self, name: str, ports: Mapping[int, str]) -> Bridge:
        bridge = nodes.switch_bridge(ports, self.parts.tables)
        return routers.rack_bridge(bridge, fabric.routers(self.config)[name]) if self.parts.routers else bridge

    def _configure_router(self, name: str) -> None:
        if self.parts.routers:
            routers.configure(self.switches[name], self.config, name, self._mtu)

    def _configure_stack(self, node: Node) -> None:
        nodes.configure_stack(node, self.config, self.parts.network, self._mtu)
        if self.parts.network.bridged:
            linuxbridge.show_to_iptables(node)
            if self.parts.network.plugins is None:
                linuxbridge.configure(node, self.parts.network.bridge, self.parts.network.mtu)

    def _joined(self, name: str) -> None:
        self._set_ready(name, True)
        self._up[name] = True

    def _set_ready(self, name: str, ready: bool) -> None:
        words = {"status": "True", "reason": "KubeletReady"} if ready else {"status": "False", "reason": "SwitchDown"}
        with suppress(NotFound):  # it may be leaving
            self.store.update("Node", "", name, lambda thing: thing["status"]["conditions"][0].update(words))

    def _watch_nodes(self) -> None:
        """A node whose switch died is not ready (its routes are withdrawn, nothing new runs there) until it is back.

        An agent that died is started again: what it made stands meanwhile, and it makes the rest anew.
        """
        while True:
            time.sleep(_NODE_PERIOD)
            if self.agent.process is not None and self.agent.process.poll() is not None:
                LOG.warning("the agent ended and is started again: %s", self.agent.last_words())
                self.agent.start()
            for name, was in list(self._up.items()):
                node = self.nodes.get(name)
                if node is not None and (lives := node.machine.switch.is_running()) != was:
                    self._set_ready(name, lives)
                    self._up[name] = lives
