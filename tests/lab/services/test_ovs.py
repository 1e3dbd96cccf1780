"""Every case in mode ovs."""

from services.cases import *  # noqa: F403

MODE = "ovs"
