"""Every case in mode kernel-nftables."""

from services.cases import *  # noqa: F403

MODE = "kernel-nftables"
