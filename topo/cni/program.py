"""A plugin as a program: parameters from the environment, configuration on standard input, the answer on the output."""

from __future__ import annotations

import json
import logging
import os
import sys

from topo.cni.errors import CniError, Code
from topo.cni.protocol import Plugin, serve
from topo.cni.versions import LATEST


def run(plugin: Plugin) -> int:
    """One call; its exit status."""
    try:
        if sys.stdin is None:
            raise OSError("it is closed")
        text = "" if sys.stdin.isatty() else sys.stdin.read()
    except (OSError, UnicodeDecodeError) as error:
        code = Code.IO_FAILURE if isinstance(error, OSError) else Code.UNDECODABLE
        print(json.dumps(CniError(code, "standard input cannot be read", str(error)).object(LATEST)))
        return 1
    logging.getLogger("mininetes").addHandler(logging.NullHandler())  # the error object says what is to be said
    status, said = serve(plugin, os.environ, text)
    if said:
        print(said)
    return status
