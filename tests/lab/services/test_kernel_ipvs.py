"""Every case in mode kernel-ipvs."""

from services.cases import *  # noqa: F403

MODE = "kernel-ipvs"
