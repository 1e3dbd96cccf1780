"""The ways there are from one node to the pods of another."""

from __future__ import annotations

from enum import Enum


class Way(Enum):
    """How packets get to the pods of another node."""

    NEIGHBOUR = "as they are: that node is the next hop"
    TUNNEL = "through the switch's tunnel"
    DEVICE = "through a device of the node's kernel, which the CNI's own part keeps"
    NONE = "not at all"
