"""Every case in mode iptables."""

from services.cases import *  # noqa: F403

MODE = "iptables"
