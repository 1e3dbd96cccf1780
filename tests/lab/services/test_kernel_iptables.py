"""Every case in mode kernel-iptables."""

from services.cases import *  # noqa: F403

MODE = "kernel-iptables"
