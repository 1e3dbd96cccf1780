"""Hard policy cases made at random, in the format of `mininetes policy check`; what must hold is the evaluator's word.

Names of ports that differ from pod to pod, overlapping ranges and expressions, exceptions, host-network pods, hosts
outside, and changes of labels, pods, namespaces and policies. `python policy_generator.py SEED COUNT [ovs|calico]`
prints a file of them.
"""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from typing import Any

from controllers.flow.fields import ip_number
from controllers.policy import read, read_calico
from controllers.policy.evaluate import Cluster, End, judge
from controllers.policy.model import NamedPort, Pod
from scenarios.netpol.cases import HOST, PodSpec, World, parse
from topo import fabric, labfile

Object = dict[str, Any]
NODES = 4
OUTSIDE = ("198.51.100.20", "203.0.113.77")
SPACES = ("x", "y", "z")
KEYS, VALUES = ("app", "tier", "env"), ("a", "b", "ab")
OPEN = [("TCP", 80), ("TCP", 81), ("TCP", 8080), ("UDP", 53), ("UDP", 80), ("SCTP", 80)]
_CONFIG = labfile.default_config(NODES)
_NAMES = [node.name for node in _CONFIG.nodes]
_NODE_IPS = [str(fabric.node_address(_CONFIG, i)) for i in range(NODES)]


