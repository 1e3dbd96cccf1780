"""Every case in mode userspace."""

from services.cases import *  # noqa: F403

MODE = "userspace"
