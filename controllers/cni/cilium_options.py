"""What the lab file may say of cilium beside its mode, in the words of Cilium's Helm values.

    loadBalancer: {algorithm: maglev, mode: snat, dsrDispatch: geneve}
    encryption: wireguard

Source: Cilium, "Kubernetes Without kube-proxy" and its Helm reference. Cilium's own default algorithm is random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controllers.state import Lab
from topo.cluster.errors import InputError

MAGLEV, RANDOM = "maglev", "random"
SNAT, DSR = "snat", "dsr"
# Field of loadBalancer: what it may be, the default first.
_LOAD_BALANCER: Mapping[str, tuple[str, ...]] = {
    "algorithm": (MAGLEV, RANDOM),
    "mode": (SNAT, DSR),
    "dsrDispatch": ("geneve",),
}


@dataclass(frozen=True, slots=True)
class LoadBalancer:
    """How Services are served."""

    algorithm: str = MAGLEV
    is_dsr: bool = False


def load_balancer(options: Mapping[str, object], routing: str) -> LoadBalancer:
    """From the CNI's options. routing: the CNI's mode. Raises InputError."""
    place = "mininetes.cni.loadBalancer"
    given = options.get("loadBalancer", {})
    if not isinstance(given, Mapping):
        raise InputError(place, f"{given!r} is wrong", "a mapping, as {algorithm: maglev, mode: dsr}")
    found: dict[str, str] = {}
    for key, value in given.items():
        allowed = _LOAD_BALANCER.get(str(key))
        if allowed is None:
            raise InputError(f"{place}.{key}", "cilium has no such option", f"one of: {', '.join(_LOAD_BALANCER)}")
        if value not in allowed:
            raise InputError(f"{place}.{key}", f"{value!r} is not there", " or ".join(allowed))
        found[str(key)] = str(value)
    is_dsr = found.get("mode") == DSR
    if is_dsr and routing == "vxlan":
        problem = "dsr is dispatched in Geneve, beside which there can be no VXLAN"
        raise InputError(f"{place}.mode", problem, "mode: geneve or native")
    return LoadBalancer(found.get("algorithm", MAGLEV), is_dsr)


def is_encrypted(options: Mapping[str, object]) -> bool:
    """Whether nodes seal what they send each other. Raises InputError for an option of encryption there is not."""
    value = options.get("encryption")
    if value == "ipsec":
        problem = "IPsec needs ESP in the kernel and keys in a Secret, which labs have not"
        raise InputError("mininetes.cni.encryption", problem, "wireguard")
    if value not in (None, "wireguard"):
        raise InputError("mininetes.cni.encryption", f"cilium cannot encrypt with {value!r}", "wireguard")
    return value is not None


def of(lab: Lab) -> LoadBalancer:
    """Of a lab, whose options were checked when it began; of one with another CNI, the default."""
    options = lab.options.get("cni", {}) if lab.cni == "cilium" else {}
    return load_balancer(options, options.get("mode", ""))