class Maker:
    """Makes one case."""

    def __init__(self, seed: str, kinds: str) -> None:
        self.random = random.Random(seed)
        self.calico = kinds == "calico"
        self.taken: set[str] = set()
        self.pods: dict[str, Object] = {}

    def case(self, name: str) -> Object:
        """A cluster and some steps, each with what must hold after it."""
        spaces = {space: self.labels() for space in SPACES}
        for space in SPACES:
            for pod in "abc":
                self.pods[f"{space}/{pod}"] = self.pod()
        for node in self.random.sample(range(NODES), 2):
            self.pods[f"x/host{node}"] = self.pod(_NODE_IPS[node])
        cluster = {"namespaces": spaces, "pods": dict(self.pods)}
        steps = [self.step(i) for i in range(self.random.randint(2, 4))]
        case = {"name": name, "cluster": cluster, "steps": steps, "depends_on_pod_ips": True}
        return self.expecting(case)

    def labels(self) -> dict[str, str]:
        return {key: self.random.choice(VALUES) for key in KEYS if self.random.random() < 0.7}

    def pod(self, host: str = "") -> Object:
        """Everybody listens everywhere; what the ports are called differs."""
        names = {("TCP", 80): "web", ("TCP", 81): "alt", ("UDP", 53): "dns"}
        if self.random.random() < 0.5:
            names = {("TCP", 8080): "web", ("TCP", 80): "alt", ("UDP", 80): "dns", ("TCP", 81): "dns-tcp"}
        if self.random.random() < 0.2:
            names = {}
        ports = [{"name": names.get((p, n)), "protocol": p, "port": n} for p, n in OPEN]
        if host:
            # On the node's own network; ports there are everybody's, and one is enough to ask for.
            return {"labels": self.labels(), "ip": host, "hostNetwork": True, "ports": ports[:2]}
        return {"labels": self.labels(), "ip": self.address(), "ports": ports}

    def address(self) -> str:
        """Few networks, so that blocks and their exceptions cut through them."""
        while True:
            network = fabric.pod_cidr(_CONFIG, self.random.randrange(NODES))
            address = str(network[self.random.choice((16, 17, 31, 32, 33, 63, 64, 100, 127, 128, 200))])
            if address not in self.taken:
                self.taken.add(address)
                return address

    def step(self, number: int) -> Object:
        step: Object = {}
        if number:
            living = [key for key, pod in self.pods.items() if not pod.get("hostNetwork")]
            what = self.random.choice(("label_pod", "label_ns", "delete", "pod", "namespace", "apply"))
            if what == "label_pod":
                step["label_pod"] = {key: self.labels() for key in self.random.sample(sorted(self.pods), 3)}
            elif what == "label_ns":
                step["label_ns"] = {self.random.choice(SPACES): self.labels()}
            elif what == "delete":
                step["delete"] = ["x/p0", "/g0", "/admin0"]
            elif what == "pod":
                gone = self.random.choice(living)
                step["delete_pod"] = [gone]
                del self.pods[gone]
                made = f"{self.random.choice(SPACES)}/n{number}"
                self.pods[made] = self.pod()
                step["create_pod"] = {made: self.pods[made]}
            elif what == "namespace":
                space = f"new{number}"
                step["create_ns"] = {space: self.labels()}
                self.pods[f"{space}/a"] = self.pod()
                step["create_pod"] = {f"{space}/a": self.pods[f"{space}/a"]}
        if not number or "apply" in (self.random.choice(("apply", "")), *step):
            step["apply"] = self.policies(number)
        return step

    def policies(self, number: int) -> list[Object]:
        made = [self.kubernetes(f"p{i}") for i in range(self.random.randint(0, 3))]
        if self.random.random() < 0.5:
            made += [self.admin(f"admin{i}") for i in range(self.random.randint(0, 2))]
            made += [self.baseline()] if self.random.random() < 0.5 else []
        if self.calico:
            made += [self.of_calico(f"c{i}", False) for i in range(self.random.randint(0, 2))]
            made += [self.of_calico(f"g{i}", True) for i in range(self.random.randint(0, 2))]
            made += [self.network_set()] if self.random.random() < 0.4 else []
        return made

    def maybe(self, chance: float, value: Any) -> Any:
        return value() if self.random.random() < chance else None

    def some(self, make: Any, most: int, least: int = 0) -> list[Any]:
        return [make() for _ in range(self.random.randint(least, most))]

    # Kubernetes' own.

    def selector(self) -> Object:
        found: Object = {}
        if self.random.random() < 0.5:
            found["matchLabels"] = {self.random.choice(KEYS): self.random.choice(VALUES)}
        if self.random.random() < 0.5:
            found["matchExpressions"] = self.some(self.expression, 2, 1)
        return found

    def expression(self) -> Object:
        operator = self.random.choice(("In", "NotIn", "Exists", "DoesNotExist"))
        values = self.random.sample(VALUES, self.random.randint(1, 2)) if operator in ("In", "NotIn") else None
        return {"key": self.random.choice(KEYS), "operator": operator, **({"values": values} if values else {})}

    def block(self) -> Object:
        cidr = self.random.choice(
            ("0.0.0.0/0", "10.244.0.0/16", "10.244.1.0/24", "10.244.2.0/25", "198.51.100.0/24", "172.18.0.0/16")
        )
        holes = {
            "0.0.0.0/0": ["10.244.1.0/24", "10.244.2.32/27", "198.51.100.20/32", "128.0.0.0/1"],
            "10.244.0.0/16": ["10.244.0.0/17", "10.244.1.16/28", "10.244.3.0/26"],
            "10.244.1.0/24": ["10.244.1.32/27", "10.244.1.33/32", "10.244.1.128/25"],
            "10.244.2.0/25": ["10.244.2.64/26"],
            "198.51.100.0/24": ["198.51.100.16/28"],
            "172.18.0.0/16": [f"{_NODE_IPS[1]}/32"],
        }[cidr]
        without = self.random.sample(holes, self.random.randint(0, len(holes)))
        return {"cidr": cidr, **({"except": without} if without else {})}

    def peer(self) -> Object:
        kind = self.random.randrange(4)
        if kind == 0:
            return {"ipBlock": self.block()}
        return {
            **({"podSelector": self.selector()} if kind != 1 else {}),
            **({"namespaceSelector": self.selector()} if kind != 2 else {}),
        }

    def port(self) -> Object:
        protocol = self.random.choice(("TCP", "TCP", "UDP", "SCTP"))
        kind = self.random.randrange(4)
        if kind == 0:
            first = self.random.choice((1, 53, 79, 80, 81, 1024, 8000))
            return {"protocol": protocol, "port": first, "endPort": first + self.random.choice((0, 1, 2, 100, 7000))}
        if kind == 1:
            return {"protocol": protocol, "port": self.random.choice(("web", "alt", "dns", "dns-tcp", "none"))}
        return {"protocol": protocol, **({"port": self.random.choice((80, 81, 53, 8080))} if kind == 2 else {})}

    def rule(self, side: str) -> Object:
        peers, ports = self.some(self.peer, 2), self.some(self.port, 2)
        return {**({side: peers} if peers else {}), **({"ports": ports} if ports else {})}

    def kubernetes(self, name: str) -> Object:
        spec: Object = {"podSelector": self.selector()}
        if self.random.random() < 0.7:
            spec["policyTypes"] = self.random.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        for direction, side in (("ingress", "from"), ("egress", "to")):
            if self.random.random() < 0.6:
                spec[direction] = self.some(lambda side=side: self.rule(side), 2)
        space = "x" if name == "p0" else self.random.choice(SPACES)
        meta = {"name": name, "namespace": space}
        return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta, "spec": spec}

    def whom(self) -> Object:
        if self.random.random() < 0.5:
            return {"namespaces": self.selector()}
        return {"pods": {"namespaceSelector": self.selector(), "podSelector": self.selector()}}

    def admin_rules(self, side: str, actions: tuple[str, ...]) -> list[Object]:
        def port() -> Object:
            protocol, kind = self.random.choice(("TCP", "UDP", "SCTP")), self.random.randrange(3)
            if kind == 0:
                return {"portNumber": {"protocol": protocol, "port": self.random.choice((80, 81, 53))}}
            if kind == 1:
                return {"portRange": {"protocol": protocol, "start": 53, "end": self.random.choice((79, 80, 8079))}}
            return {"namedPort": self.random.choice(("web", "dns", "alt"))}

        def peer() -> Object:
            if side == "to" and self.random.random() < 0.4:
                return {"networks": [self.block()["cidr"]]}
            return self.whom()

        return self.some(
            lambda: {
                "action": self.random.choice(actions),
                side: self.some(peer, 2, 1),
                **({"ports": ports} if (ports := self.some(port, 2)) else {}),
            },
            2,
        )

    def admin(self, name: str) -> Object:
        actions = ("Allow", "Deny", "Pass")
        spec = {"priority": self.random.randint(1, 3), "subject": self.whom()}
        return _cluster_wide("AdminNetworkPolicy", name, spec | self.both(actions))

    def baseline(self) -> Object:
        return _cluster_wide(
            "BaselineAdminNetworkPolicy", "default", {"subject": self.whom()} | self.both(("Allow", "Deny"))
        )

    def both(self, actions: tuple[str, ...]) -> Object:
        return {"ingress": self.admin_rules("from", actions), "egress": self.admin_rules("to", actions)}

    # Calico's.

    def words(self, depth: int = 0) -> str:
        kind = self.random.randrange(8 if depth < 2 else 5)
        key, value = self.random.choice(KEYS), self.random.choice(VALUES)
        if kind == 0:
            return self.random.choice(("all()", f"has({key})", f"!has({key})"))
        if kind == 1:
            return f"{key} {self.random.choice(('in', 'not in'))} {{'{value}', '{self.random.choice(VALUES)}'}}"
        if kind <= 4:
            operator = self.random.choice(("==", "!=", "contains", "starts with", "ends with"))
            return f"{key} {operator} '{value}'"
        if kind == 5:
            return f"!({self.words(depth + 1)})"
        return f"({self.words(depth + 1)} {self.random.choice(('&&', '||'))} {self.words(depth + 1)})"

    def entity(self, ports: Any, not_ports: Any) -> Object:
        networks = ("10.244.1.0/24", "10.244.2.0/25", "0.0.0.0/0", "198.51.100.0/24", "10.244.3.32/27", "172.18.0.3")
        parts = {
            "nets": lambda: self.random.sample(networks, 2),
            "notNets": lambda: self.random.sample(networks, 1),
            "selector": self.words,
            "notSelector": self.words,
            "namespaceSelector": lambda: self.random.choice(
                (self.words(), "all()", "projectcalico.org/name in {'x', 'z'}", "global()")
            ),
            **({"ports": ports, "notPorts": not_ports} if ports else {}),
        }
        return {name: parts[name]() for name in self.random.sample(sorted(parts), self.random.randint(0, 2))}

    def calico_rule(self) -> Object:
        rule: Object = {"action": self.random.choice(("Allow", "Allow", "Deny", "Pass", "Log"))}
        kind = self.random.randrange(5)
        targets: Any = None
        sources: Any = None
        others: Any = None
        if kind <= 1:
            rule["protocol"] = self.random.choice(("TCP", "TCP", "UDP", "SCTP", 6))

            def targets() -> list[Any]:
                return self.random.sample((80, 81, "53:80", "81:9000", "web", "dns", "alt"), 2)

            def others() -> list[Any]:
                return self.random.sample((80, 81, "53:80", "81:9000"), 1)

            def sources() -> list[Any]:
                return self.random.sample(("1:1023", "1024:65535", 1, "1:65535"), 1)

        elif kind == 2:
            rule["notProtocol"] = self.random.choice(("TCP", "UDP", "ICMP"))
        elif kind == 3:
            rule["protocol"] = "ICMP"
            what = self.random.choice(({"type": 8}, {"type": 8, "code": 0}, {"type": 8, "code": 3}, {"type": 13}))
            rule[self.random.choice(("icmp", "notICMP"))] = what
        for name, ports, not_ports in (("source", sources, sources), ("destination", targets, others)):
            entity = self.entity(ports, not_ports)
            if entity:
                rule[name] = entity
        return rule

    def of_calico(self, name: str, is_global: bool) -> Object:
        spec: Object = {"selector": self.words()}
        if self.random.random() < 0.6:
            spec["order"] = self.random.choice((1, 2, 999.5, 1000, 2000))
        if self.random.random() < 0.4:
            spec["types"] = self.random.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        for direction in ("ingress", "egress"):
            if self.random.random() < 0.6:
                spec[direction] = self.some(self.calico_rule, 4)
        version = "projectcalico.org/v3"
        if is_global:
            if self.random.random() < 0.5:
                spec["namespaceSelector"] = self.words()
            return {"apiVersion": version, "kind": "GlobalNetworkPolicy", "metadata": {"name": name}, "spec": spec}
        meta = {"name": name, "namespace": self.random.choice(SPACES)}
        return {"apiVersion": version, "kind": "NetworkPolicy", "metadata": meta, "spec": spec}

    def network_set(self) -> Object:
        meta: Object = {"name": "s", "labels": self.labels()}
        kind = self.random.choice(("GlobalNetworkSet", "NetworkSet"))
        if kind == "NetworkSet":
            meta["namespace"] = self.random.choice(SPACES)
        nets = self.random.sample(("198.51.100.0/25", "203.0.113.64/26", "10.244.1.32/27", "172.18.0.0/30"), 2)
        return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": meta, "spec": {"nets": nets}}

    # What must hold.

    def expecting(self, case: Object) -> Object:
        """Fill in each step's probes."""
        (read_in,) = parse(json.dumps({"cases": [{**case, "steps": []}]}), "made")
        world = World.of(read_in.cluster)
        for step in case["steps"]:
            world.change(step)
            known = as_cluster(world)
            step["probes"] = [self.probe(world, known, *pair) for pair in self.pairs(world)]
        return case

    def pairs(self, world: World) -> list[tuple[str, str, str, int]]:
        """Every pair of pods once, by one of their ports or an echo, and hosts outside."""
        pods, hosts = list(world.pods), [f"{HOST}{address}" for address in OUTSIDE]
        found = []
        for source in (*pods, *hosts):
            for target in (*pods, *hosts):
                if source == target or (source in hosts and (target in hosts or world.pods[target].host_network)):
                    continue
                ports = [(p, n) for _, p, n in world.pods[target].ports] if target in pods else OPEN[:4]
                if source in hosts:
                    ports = [(protocol, number) for protocol, number in ports if protocol != "SCTP"]
                if source not in hosts and target not in hosts:
                    ports = [*ports, ("ICMP", 0)]
                found.append((source, target, *self.random.choice(ports)))
        return found

    def probe(self, world: World, known: Cluster, source: str, target: str, protocol: str, port: int) -> Object:
        one, two = (self.end(known, name) for name in (source, target))
        if one.node and two.pod is not None:  # what a node asks pods by: its address among its own
            one = replace(one, ip=int(fabric.pod_cidr(_CONFIG, _NAMES.index(one.node))[1]))
        allowed = judge(known, one, two, protocol, port).allowed
        said = "allow" if allowed else "deny"
        return {"from": source, "to": target, "protocol": protocol, "port": port, "expect": said}

    def end(self, known: Cluster, name: str) -> End:
        if name.startswith(HOST):
            return End(ip_number(name.removeprefix(HOST)))
        pod = known.pods[name]
        return End(pod.ip, None if pod.host_network else pod, pod.node if pod.host_network else "")


