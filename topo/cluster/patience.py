"""How long to wait for what should come soon: limits are for a machine of usual speed, and longer on a slow one."""

from __future__ import annotations

import os

# How many times slower than usual this machine is; `make vm-test` sets it where a processor is emulated.
SLOWNESS = "MININETES_SLOWNESS"


def patience(seconds: float) -> float:
    """The limit (s) for something that takes well under `seconds` on a machine of usual speed.

    Not for times that mean something: a probe's period, a grace period, how long a measurement lasts.
    """
    return seconds * max(1.0, float(os.environ.get(SLOWNESS, "1")))
