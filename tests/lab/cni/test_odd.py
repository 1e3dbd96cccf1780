"""Every case, for the other variants."""

from cni.cases import *  # noqa: F403

SHARE = (1, 2)
