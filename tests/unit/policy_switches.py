"""Three simulated nodes with a case's pods, told of every change as the controller is; packets between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from policy_world import OUTSIDE, address_of, policy
from views import CNIS, OVS, mac_of

from controllers.compile import pod_bridge
from controllers.flow.fields import ip_number, ip_text, mac_text
from controllers.flow.program import Program, listing
from controllers.policy.model import PROTOCOLS
from controllers.policy.read import KINDS
from controllers.simulate import Packet, Switch
from controllers.state import ClusterState
from scenarios.netpol.cases import Object, PodSpec, Probe, World, filled
from topo.cluster.store import key_of
from topo.cluster.wiring import GATEWAY_PORT, TUNNEL_PORT, UPLINK_PORT

NODES = {"node-1": "172.18.0.2", "node-2": "172.18.0.3", "node-3": "172.18.0.4"}
ENFORCES = [f"{kind}/{direction}" for kind in KINDS for direction in ("ingress", "egress")]
GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"


def random_world(
    spaces: list[dict[str, str]],
    pods: list[tuple[str, dict[str, str], int]],
    policies: list[tuple[str, dict[str, Any]]],
    admin: list[dict[str, Any]],
    baseline: list[dict[str, Any]],
    calico: list[dict[str, Any]] | None = None,
) -> World:
    """Namespaces x and y; pods whose port "web" is the number given."""
    made = {
        f"{space}/p{i}": PodSpec(labels, (("web", "TCP", web), ("dns", "UDP", 80)))
        for i, (space, labels, web) in enumerate(pods)
    }
    objects = [policy(name=f"p{i}", namespace=space, **spec) for i, (space, spec) in enumerate(policies)]
    objects += [policy("AdminNetworkPolicy", f"a{i}", **spec) for i, spec in enumerate(admin)]
    objects += [policy("BaselineAdminNetworkPolicy", "default", **spec) for spec in baseline]
    objects += calico or []
    world = World(dict(zip(("x", "y"), spaces, strict=True)), made)
    world.policies = {"/".join(key_of(o)): o for o in objects}
    return world


def probes(world: World) -> Iterator[Probe]:
    """Every pair with some ports, and the world outside."""
    ends = [*world.pods, "external"]
    for source, target in itertools.product(ends, ends):
        if source != target:
            for protocol, port in itertools.product(("TCP", "UDP", "SCTP"), (80, 81)):
                yield Probe(source, target, protocol, port)
            yield Probe(source, target, "ICMP", 0)


class Nodes:
    """The nodes' switches; `hold` makes them what a world wants."""

    def __init__(self, cni: str = "calico") -> None:
        self.cni = CNIS[cni]
        self.state = ClusterState()
        self.switches: dict[str, Switch] = {}
        self.programs: dict[str, Program] = {}
        self.addresses: dict[str, str] = {}
        self.home: dict[str, str] = {}
        self._told: dict[tuple[str, str, str], Object] = {}
        self._port = itertools.count(40000)

    def hold(self, world: World) -> None:
        """Tell the state what changed, and load what it then compiles."""
        self.addresses = address_of(world)
        self.home = {key: _home(address) for key, address in self.addresses.items()}
        wanted = {key_of(o): o for o in self._objects(world)}
        for key in [k for k in self._told if k not in wanted]:
            gone = self._told.pop(key)
            self.state.apply(gone["kind"], "DELETED", gone)
        for key, thing in wanted.items():
            if self._told.get(key) != thing:
                self.state.apply(thing["kind"], "MODIFIED" if key in self._told else "ADDED", thing)
                self._told[key] = thing
        for name in NODES:
            view = self.state.node_view(name)
            assert view is not None
            program = self.programs[name] = pod_bridge(view, self.cni, OVS)
            if name in self.switches:
                self.switches[name].load(program)
            else:
                self.switches[name] = Switch(program)

    def listings(self) -> dict[str, str]:
        """What each switch holds."""
        return {name: listing(program) for name, program in self.programs.items()}

    def _objects(self, world: World) -> Iterator[Object]:
        spec = {"pod_subnet": "10.244.0.0/16", "service_subnet": "10.96.0.0/16", "cni": self.cni.name}
        spec |= {"proxy_mode": "ovs", "fabric_mtu": 1500, "enforces": ENFORCES}
        carries = {"identities": self.cni.identities, "carries_identities": self.cni.carries_identities({})}
        yield _thing("Lab", "lab", spec | carries)
        for i, (name, ip) in enumerate(NODES.items()):
            notes = {"mininetes.dev/mac": mac_text(mac_of(ip)), "mininetes.dev/gateway-mac": GATEWAY_MAC}
            node = _thing("Node", name, {"podCIDR": f"10.244.{1 + i}.0/24"}, annotations=notes)
            yield node | {"status": {"addresses": [{"type": "InternalIP", "address": ip}]}}
        for name, labels in world.namespaces.items():
            yield _thing("Namespace", name, {}, labels=labels)
        for i, (key, pod) in enumerate(sorted(world.pods.items())):
            yield self._pod(key, pod, 10 + i)
        for one in world.policies.values():
            yield filled(one, self.addresses)

    def _pod(self, key: str, pod: PodSpec, port: int) -> Object:
        namespace, name = key.split("/")
        address = self.addresses[key]
        notes = {"mininetes.dev/mac": mac_text(mac_of(address)), "mininetes.dev/ofport": str(port)}
        ports = [{"name": n, "protocol": p, "containerPort": number} for n, p, number in pod.ports if n]
        spec = {"nodeName": self.home[key], "containers": [{"name": "c", "ports": ports}]}
        thing = _thing("Pod", name, spec, namespace=namespace, labels=dict(pod.labels), annotations=notes)
        return thing | {"status": {"podIP": address, "phase": "Running"}}

    def reaches(self, probe: Probe) -> bool:
        """Whether a first packet arrives, and its answer too."""
        request = {"dl_type": 0x800, "nw_ttl": 64, "nw_proto": PROTOCOLS[probe.protocol]}
        request |= {"nw_src": self._address(probe.source), "nw_dst": self._address(probe.target)}
        number = next(self._port)
        if probe.protocol == "ICMP":
            request |= {"icmp_type": 8, "icmp_code": 0, "icmp_id": number}
        else:
            request |= {"tp_src": number, "tp_dst": probe.port}
        if probe.protocol == "TCP":
            request["tcp_flags"] = 2
        return self.sends(probe.source, probe.target, request) and self.sends(
            probe.target, probe.source, _answer(request)
        )

    def sends(self, source: str, target: str, packet: Packet) -> bool:
        """Whether this packet arrives at the other end."""
        here, there = self.home.get(source), self.home.get(target)
        if here is not None:
            mac = mac_of(ip_text(packet["nw_src"]))
            left, sent = self._pass(here, packet, self._port_of(source), mac)
            if here == there:
                return left == self._port_of(target)
            if left not in (UPLINK_PORT, GATEWAY_PORT, TUNNEL_PORT):
                assert left is None
                return False
            if left == TUNNEL_PORT and there is not None:
                packet = {**packet, "tun_id": sent["tun_id"]}
                return self._pass(there, packet, TUNNEL_PORT, 1)[0] == self._port_of(target)
        if there is None:
            return True
        return self._pass(there, packet, UPLINK_PORT, 1)[0] == self._port_of(target)

    def _pass(self, node: str, packet: Packet, port: int, mac: int) -> tuple[int | None, Packet]:
        gateway = 0xEEEEEEEEEEEE
        trace = self.switches[node].run({**packet, "in_port": port, "dl_src": mac, "dl_dst": gateway})
        assert len(trace.outputs) <= 1
        return trace.outputs[0] if trace.outputs else (None, {})

    def _port_of(self, key: str) -> int:
        return 10 + sorted(self.home).index(key)

    def _address(self, name: str) -> int:
        if name == "external":
            return OUTSIDE
        return ip_number(name.removeprefix("ip:") if name.startswith("ip:") else self.addresses[name])


def _home(address: str) -> str:
    """The node whose pod CIDR holds the address; addresses of other networks are all on the first."""
    number = address.removeprefix("10.244.").partition(".")[0]
    return f"node-{number}" if address.startswith("10.244.") else "node-1"


def _answer(request: Mapping[str, int]) -> dict[str, int]:
    answer = {**request, "nw_src": request["nw_dst"], "nw_dst": request["nw_src"]}
    if "icmp_type" in request:
        return answer | {"icmp_type": 0}
    answer |= {"tp_src": request["tp_dst"], "tp_dst": request["tp_src"]}
    return answer | ({"tcp_flags": 0x12} if "tcp_flags" in request else {})


def _thing(kind: str, name: str, spec: Mapping[str, Any], **meta: Any) -> Object:
    return {"kind": kind, "metadata": {"name": name, **meta}, "spec": dict(spec)}
