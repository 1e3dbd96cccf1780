"""Schemas of the policy kinds that the official schemas lack: admin policies, Calico's policies and network sets.

Written from the API specification of the network-policy-api project (policy.networking.k8s.io/v1alpha1), and from
Calico's resource reference ("Network policy", "Global network policy", "Network set"; projectcalico.org/v3).
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

_DEFINITIONS = "https://kubernetes.io/api/_definitions.json#/$defs/io.k8s.apimachinery.pkg.apis.meta.v1."
_SELECTOR: Schema = {"$ref": f"{_DEFINITIONS}LabelSelector"}
_STRING: Schema = {"type": "string"}
_INTEGER: Schema = {"type": "integer", "format": "int32"}
_ADMIN = "policy.networking.k8s.io/v1alpha1"
# Kinds that the official schemas lack, as topo/manifests.py wants them.
CALICO = "projectcalico.org/v3"
_SETS = ("NetworkSet", "GlobalNetworkSet")
KINDS = {
    "AdminNetworkPolicy": _ADMIN,
    "BaselineAdminNetworkPolicy": _ADMIN,
    **dict.fromkeys(("GlobalNetworkPolicy", *_SETS), CALICO),
}


def schema(kind: str, version: str) -> Schema | None:
    """The schema of a kind, or None if it is none of these."""
    if version == CALICO:
        return thing(kind, version, _calico(kind))
    if KINDS.get(kind) != version:
        return None
    spec = {"subject": _SUBJECT, "ingress": _list(_rule("from")), "egress": _list(_rule("to"))}
    needed = ["subject"]
    if kind == "AdminNetworkPolicy":
        spec["priority"] = _INTEGER
        needed = ["priority", "subject"]
    return thing(kind, version, _object(spec, needed))


def _calico(kind: str) -> Schema:
    """The spec of one of Calico's kinds."""
    if kind in _SETS:
        return _object({"nets": _list(_STRING)})
    spec: Schema = {
        "tier": _STRING,
        "order": {"type": "number"},
        "selector": _STRING,
        "serviceAccountSelector": _STRING,
        "types": _list(_STRING),
        "ingress": _list(_CALICO_RULE),
        "egress": _list(_CALICO_RULE),
        "performanceHints": _list(_STRING),
    }
    if kind == "GlobalNetworkPolicy":
        flags = ("doNotTrack", "preDNAT", "applyOnForward")
        spec |= {"namespaceSelector": _STRING, **{flag: {"type": "boolean"} for flag in flags}}
    return _object(spec)


def thing(kind: str, version: str, spec: Schema) -> Schema:
    """The schema of an object with this spec."""
    properties = {
        "apiVersion": {"type": "string", "enum": [version]},
        "kind": {"type": "string", "enum": [kind]},
        "metadata": {"$ref": f"{_DEFINITIONS}ObjectMeta"},
        "spec": spec,
        "status": {"type": "object"},
    }
    return _object(properties, ["spec"])


def _object(properties: Schema, required: list[str] | None = None) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


_PODS: Schema = _object(
    {"namespaceSelector": _SELECTOR, "podSelector": _SELECTOR}, ["namespaceSelector", "podSelector"]
)
_SUBJECT: Schema = _object({"namespaces": _SELECTOR, "pods": _PODS})
_PORT: Schema = _object(
    {
        "portNumber": _object({"protocol": _STRING, "port": _INTEGER}, ["port"]),
        "portRange": _object({"protocol": _STRING, "start": _INTEGER, "end": _INTEGER}, ["start", "end"]),
        "namedPort": _STRING,
    }
)


def _rule(side: str) -> Schema:
    peer = {"namespaces": _SELECTOR, "pods": _PODS}
    if side == "to":
        peer |= {"networks": _list(_STRING), "nodes": _SELECTOR}
    parts = {"name": _STRING, "action": _STRING, side: _list(_object(peer)), "ports": _list(_PORT)}
    return _object(parts, ["action", side])


_NUMBER_OR_STRING: Schema = {"type": ["integer", "string"]}
_ENTITY: Schema = _object(
    {
        **{name: _list(_STRING) for name in ("nets", "notNets")},
        **dict.fromkeys(("selector", "notSelector", "namespaceSelector"), _STRING),
        **{name: _list(_NUMBER_OR_STRING) for name in ("ports", "notPorts")},
        "serviceAccounts": _object({"names": _list(_STRING), "selector": _STRING}),
        "services": _object({"name": _STRING, "namespace": _STRING}),
    }
)
_ICMP: Schema = _object({"type": _INTEGER, "code": _INTEGER})
_CALICO_RULE: Schema = _object(
    {
        "action": _STRING,
        "protocol": _NUMBER_OR_STRING,
        "notProtocol": _NUMBER_OR_STRING,
        "icmp": _ICMP,
        "notICMP": _ICMP,
        "ipVersion": _INTEGER,
        "source": _ENTITY,
        "destination": _ENTITY,
        "http": {"type": "object"},
        "metadata": _object({"annotations": {"type": "object", "additionalProperties": _STRING}}),
    },
    ["action"],
)