def _cluster_wide(kind: str, name: str, spec: Object) -> Object:
    version = "policy.networking.k8s.io/v1alpha1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}


def as_cluster(world: World) -> Cluster:
    """As the evaluator takes it."""
    objects = list(world.policies.values())
    policies = [p for o in objects if o["kind"] not in read_calico.SETS and (p := read.policy(o)) is not None]
    sets = [read_calico.network_set(o) for o in objects if o["kind"] in read_calico.SETS]
    spaces = {n: read.namespace_labels(n, {"metadata": {"labels": labels}}) for n, labels in world.namespaces.items()}
    pods = {key: as_pod(key, spec) for key, spec in world.pods.items()} | {one.key: one for one in sets}
    return Cluster(spaces, pods, policies, {ip_number(ip): _NAMES[i] for i, ip in enumerate(_NODE_IPS)})


def as_pod(key: str, spec: PodSpec) -> Pod:
    ports = tuple(NamedPort(name, protocol, number) for name, protocol, number in spec.ports if name)
    return Pod(key, dict(spec.labels), ip_number(spec.ip), home(spec.ip), ports, spec.host_network)


def home(address: str) -> str:
    """The node that has the address, or among whose pods it is."""
    if address in _NODE_IPS:
        return _NAMES[_NODE_IPS.index(address)]
    return next(
        name for i, name in enumerate(_NAMES) if ip_number(address) >> 8 == int(fabric.pod_cidr(_CONFIG, i)[0]) >> 8
    )


def made(seed: int, count: int, kinds: str = "calico") -> Object:
    """A file of cases."""
    return {"cases": [Maker(f"{seed}/{i}", kinds).case(f"seed {seed}/{i}") for i in range(count)]}


if __name__ == "__main__":
    print(json.dumps(made(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]), indent=1))
