"""What a CNI that speaks BGP has on a node beside flows."""

from __future__ import annotations

from pathlib import Path

from controllers.bgp import options as bgp
from controllers.bgp.daemon import Bird
from controllers.bgp.originated import Originated
from controllers.bgp.ryu import RyuSpeaker
from controllers.proxy import NodePart
from controllers.state import Lab


def node_parts(lab: Lab, pid: int, run: Path) -> list[NodePart]:
    """Announced prefixes, and the speaker."""
    options = bgp.of(lab)
    found: list[NodePart] = [Originated(pid)] if options.announced else []
    if options.on_the_wire:
        found.append(Bird(pid, run / "bird") if options.speaker == "bird" else RyuSpeaker(pid, run / "ryu"))
    return found
