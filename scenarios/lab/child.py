"""Several labs from one command: each in a process of its own, for one that has made a capsule can make no other."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable


def in_child(work: Callable[[], int]) -> int:
    """Do it in a forked process and give its exit status (unshare(2), CLONE_NEWPID)."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = work()
        except BaseException:  # a forked process must not fall back into its parent's code
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    while True:
        try:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        except KeyboardInterrupt:  # the child has it too, and takes its lab down
            continue
