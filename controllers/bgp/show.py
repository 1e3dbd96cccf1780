"""What a node's RIB and sessions look like to a person, as BIRD shows its own (`birdc show route`); pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controllers.bgp.control import Route
from controllers.flow.fields import ip_text
from controllers.rib import Announcement, Origin
from controllers.state import NodeView

_ORIGINS = {Origin.IGP: "i", Origin.EGP: "e", Origin.INCOMPLETE: "?"}
Held = Mapping[str, Sequence[tuple[Announcement, bool]]]


def rib(view: NodeView, held: Held) -> list[dict[str, Any]]:
    """The controller's RIB of one node, a path each."""
    names = {peer.ip: peer.name for peer in view.peers}
    return [
        {
            "prefix": prefix,
            "best": is_best,
            "via": [ip_text(path.next_hop)],
            "from": names.get(path.speaker, ip_text(path.speaker)),
            "localPreference": path.local_preference,
            "med": path.med,
            "asPath": list(path.as_path),
            "origin": _ORIGINS[path.origin],
            "communities": sorted(f"{one}:{two}" for one, two in path.communities),
        }
        for prefix, paths in sorted(held.items())
        for path, is_best in paths
    ]


def bird(routes: Iterable[Route]) -> list[dict[str, Any]]:
    """BIRD's table, a path each; "via" of one that leads nowhere is empty."""
    found = []
    for route in routes:
        has = {key.removeprefix("BGP."): value for key, value in route.attributes.items()}
        found.append(
            {
                "prefix": route.prefix,
                "best": route.best,
                "via": route.hops,
                "from": route.protocol,
                "localPreference": int(has.get("local_pref", 0)),
                "med": int(has.get("med", 0)),
                "asPath": [int(word) for word in has.get("as_path", "").split() if word.isdecimal()],
                "origin": {"IGP": "i", "EGP": "e", "Incomplete": "?"}.get(has.get("origin", ""), ""),
                "communities": [c.strip("()").replace(",", ":") for c in has.get("community", "").split()],
            }
        )
    return found


def ryu(routes: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The best paths that a Ryu speaker has; it shows no others."""
    return [
        {"prefix": prefix, "best": True, "origin": "i", "communities": [], **route, "via": [route["via"]]}
        for prefix, route in sorted(routes.items())
    ]


def text(paths: Iterable[Mapping[str, Any]]) -> str:
    """As `birdc show route` prints it: a star for a path that is used, [where it is from], last AS and origin."""
    lines, last = [], ""
    for path in paths:
        prefix = path["prefix"] if path["prefix"] != last else ""
        last = path["prefix"]
        star = " *" if path["best"] else ""
        origin = f"AS{path['asPath'][-1]}" if path["asPath"] else ""
        lines.append(
            f"{prefix:<20} unicast [{path['from']}]{star} ({path['localPreference']}) [{origin}{path['origin']}]"
        )
        lines += [f"\tvia {hop}" for hop in path["via"]]
        if path["communities"]:
            lines.append(f"\tcommunities {' '.join(path['communities'])}")
    return "\n".join(lines)
