"""What CNIs are compared by, as rows: for `mininetes list cni`, reports, docs/cni.md and scenarios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from controllers.cni import Cni, Traits
from scenarios.report.markdown import line

FABRIC_MTU = 1500
COLUMNS = (
    "CNI",
    "encapsulation",
    "overhead",
    f"MTU on {FABRIC_MTU}",
    "routing",
    "layer",
    "policy",
    "encryption",
    "needs",
    "source",
)
_NONE = "-"


def by_variant(cnis: Mapping[str, Cni]) -> dict[str, Traits]:
    """Traits by "NAME VARIANT"; a CNI's default variant comes first."""
    return {f"{name} {variant}": traits for name, cni in cnis.items() for variant, traits in cni.variants.items()}


def data(traits: Traits) -> dict[str, Any]:
    """For programs."""
    return {**asdict(traits), f"mtu_on_{FABRIC_MTU}": traits.mtu(FABRIC_MTU), "enforces": list(traits.enforces)}


def row(name: str, found: Mapping[str, Any]) -> tuple[str, ...]:
    """One line of a table, from what `data` gives."""
    wrapped = str(found["encapsulation"]) + (", between subnets only" if found["only_between_subnets"] else "")
    policy = [*found["policy"], *(["admin"] if found["policy"] and len(found["policy_kinds"]) > 1 else [])]
    return (
        name,
        wrapped,
        f"{found['overhead']} bytes" if found["overhead"] else _NONE,
        str(found[f"mtu_on_{FABRIC_MTU}"]) + (", fixed" if found["fixed_mtu"] else ""),
        str(found["routing"]),
        str(found["layer"]),
        ", ".join(policy) or _NONE,
        " or ".join(found["encryption"]) or _NONE,
        str(found["needs"]) or _NONE,
        str(found["source"]) or _NONE,
    )


def rows(found: Mapping[str, Mapping[str, Any]]) -> tuple[tuple[str, ...], ...]:
    """All of them, from `data` by name."""
    return tuple(row(name, one) for name, one in found.items())


def markdown(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The same as lines of a Markdown table."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(found)]
    return [line(one) for one in lines]
