"""service-types: who reaches a Service of each type, by which address, and whom the pod sees as its client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from scenarios import Context, Outcome
from scenarios.measure.place import Place, run, script
from scenarios.report.results import TextTable
from topo import fabric, manifests
from topo.cluster.errors import InputError
from topo.cluster.store import Object
from topo.config import LabConfig
from topo.lab import Lab

COUNT = 4
_CLIENT = "203.0.113.9"
_EXTERNAL = "203.0.113.250"
_SERVICES = """
apiVersion: v1
kind: Service
metadata: {{name: cluster-ip}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: headless}}
spec: {{clusterIP: None, selector: {{app: web}}, ports: [{{port: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: node-port}}
spec: {{type: NodePort, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: node-port-local}}
spec: {{type: NodePort, externalTrafficPolicy: Local, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: balancer}}
spec: {{type: LoadBalancer, selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: balancer-local}}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: balancer-limited}}
spec:
  type: LoadBalancer
  loadBalancerSourceRanges: [198.51.100.0/24]
  selector: {{app: web}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: external-ip}}
spec: {{externalIPs: [{external}], selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: nobody}}
spec: {{type: NodePort, selector: {{app: nobody}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""
_POD = """
---
apiVersion: v1
kind: Pod
metadata: {{name: web-{node}, labels: {{app: web}}}}
spec: {{nodeName: {node}, containers: [{{name: web, image: none, ports: [{{containerPort: 8080}}]}}]}}
"""
_ASKING = """
---
apiVersion: v1
kind: Pod
metadata: {{name: asking}}
spec: {{nodeName: {node}, containers: [{{name: asking, image: none}}]}}
"""


@dataclass(frozen=True, slots=True)
class Way:
    """One client, one address. expected: "kept", "hidden" (the pod sees a node), "refused" or "dropped"."""

    service: str
    client: str
    address: str
    port: int
    expected: str


class ServiceTypes:
    """The scenario object."""

    name = "service-types"
    timed = False
    description = "every Service type: who reaches it, by which address, and whom the pod sees; against expectation"

    def plan(self, config: LabConfig) -> tuple[LabConfig, Sequence[Object]]:
        """A pod on every node but the first, a client pod, and a Service of each kind."""
        names = [node.name for node in config.nodes]
        if len(names) < 3:
            raise InputError("--nodes", "service-types asks a node without endpoints and two with", "3 or more")
        text = _SERVICES.format(external=_EXTERNAL) + "".join(_POD.format(node=n) for n in names[1:])
        text += _ASKING.format(node=names[1])
        return config, manifests.load_text(text, self.name).objects

    def run(self, context: Context) -> Outcome:
        """Ask every address from every client."""
        lab = context.lab
        nodes = list(lab.nodes.values())
        places = {
            "pod": context.place("default/asking"),
            "node": Place("node", nodes[1].machine.pid, str(nodes[1].ip)),
            "outside": Place("outside", lab.outside[fabric.CLIENT].pid, _CLIENT),
        }
        # Nobody announces an external IP: who wants it must route it to a node (Kubernetes, "Service: external IPs").
        run(places["outside"], ["ip", "route", "add", f"{_EXTERNAL}/32", "via", str(nodes[1].ip)], 5)
        shown, failed = [], []
        inside = {str(a) for n in nodes for a in (n.ip, n.gateway_ip, n.pod_cidr.network_address)} | {"169.254.169.252"}
        for way in ways(lab):
            context.progress(f"{way.service} from {way.client}")
            place = places[way.client]
            source = _CLIENT if way.client == "outside" else "-"
            answer = json.loads(run(place, script("callers.py", COUNT, source, way.address, way.port), 20))
            observed = describe(answer, _CLIENT if way.client == "outside" else place.address, inside)
            if way.client == "node" and observed in ("kept", "hidden"):
                observed = "hidden"  # the node itself: whichever of its addresses
            if observed != way.expected:
                failed.append(f"{way.service} from {way.client} at {way.address}: {observed}, not {way.expected}")
            times = answer["us"]
            who = ", ".join(sorted(answer["answers"])) or "nobody"
            cell = f"{median(times):.0f}" if times else "-"
            row = (way.service, f"{way.address}:{way.port}", way.client, who, way.expected, observed, cell)
            shown.append(row)
        columns = ("Service", "address", "client", "answered by", "expected client", "observed", "connect+answer (us)")
        title = "Every Service type: kept = the pod sees the client's own address, hidden = it sees a node's"
        return Outcome((), (), tables=(TextTable(title, columns, tuple(shown)),), failed=failed)


SCENARIO = ServiceTypes()


def describe(answer: dict[str, Any], client: str, nodes: set[str]) -> str:
    """What became of the connections, in one word; more words if it was not the same for all."""
    seen = {c for clients in answer["answers"].values() for c in clients}
    words = {"kept" if c == client else "hidden" if c in nodes else f"seen as {c}" for c in seen}
    for reason in answer["errors"]:
        words.add({"Connection refused": "refused", "no answer": "dropped"}.get(reason, reason))
    return ", ".join(sorted(words)) or "nothing"


def ways(lab: Lab) -> list[Way]:
    """Every Service's addresses, with what the documentation says of each kind of client."""
    found: list[Way] = []
    without, here = (list(lab.nodes.values())[i] for i in (0, 1))
    for service in lab.store.list("Service", "default"):
        name, spec = service["metadata"]["name"], service["spec"]
        local, nobody = spec.get("externalTrafficPolicy") == "Local", name == "nobody"
        if spec.get("clusterIP") == "None":
            pods = [p for p in lab.store.list("Pod", "default") if p["metadata"].get("labels", {}).get("app") == "web"]
            found += [Way(name, "pod", p["status"]["podIP"], 8080, "kept") for p in pods]
            continue
        for client, seen in (("pod", "kept"), ("node", "hidden")):
            found.append(Way(name, client, spec["clusterIP"], 80, "refused" if nobody else seen))
        external = [(i["ip"], 80) for i in service.get("status", {}).get("loadBalancer", {}).get("ingress", ())]
        external += [(ip, 80) for ip in spec.get("externalIPs", ())]
        limited = bool(spec.get("loadBalancerSourceRanges"))
        outside = "refused" if nobody else "dropped" if limited else "kept" if local else "hidden"
        found += [Way(name, "outside", ip, port, outside) for ip, port in external]
        if not limited:
            pod = "refused" if nobody else "kept" if local else "hidden"
            found += [Way(name, "pod", ip, port, pod) for ip, port in external]
        if name.startswith(("node-port", "nobody")):
            number = spec["ports"][0]["nodePort"]
            found.append(Way(name, "outside", str(here.ip), number, outside))
            found.append(Way(name, "node", str(here.ip), number, "refused" if nobody else "hidden"))
            away = "dropped" if local and not nobody else outside
            found.append(Way(name, "outside", str(without.ip), number, away))
    return found
