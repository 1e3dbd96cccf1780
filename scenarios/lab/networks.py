"""CNI variants that are compared: which there are, the lab of each, and what its CNI says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controllers import cni as cnis
from controllers.cni import Cni, Traits
from controllers.registry import discover
from topo.cluster.errors import InputError
from topo.config import LabConfig

# Options beside the variant by which CNIs seal what goes between nodes.
_SEALING: Mapping[str, object] = {"wireguard": True, "encryption": "wireguard", "password": "of the lab"}


def known() -> dict[str, tuple[Cni, dict[str, Any]]]:
    """Every variant of every CNI with the options that make it, as `mininetes list cni` names them; and every CNI that
    may seal what goes between nodes once more, sealed.
    """
    found: Mapping[str, Cni] = discover(cnis, "CNI")
    variants = {f"{name} {one}": (cni, {cni.option: one}) for name, cni in found.items() for one in cni.variants}
    sealed = {
        f"{cni.name} {key}": (cni, {key: value})
        for cni in found.values()
        for key, value in _SEALING.items()
        if key in cni.options
    }
    return {**variants, **sealed}


def chosen(
    config: LabConfig, key: str, more: Mapping[str, tuple[str, Mapping[str, object]]] | None = None
) -> dict[str, LabConfig]:
    """The labs that the scenario's option asks for, by variant: "all", or CNIs and variants with commas between.

    more: variants of the scenario's own beside the known ones, as CNI and options. A CNI without a variant means all of
    its own. Raises InputError for what there is not.
    """
    variants = {name: (cni.name, options) for name, (cni, options) in known().items()} | dict(more or {})
    found: dict[str, LabConfig] = {}
    for word in config.scenario[key].split(","):
        matching = [full for full in variants if word in ("all", full, full.partition(" ")[0])]
        if not matching:
            expected = f'"all", a CNI, or some of: {", ".join(variants)}'
            raise InputError(f"--option {key}={config.scenario[key]}", f"unknown: {word!r}", expected)
        for full in matching:
            cni, options = variants[full]
            found[full] = replace(config, cni=cni, cni_options=options)
    return found


def traits(config: LabConfig) -> Traits:
    """Of the CNI variant that a lab has."""
    return next(cni for cni, _ in known().values() if cni.name == config.cni).traits_of(config.cni_options)
