"""What a running lab can be asked to do, one function a verb; each returns plain data for people and programs."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from scenarios.lab import capturing, cni, flows, measuring, policies, routes
from scenarios.lab.attached import attached
from scenarios.netpol.prober_client import Prober
from topo import admission
from topo.cluster.errors import InputError
from topo.cluster.store import CLUSTER_SCOPED, Key, Object, key_of, kind_of
from topo.cluster.wiring import RELAYS
from topo.config import NodeConfig
from topo.control.endpoints import is_node_ready
from topo.control.events import record
from topo.control.workloads import is_ending, is_ready
from topo.lab import Lab
from topo.pods import Sandbox

# Seconds between two looks whether what was deleted is gone.
_GONE_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Request:
    """A verb's arguments; fds came with it, connection tells when the caller goes away."""

    lab: Lab
    values: Mapping[str, Any]
    fds: Sequence[int]
    connection: socket.socket


def apply_objects(lab: Lab, objects: Sequence[Object]) -> list[dict[str, Any]]:
    """Store objects, all or (if one is refused) none. A Node that is new is built. Raises InputError."""
    machines = (*lab.switches, *lab.outside)
    admission.check(objects, lab.nodes, lab.config.service_subnet, lab.store.list("Service"), machines)
    for thing in objects:
        admission.check_change(lab.store.get(*key_of(thing)), thing)
    policies.check(lab.store, objects)
    new = [thing["metadata"]["name"] for thing in objects if thing["kind"] == "Node"]
    lab.numbers_for([name for name in new if name not in lab.nodes])
    done = []
    for thing in objects:
        outcome, _ = lab.store.apply(thing)
        name = thing["metadata"]["name"]
        if thing["kind"] == "Node" and name not in lab.nodes:
            lab.add_node(NodeConfig(name, labels=thing["metadata"].get("labels") or {}))
        if thing["kind"] == "Ingress" and not lab.config.ingress and not lab.store.list("IngressClass"):
            record(
                lab.store, thing, "NoController", "nothing in this lab serves Ingresses; `up --ingress` starts nginx"
            )
        said = list(policies.warnings(thing, lab.parts.enforces, lab.config.cni, lab.parts.proxy_mode))
        for text in said:
            record(lab.store, lab.store.get(*key_of(thing)) or thing, "NoEffect", text)
        done.append({"kind": kind_of(thing), "name": name, "outcome": outcome, "warnings": said})
    return done


def _apply(request: Request) -> Any:
    done = apply_objects(request.lab, request.values["objects"])
    if request.values.get("wait"):
        request.lab.wait_ready(float(request.values["wait"]))
    return done


def _delete(request: Request) -> Any:
    lab, done = request.lab, []
    waits: dict[Key, str] = {}
    for kind, namespace, name in request.values["keys"]:
        namespace = "" if kind in CLUSTER_SCOPED else namespace
        found = lab.store.get(kind, namespace, name)
        if found is None:
            there = ", ".join(t["metadata"]["name"] for t in lab.store.list(kind)) or "none"
            raise InputError(f"{kind} {name}", "there is no such object", f"one of: {there}")
        if kind == "Node":
            lab.remove_node(name)
        elif kind == "Pod":
            # grace: seconds, None for the pod's own terminationGracePeriodSeconds.
            lab.store.mark_deleted(kind, namespace, name, request.values.get("grace"))
        else:
            lab.store.delete(kind, namespace, name)
        waits[kind, namespace, name] = found["metadata"]["uid"]
        done.append({"kind": kind, "name": name, "outcome": "deleted"})
    while request.values.get("wait") and any(_is_there(lab, key, uid) for key, uid in waits.items()):
        if select.select([request.connection], [], [], _GONE_POLL)[0]:
            break  # the caller went
    return done


def _is_there(lab: Lab, key: Key, uid: str) -> bool:
    found = lab.store.get(*key)
    return found is not None and found["metadata"]["uid"] == uid


def _status(request: Request) -> Any:
    return status(request.lab)


def status(lab: Lab) -> dict[str, Any]:
    """Nodes, pods, Services, warnings: what `mininetes status` shows."""
    return {
        "lab": lab.config.name,
        "cni": lab.config.cni,
        "proxy": lab.parts.proxy_mode,
        "datapath": lab.parts.datapath,
        "fabric": {"shape": lab.config.fabric.shape, "switches": list(lab.switches), "links": link_names(lab)},
        "nodes": [
            {
                "name": n.name,
                "ip": str(n.ip),
                "podCIDR": str(n.pod_cidr),
                "ready": is_node_ready(lab.store.get("Node", "", n.name) or {}),
                "pods": sum(s.node is n for s in list(lab.kubelet.sandboxes.values())),
                "attached": f"{n.attachment.switch} eth{n.attachment.port}",
                "relays": _relays(lab, n.name),
            }
            for n in lab.nodes.values()
        ],
        "pods": [_pod(p) for p in lab.store.list("Pod")],
        "services": [_service(lab, s) for s in lab.store.list("Service")],
        "ingresses": [_ingress(i) for i in lab.store.list("Ingress")],
        "warnings": [
            f"{e['involvedObject']['kind']} {e['involvedObject']['name']}: {e['message']}"
            for e in lab.store.list("Event")
            if e["type"] == "Warning"
        ],
        "notes": [
            f"{e['involvedObject']['kind']} {e['involvedObject']['name']}: {e['message']}"
            for e in lab.store.list("Event")
            if e["type"] == "Normal"
        ],
        "waiting": lab.waiting_for(),
        "controller": {
            "pid": lab.controller.process.pid if lab.controller.process else None,
            "errors": lab.controller.errors() + lab.agent.errors(),
        },
    }


