"""The lab that every case asks: four nodes in three zones, and how cases write, change and ask Services."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import mininetes

from scenarios.lab.socket import ask
from topo import manifests
from topo.cluster.patience import patience

Object = dict[str, Any]
Target = tuple[str, str, int]  # protocol, address, port

PROBER = Path(__file__).with_name("prober.py")
API = "/run/mininetes/api.sock"
NODES = ("control-plane", "worker", "worker2", "worker3")
ZONES = ("a", "a", "b", "c")
NODE_IPS = ("172.18.0.2", "172.18.0.3", "172.18.0.4", "172.18.0.5")
# By which of its own addresses a node's clients, and those it hides, are seen by pods.
AMONG_PODS = tuple((f"10.244.{i}.0", f"10.244.{i}.1") for i in range(len(NODES)))
PODS = ("c0", "c1", "c2", "c3")  # clients, one a node
ECHO = {"echo-0", "echo-1", "echo-2", "echo-3"}  # servers, one a node
FLOWS = ("ovs", "iptables", "ipvs")  # modes that leave the node's own kernel alone
REFUSED = {"refused"}
NO_ANSWER = {"refused", "timeout"}
# What chi-square exceeds once in a thousand times by chance, by degrees of freedom.
CHI_SQUARE = {1: 10.83, 2: 13.82, 3: 16.27}


def states(*ids: str) -> Callable[[Any], Any]:
    """Says which statements of the e2e suite a case is about (tests/data/services/e2e-statements.yaml)."""
    return pytest.mark.statement(*ids)


def pod(name: str, node: int | None = None, app: str = "", **more: Any) -> Object:
    """A pod that answers on 8080/TCP (http) and 8081/UDP (dns), on one of the nodes."""
    ports = more.pop("ports", [{"containerPort": 8080, "name": "http"}, _udp(8081, "dns")])
    container = {"name": "c", "image": "x", "ports": ports, **more.pop("container", {})}
    spec: Object = {"containers": [container], **more.pop("spec", {})}
    if node is not None:
        spec["nodeName"] = NODES[node]
    meta = {"name": name, "labels": {"app": app or name}, **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def _udp(number: int, name: str) -> Object:
    return {"containerPort": number, "name": name, "protocol": "UDP"}


HTTP: Object = {"name": "http", "port": 80, "targetPort": "http"}
DNS: Object = {"name": "dns", "port": 80, "targetPort": "dns", "protocol": "UDP"}


def service(name: str, last: int, app: str | None = None, ports: Sequence[Object] = (HTTP,), **spec: Any) -> Object:
    """A Service with cluster IP 10.96.1.`last`. app: whose label it selects; None: its own name's."""
    meta = {"name": name, **spec.pop("meta", {})}
    chosen = {} if app == "" else {"selector": {"app": app or name}}
    # An ExternalName has no cluster IP.
    address = {} if spec.get("type") == "ExternalName" else {"clusterIP": ip(last)}
    body = {**address, "ports": [dict(p) for p in ports], **chosen, **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": body}


def ip(last: int) -> str:
    """A cluster IP of the cases."""
    return f"10.96.1.{last}"


def node_port(port: Object, number: int) -> Object:
    """The same port with this node port."""
    return {**port, "nodePort": number}


def endpoints(of: str, *found: Object, ports: Sequence[Object] = ()) -> Object:
    """A hand-made slice of a Service without a selector."""
    numbers = list(ports) or [{"name": "http", "port": 8080}, {"name": "dns", "port": 8081, "protocol": "UDP"}]
    meta = {"name": f"{of}-made", "labels": {"kubernetes.io/service-name": of}}
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4"}
    return {**head, "ports": numbers, "endpoints": list(found)}


@dataclass
class World:
    """A running lab of one proxy mode. ips: of the pods that are always there."""

    name: str
    mode: str
    scheduler: str
    ips: dict[str, str] = field(default_factory=dict)
    _probers: dict[str, Prober] = field(default_factory=dict)

    @property
    def in_turn(self) -> bool:
        """Whether connections go to endpoints in turn; else by chance, or by a hash of each."""
        return self.mode == "userspace" or (self.mode in ("ipvs", "kernel-ipvs") and self.scheduler == "rr")

    def seen(self, client: str, node: int) -> set[str]:
        """As whom a server may see a client that asked at this node: in mode userspace as the node's own proxy."""
        return set(AMONG_PODS[node]) if self.mode == "userspace" else {client}

    def at(self, machine: str) -> Prober:
        """Who asks from this pod or machine."""
        if machine not in self._probers:
            self._probers[machine] = Prober(self.name, machine)
        return self._probers[machine]

    def forget(self, machine: str) -> None:
        """Stop asking from there: the pod goes, or comes anew."""
        prober = self._probers.pop(machine, None)
        if prober is not None:
            prober.close()

    def close(self) -> None:
        """Stop asking."""
        for machine in list(self._probers):
            self.forget(machine)

    def apply(self, *things: Object, wait: bool = True) -> None:
        """Store objects; wait until pods are ready and switches hold what follows."""
        loaded = manifests.load_text(yaml.safe_dump_all(things), "case").objects
        ask(self.name, {"verb": "apply", "objects": list(loaded), "wait": patience(30) if wait else None})

    def delete(self, *keys: str) -> None:
        """Remove objects: Kind/name."""
        split = [key.split("/") for key in keys]
        ask(self.name, {"verb": "delete", "keys": [[kind, "default", name] for kind, name in split]})
        for kind, name in split:
            if kind == "Pod":
                self.forget(name)
                self.eventually(lambda name=name: self.get("Pod", name) is None)  # type: ignore[misc]

    def get(self, kind: str, name: str) -> Object | None:
        """An object of namespace default as it is now."""
        found = ask(self.name, {"verb": "get", "kind": kind})
        return next((o for o in found if o["metadata"]["name"] == name), None)

    def endpoints(self, name: str) -> dict[str, list[int]]:
        """Pod -> port numbers of a Service's ready endpoints."""
        out: dict[str, list[int]] = {}
        for part in ask(self.name, {"verb": "get", "kind": "EndpointSlice"}):
            if part["metadata"]["labels"]["kubernetes.io/service-name"] == name:
                for one in part["endpoints"]:
                    if one["conditions"]["ready"]:
                        out.setdefault(one["targetRef"]["name"], []).extend(p["port"] for p in part["ports"])
        return {who: sorted(numbers) for who, numbers in out.items() if numbers}

    def endpoint(self, name: str, **more: Any) -> Object:
        """A pod as a hand-made slice has it. ready, serving, terminating: conditions; zones: hints."""
        number = int(name[-1])
        conditions = {k: more[k] for k in ("ready", "serving", "terminating") if k in more}
        hints = {"forZones": [{"name": z} for z in more["zones"]]} if "zones" in more else {}
        out = {"addresses": [self.ips[name]], "nodeName": NODES[number], "conditions": conditions}
        return out | ({"hints": hints} if hints else {})

    def eventually(self, holds: Callable[[], bool], seconds: float = 10) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + patience(seconds)
        while not holds():
            assert time.monotonic() < deadline, f"did not hold within {seconds} s"
            time.sleep(0.02)

    def ask(self, verb: str, **values: Any) -> Any:
        """Any other request to the lab."""
        return ask(self.name, {"verb": verb, **values})

    def run(self, machine: str, *command: str) -> str:
        """A program's output on a machine or in a pod."""
        done = mininetes("exec", "--lab", self.name, machine, "--", *command)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Prober:
    """The prober at work in one pod, node or on the client outside (tests/lab/services/prober.py)."""

    def __init__(self, lab: str, machine: str) -> None:
        ours, theirs = os.pipe(), os.pipe()
        self._in, self._out = os.fdopen(ours[1], "w"), os.fdopen(theirs[0])
        self.machine = machine
        request = {"verb": "exec", "target": machine, "command": [sys.executable, "-IS", "-u", str(PROBER)]}

        def run() -> None:
            try:
                ask(lab, request, fds=(ours[0], theirs[1], 2))
            finally:
                os.close(ours[0])
                os.close(theirs[1])

        threading.Thread(target=run, daemon=True).start()

    def close(self) -> None:
        """Let it end."""
        self._in.close()

    def begin(self, what: str, /, **arguments: Any) -> None:
        """Ask it to do something; `end` gives the answer."""
        self._in.write(json.dumps({"do": what, **arguments}) + "\n")
        self._in.flush()

    def end(self) -> Any:
        """The answer to what was begun first."""
        line = self._out.readline()
        assert line, f"the prober in {self.machine} ended"
        answer = json.loads(line)
        assert "answer" in answer, answer
        return answer["answer"]

    def do(self, what: str, /, **arguments: Any) -> Any:
        """Both."""
        self.begin(what, **arguments)
        return self.end()

    def ask(self, *targets: Target, **how: Any) -> list[Object]:
        """Answers in the order of the targets, each `n` times."""
        return list(self.do("ask", targets=targets, **how))

    def who(self, *targets: Target, **how: Any) -> list[str]:
        """Who answered: pods' names, or errors' words."""
        return [who(answer) for answer in self.ask(*targets, **how)]

    def count(self, *targets: Target, **how: Any) -> Counter[str]:
        """How often each answered."""
        return Counter(self.who(*targets, **how))

    def until(self, target: Target, wanted: Iterable[str] | str, seconds: float = 10, **how: Any) -> Object:
        """Ask until one of these answers, and hold the test to that."""
        names = [wanted] if isinstance(wanted, str) else sorted(wanted)
        last = self.do("until", target=target, wanted=names, seconds=patience(seconds), **how)
        assert who(last) in names, f"{self.machine} -> {target}: {last}, not {names}"
        return dict(last)


def who(answer: Object) -> str:
    """The pod, or the error."""
    return str(answer.get("pod", answer.get("error")))


def chi_square(seen: Mapping[str, int], expected: dict[str, float]) -> bool:
    """Whether the counts may be of these shares (sum 1), at significance 0.001."""
    total = sum(seen.values())
    if set(seen) - set(expected):
        return False
    value = sum((seen.get(k, 0) - share * total) ** 2 / (share * total) for k, share in expected.items())
    return value < CHI_SQUARE[len(expected) - 1]
