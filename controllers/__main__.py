"""Starts the controller process: Ryu with our channel, and our application, yours, or both."""

from __future__ import annotations

import argparse
import gc
import logging
import sys
from pathlib import Path

from controllers.channel import Channel
from controllers.lablink import LabLink
from controllers.registry import look_in
from controllers.ryu_compat import app_manager, hub

OURS = "mininetes"


def main(argv: list[str] | None = None) -> int:
    """Run until the lab closes its line or ends the process."""
    parser = argparse.ArgumentParser(prog="python -m controllers", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="the lab's run folder")
    parser.add_argument("--lab", required=True, help="the unix socket on which the lab waits")
    parser.add_argument("--controller", action="append", help=f"{OURS}, or a file with a Ryu application; may repeat")
    parser.add_argument("--plugins", type=Path, action="append", default=[])
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # Nothing of what is made for thousands of Services is cyclic; to look through it again and again takes a third of
    # the time.
    gc.set_threshold(200_000, 50, 100)
    # Here and not on import: whoever only wants bytes (tests, benchmarks) keeps threads and sockets as they are.
    hub.patch()
    Channel.run, LabLink.path = arguments.run, arguments.lab
    look_in(arguments.plugins)
    wanted = arguments.controller or [OURS]
    apps = ["controllers.channel"] + ["controllers.app" if name == OURS else name for name in wanted]
    manager = app_manager.AppManager.get_instance()
    manager.load_apps(apps)
    contexts = manager.create_contexts()
    threads = manager.instantiate_apps(**contexts)
    try:
        hub.joinall(threads)
        while True:
            hub.sleep(3600)
    except (KeyboardInterrupt, SystemExit):
        return 0


if __name__ == "__main__":
    sys.exit(main())
