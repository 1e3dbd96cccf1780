"""Keeps NodeView.loads as it is: asks every node's switch, several times a second, which connections it follows."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from controllers import loads, unixctl
from controllers.flow.actions import ZONE
from controllers.ryu_compat import hub
from controllers.state import ClusterState

LOG = logging.getLogger("mininetes")

# Seconds between two counts, and how much longer than a count took: counting must not become the switch's main work.
_PERIOD, _SHARE = 0.1, 10.0


def count(run: Path, state: ClusterState, is_wanted: Callable[[], bool], changed: Callable[[], None]) -> None:
    """Count for ever, in a greenlet of its own. run: the folder with one run folder a switch."""
    while True:
        began = time.monotonic()
        if is_wanted():
            found = {name: _loads(run / name) for name in list(state.nodes)}
            new = {name: value for name, value in found.items() if value is not None}
            if any(state.loads.get(name) != value for name, value in new.items()):
                state.loads |= new
                changed()
        hub.sleep(max(_PERIOD, _SHARE * (time.monotonic() - began)))


def _loads(folder: Path) -> dict[loads.Server, loads.Load] | None:
    """A node's loads, or None if its switch does not answer: it may be starting, or down."""
    try:
        return loads.parse(unixctl.connections(folder, ZONE))
    except (OSError, ValueError) as error:
        LOG.debug("no connections counted in %s: %s", folder.name, error)
        return None
