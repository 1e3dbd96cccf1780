"""Reading a CNI's options from the lab file: each names its place when it is wrong."""

from __future__ import annotations

from collections.abc import Mapping

from topo.cluster.errors import InputError


def choice(cni: str, options: Mapping[str, object], key: str, allowed: tuple[str, ...]) -> str:
    """The option's value, or the first allowed one if it is not given. Raises InputError for anything else."""
    value = options.get(key, allowed[0])
    if value not in allowed:
        raise InputError(f"mininetes.cni.{key}", f"{cni} knows no {key} {value!r}", " or ".join(allowed))
    return str(value)


def switch(options: Mapping[str, object], key: str) -> bool:
    """The option's value, or false if it is not given. Raises InputError unless it is true or false."""
    value = options.get(key, False)
    if not isinstance(value, bool):
        raise InputError(f"mininetes.cni.{key}", f"{value!r} is wrong", "true or false")
    return value


def mtu(options: Mapping[str, object], default: int) -> int:
    """The option "mtu" in bytes, or the default. Raises InputError unless it is a number from 576 to 65000."""
    value = options.get("mtu", default)
    if not isinstance(value, int) or isinstance(value, bool) or not 576 <= value <= 65000:
        raise InputError("mininetes.cni.mtu", f"{value!r} is no MTU", "a number of bytes from 576 to 65000")
    return value


def text(cni: str, options: Mapping[str, object], key: str) -> str:
    """The option's text, "" if it is not given; a number is one, too. Raises InputError for anything else."""
    value = options.get(key, "")
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise InputError(f"mininetes.cni.{key}", f"{value!r} is wrong for {cni}", "a text (in quotes)")
    return value


def only(cni: str, options: Mapping[str, object], known: tuple[str, ...]) -> None:
    """Raise InputError if there is an option that the CNI does not have."""
    for key in options:
        if key not in known:
            raise InputError(f"mininetes.cni.{key}", f"{cni} has no such option", f"one of: {', '.join(known)}")
