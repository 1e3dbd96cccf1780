"""Every case, for every second variant."""

from cni.cases import *  # noqa: F403

SHARE = (0, 2)
