"""What runs in the lab that is broken, and the objects that a change of the plan is about; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scenarios.disorder.plan import Change
from topo import manifests
from topo.cluster.store import Object

# Replicas of each Deployment at rest.
WORKLOADS: Mapping[str, int] = {"client": 3, "store": 3, "web": 4}
TCP, UDP = 8080, 5353
_DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}, annotations: {{revision: "{revision}"}}}}
    spec:
      terminationGracePeriodSeconds: 3
      containers:
      - name: main
        image: none
        ports: [{{containerPort: 8080}}, {{containerPort: 5353, protocol: UDP}}]
"""
_SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  {more}
  selector: {{app: {workload}}}
  ports: [{{name: web, port: 80, targetPort: 8080}}, {{name: dns, port: 53, targetPort: 5353, protocol: UDP}}]
"""
# Only clients may connect, and only so.
_POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: only-clients-of-{workload}}}
spec:
  podSelector: {{matchLabels: {{app: {workload}}}}}
  policyTypes: [Ingress]
  ingress: [{{from: [{{podSelector: {{matchLabels: {{app: client}}}}}}], ports: [{{port: 8080}}]}}]
"""
# Of the extra Services that come and go, one a workload; whoever asks it goes on with the endpoint that he had.
_AFFINITY = "type: NodePort\n  sessionAffinity: ClientIP"


def at_rest() -> list[Object]:
    """Everything as it is in the beginning."""
    texts = [_DEPLOYMENT.format(name=n, replicas=count, revision=0) for n, count in WORKLOADS.items()]
    texts += [_SERVICE.format(name=n, workload=n, more="type: ClusterIP") for n in WORKLOADS]
    return _load("\n---\n".join(texts))


def extras() -> list[tuple[str, str]]:
    """(kind, name) of all that changes may have made beside."""
    return [pair for n in WORKLOADS for pair in (("Service", _extra(n)), ("NetworkPolicy", f"only-clients-of-{n}"))]


def made_by(change: Change, deployment: Object | None) -> list[Object]:
    """The objects that the change applies; none if it removes one. deployment: as it is now."""
    name = change.target
    match change.kind:
        case "scale" | "roll" if deployment is not None:
            replicas, revision = _state(deployment)
            if change.kind == "scale":
                replicas = change.number
            else:
                revision = str(change.number)
            return _load(_DEPLOYMENT.format(name=name, replicas=replicas, revision=revision))
        case "service" if change.number:
            return _load(_SERVICE.format(name=_extra(name), workload=name, more=_AFFINITY))
        case "policy" if change.number:
            return _load(_POLICY.format(workload=name))
    return []


def removed_by(change: Change) -> list[tuple[str, str]]:
    """(kind, name) of what the change removes, if it is there."""
    if change.number or change.kind not in ("service", "policy"):
        return []
    kinds = {"service": ("Service", _extra(change.target))}
    return [kinds.get(change.kind, ("NetworkPolicy", f"only-clients-of-{change.target}"))]


def _extra(workload: str) -> str:
    return f"extra-{workload}"


def _state(deployment: Object) -> tuple[int, str]:
    spec: Mapping[str, Any] = deployment["spec"]
    return int(spec.get("replicas", 1)), str(spec["template"]["metadata"]["annotations"]["revision"])


def _load(text: str) -> list[Object]:
    return list(manifests.load_text(text, "chaos").objects)