def _pod(pod: Object) -> dict[str, Any]:
    state = pod.get("status", {})
    return {
        "namespace": pod["metadata"]["namespace"],
        "name": pod["metadata"]["name"],
        "node": pod["spec"].get("nodeName", ""),
        "ip": state.get("podIP", ""),
        "phase": "Terminating" if is_ending(pod) else state.get("phase", "Pending"),
        "ready": is_ready(pod),
        "restarts": sum(c["restartCount"] for c in state.get("containerStatuses", ())),
    }


def _service(lab: Lab, service: Object) -> dict[str, Any]:
    meta, spec = service["metadata"], service["spec"]
    label = {"kubernetes.io/service-name": meta["name"]}
    slices = [
        s
        for s in lab.store.list("EndpointSlice", meta["namespace"])
        if label.items() <= s["metadata"]["labels"].items()
    ]
    ready = {e["addresses"][0] for s in slices for e in s["endpoints"] if e.get("conditions", {}).get("ready", True)}
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "type": spec.get("type", "ClusterIP"),
        "clusterIP": spec.get("clusterIP", ""),
        "external": [i["ip"] for i in service.get("status", {}).get("loadBalancer", {}).get("ingress", ()) if "ip" in i]
        + list(spec.get("externalIPs", ())),
        "ports": [_port(p) for p in spec.get("ports") or ()],
        "endpoints": sorted(ready, key=IPv4Address),
    }


def _port(port: Object) -> str:
    """As kubectl shows it: 80:30080/TCP."""
    node_port = f":{port['nodePort']}" if port.get("nodePort") else ""
    return f"{port['port']}{node_port}/{port.get('protocol', 'TCP')}"


def _ingress(ingress: Object) -> dict[str, Any]:
    meta, spec = ingress["metadata"], ingress["spec"]
    served = ingress.get("status", {}).get("loadBalancer", {}).get("ingress", ())
    return {
        "namespace": meta["namespace"],
        "name": meta["name"],
        "class": spec.get("ingressClassName", ""),
        "hosts": [rule.get("host", "*") for rule in spec.get("rules", ())] or ["*"],
        "addresses": [i.get("ip") or i.get("hostname", "") for i in served],
    }


def sandbox(lab: Lab, name: str) -> Sandbox:
    """A pod by NAME or NAMESPACE/NAME, or the first of a workload of that name. Raises InputError."""
    there = sorted(lab.kubelet.sandboxes.values(), key=lambda s: s.key)
    full = name if "/" in name else f"default/{name}"
    found = [s for s in there if s.key == full] or [s for s in there if s.key.startswith(f"{full}-")]
    if not found:
        raise InputError(f"pod {name}", "there is no such pod", f"one of: {', '.join(s.key for s in there) or 'none'}")
    return found[0]


def _exec(request: Request) -> Any:
    """Run a program in a pod or on a node, on the caller's own standard streams."""
    lab, name = request.lab, request.values["target"]
    if name in lab.nodes:
        pid = lab.nodes[name].machine.pid
    elif name in lab.outside:
        pid = lab.outside[name].pid
    else:
        pid = lab.switches[name].pid if name in lab.switches else sandbox(lab, name).pid
    return attached(request.fds, request.connection, pid, request.values["command"])


def _cni(request: Request) -> Any:
    lab, values = request.lab, request.values
    # GC must not meet an ADD or a DEL (CNI specification, "Lifecycle & Ordering").
    return lab.kubelet.ask(lambda: cni.ask(lab, values["command"], values["names"], lambda name: sandbox(lab, name)))


def _capture(request: Request) -> Any:
    """Capture on an interface, its file written to the descriptor that came along."""
    name, interface = place_of_link(request.lab, request.values["link"])
    host = request.lab.mininet.nameToNode[name]
    words, may_drop = request.values.get("filter", []), capturing.may_drop_privileges()
    command = capturing.command(interface, request.values.get("count"), words, may_drop=may_drop)
    return attached(request.fds, request.connection, host.pid, command)


def link_names(lab: Lab) -> list[str]:
    """NODE:INTERFACE--NODE:INTERFACE of every link, pods' included."""
    return [f"{x.intf1.node.name}:{x.intf1.name}--{x.intf2.node.name}:{x.intf2.name}" for x in lab.mininet.links]


