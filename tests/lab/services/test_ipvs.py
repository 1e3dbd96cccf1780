"""Every case in mode ipvs."""

from services.cases import *  # noqa: F403

MODE = "ipvs"
