"""The controller as a cluster has it: a namespace, its IngressClass, a Deployment and a Service that clients reach.

Names and shape are ingress-nginx's own installation's, so that what is written for it finds what it seeks.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable
from typing import Any

from topo.addons.ingress.nginx import HEALTH_PORT
from topo.addons.ingress.routes import CONTROLLER, DEFAULT_CLASS, served
from topo.cluster.store import key_of
from topo.cluster.wiring import COMMAND

Object = dict[str, Any]
NAMESPACE, NAME, CLASS = "ingress-nginx", "ingress-nginx-controller", "nginx"
_LABELS = {"app.kubernetes.io/name": "ingress-nginx", "app.kubernetes.io/component": "controller"}


def objects() -> list[Object]:
    """Everything the controller consists of, with defaults filled in."""
    place = {"name": NAME, "namespace": NAMESPACE, "labels": _LABELS}
    command = shlex.join([sys.executable, "-m", "topo.addons.ingress", "--service", f"{NAMESPACE}/{NAME}"])
    ports = (("http", 80), ("https", 443))
    container = {
        "name": "controller",
        "image": "registry.k8s.io/ingress-nginx/controller",  # not pulled: the annotation runs ours in its place
        "ports": [{"name": name, "containerPort": number, "protocol": "TCP"} for name, number in ports],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": HEALTH_PORT}, "periodSeconds": 5},
    }
    template = {
        "metadata": {"labels": _LABELS, "annotations": {COMMAND: command}},
        "spec": {"containers": [container]},
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": {"name": CLASS, "labels": _LABELS, "annotations": {DEFAULT_CLASS: "true"}},
            "spec": {"controller": CONTROLLER},
        },
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": place,
            "spec": {"replicas": 1, "selector": {"matchLabels": _LABELS}, "template": template},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": place,
            "spec": {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",  # so that X-Forwarded-For is the client's address, not a node's
                "selector": _LABELS,
                "ports": [{"name": n, "port": p, "protocol": "TCP", "targetPort": n} for n, p in ports],
            },
        },
    ]


def missing(have: Iterable[Object]) -> list[Object]:
    """Those of the controller's objects that these, which are the user's and win, do not bring themselves."""
    keys = {key_of(thing) for thing in have}
    return [thing for thing in objects() if key_of(thing) not in keys]


def is_wanted(have: Iterable[Object]) -> bool:
    """Whether one of these is an Ingress that the controller would serve."""
    have = list(have)
    classes = [thing for thing in (*have, *missing(have)) if thing["kind"] == "IngressClass"]
    return any(served((thing for thing in have if thing["kind"] == "Ingress"), classes))