def place_of_link(lab: Lab, text: str) -> tuple[str, str]:
    """(machine, interface) from "A--B" (A's end), "MACHINE:INTERFACE", or a pod's name. Raises InputError."""
    machine, _, interface = text.partition(":")
    if machine in lab.mininet.nameToNode and interface:
        return machine, interface
    one, _, two = text.partition("--")
    for link in lab.mininet.links:
        ends = [(link.intf1.node.name, link.intf1.name), (link.intf2.node.name, link.intf2.name)]
        for (a, a_port), (b, _) in (ends, ends[::-1]):
            if (one, two) == (a, b):
                return a, a_port
    if "--" not in text:
        return sandbox(lab, text).host.name, "eth0"
    known = ", ".join(link_names(lab)[:8])
    raise InputError(f"link {text}", "there is no such link", f"A--B, MACHINE:INTERFACE or a pod; links: {known}, ...")


def _flows(request: Request) -> Any:
    values = request.values
    return flows.listing(request.lab, values["node"], values.get("bridge"), values.get("table"))


def _flow_diff(request: Request) -> Any:
    return flows.last_change(request.lab, request.values["node"], request.values.get("bridge"))


def _controller(request: Request) -> Any:
    lab, action = request.lab, request.values["action"]
    began = time.monotonic()
    if action in ("restart", "stop"):
        lab.controller.stop()
    if action in ("restart", "start"):
        if lab.controller.process is not None:
            raise InputError("controller start", "it runs already", "controller restart")
        lab.controller.start()
        lab.controller.wait_listening(len(lab.bridges()))
        lab.confirm()
    pid = lab.controller.process.pid if lab.controller.process else None
    return {"action": action, "pid": pid, "seconds": round(time.monotonic() - began, 3)}


def _get(request: Request) -> Any:
    return request.lab.store.list(request.values["kind"])


def _switch(request: Request) -> Any:
    """Crash a machine's vswitchd, bring it back, or both: what a switch failure does."""
    lab, name, action = request.lab, request.values["machine"], request.values["action"]
    if name not in lab.nodes and name not in lab.switches:
        there = ", ".join([*lab.nodes, *lab.switches])
        raise InputError(f"switch {action} {name}", "there is no such machine", f"one of: {there}")
    switch = (lab.nodes[name].machine if name in lab.nodes else lab.switches[name]).switch
    if (action == "start") == switch.is_running():
        state = "runs already" if switch.is_running() else "is stopped already"
        raise InputError(
            f"switch {action} {name}", f"the switch {state}", "start or restart" if action == "stop" else "restart"
        )
    began = time.monotonic()
    if action in ("stop", "restart"):
        switch.kill_switch()
    if action in ("start", "restart"):
        switch.start_switch()
        lab.restore(name)
    return {"machine": name, "action": action, "seconds": round(time.monotonic() - began, 3)}


def _bgp_routes(request: Request) -> Any:
    return routes.routes(request.lab, request.values["node"])


def _bgp_sessions(request: Request) -> Any:
    return routes.sessions(request.lab, request.values["node"])


def _wait(request: Request) -> Any:
    began = time.monotonic()
    request.lab.wait_ready(float(request.values["timeout"]))
    return {"seconds": round(time.monotonic() - began, 3)}


def _of_policies(lab: Lab, node: str, direction: str) -> list[dict[str, Any]]:
    every = flows.listing(lab, node, "br-int", None)
    return [f for f in every if f["feature"] == "policy" and f["table"].startswith(direction.capitalize())]


def _policy_explain(request: Request) -> Any:
    values = request.values
    return policies.explain(request.lab, values["source"], values["target"], values["port"], _of_policies)


def _policy_log(request: Request) -> Any:
    return policies.log(request.lab, _of_policies)


def _policy_matrix(request: Request) -> Any:
    values = request.values
    if not values["probe"]:
        return policies.matrix(request.lab, values["ports"], values["namespaces"])
    with Prober() as prober:
        return policies.matrix(request.lab, values["ports"], values["namespaces"], prober)


def _relays(lab: Lab, node: str) -> dict[str, str]:
    """Through which node the CNI reaches others that it does not reach directly."""
    found = lab.store.get("Node", "", node) or {"metadata": {}}
    relays: dict[str, str] = json.loads(found["metadata"].get("annotations", {}).get(RELAYS, "{}"))
    return relays


def _identities(request: Request) -> Any:
    return policies.identities(request.lab)


def _measure(request: Request) -> Any:
    return measuring.measure(request.lab, dict(request.values), sandbox)


VERBS: Mapping[str, Callable[[Request], Any]] = {
    "apply": _apply,
    "bgp-routes": _bgp_routes,
    "bgp-sessions": _bgp_sessions,
    "delete": _delete,
    "status": _status,
    "exec": _exec,
    "capture": _capture,
    "cni": _cni,
    "flows": _flows,
    "flow-diff": _flow_diff,
    "controller": _controller,
    "get": _get,
    "measure": _measure,
    "identities": _identities,
    "policy-explain": _policy_explain,
    "policy-log": _policy_log,
    "policy-matrix": _policy_matrix,
    "switch": _switch,
    "wait": _wait,
}
