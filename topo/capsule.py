"""One lab's capsule: a user (if not root), network, PID and mount namespace that takes everything with it when it ends.

    caller (outside) -- waits, forwards signals
      +- init  PID 1 of the capsule: reaps orphans; when it ends, the kernel ends every process of the capsule
           +- the lab

Killing any of the three with SIGKILL leaves nothing: the caller's death reaches init by the parent-death signal, the
lab's death ends init, and namespaces, interfaces and the private /run go with the last process.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType

from topo import system
from topo.cluster.errors import PlatformError

# Everything a lab writes while it runs lies here, on a tmpfs of the capsule's own.
RUN = Path("/run/mininetes")


def run(main: Callable[[], int]) -> int:
    """Run `main` in a new capsule and give its exit status. The caller's own namespaces change too: call it last.

    Raises PlatformError where the machine forbids it.
    """
    flags = system.CLONE_NEWNET | system.CLONE_NEWNS | system.CLONE_NEWPID
    uid, gid = os.getuid(), os.getgid()
    try:
        if uid != 0:
            system.unshare(system.CLONE_NEWUSER | flags)
            _map_to_root(uid, gid)
        else:
            system.unshare(flags)
    except OSError as error:
        raise _refused(error) from error
    # Blocked until the handlers stand: a signal in between must not be lost or kill init's parent alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED)
    init = os.fork()
    if init == 0:
        system.die_with_parent(signal.SIGKILL)
        _init(main)
    _forward_to(init)
    return _exit_status(_wait(init))


_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _map_to_root(uid: int, gid: int) -> None:
    """Make the user root inside (user_namespaces(7): setgroups must be denied before gid_map may be written)."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


def _refused(error: OSError) -> PlatformError:
    if error.errno in (errno.EPERM, errno.ENOSPC, errno.EACCES):
        return PlatformError(
            "this user may not make namespaces",
            "run with sudo, or as root set kernel.unprivileged_userns_clone=1, user.max_user_namespaces=10000 and "
            "kernel.apparmor_restrict_unprivileged_userns=0 (each where it exists)",
        )
    return PlatformError(f"namespaces cannot be made ({error})", "a Linux kernel with NET_NS, PID_NS and USER_NS")


def _init(main: Callable[[], int]) -> None:
    """PID 1: mounts, forks the lab, reaps until the lab ends. Never returns."""
    status = 1
    try:
        _private_mounts()
        lab = os.fork()
        if lab == 0:
            system.die_with_parent(signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)
            status = main()
        else:
            _forward_to(lab)
            status = _exit_status(_wait(lab))
    except PlatformError as error:
        print(f"mininetes: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # a forked process must not fall back into its parent's code
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _private_mounts() -> None:
    """A /proc of the capsule's processes and a /run of its own. Raises PlatformError."""
    try:
        system.mount("none", "/", "none", system.MS_REC | system.MS_PRIVATE)
        system.mount("proc", "/proc", "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)
        system.mount("tmpfs", "/run", "tmpfs", system.MS_NOSUID | system.MS_NODEV, "mode=755")
    except OSError as error:
        raise PlatformError(
            f"the capsule cannot mount its own /proc and /run ({error})",
            "in a chroot bind-mount its root onto itself first; in a container give it the right to mount",
        ) from error
    RUN.mkdir()


def _forward_to(pid: int) -> None:
    def forward(number: int, _: FrameType | None) -> None:
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(pid, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _FORWARDED)


def _wait(wanted: int) -> int:
    """Reap children until `wanted` has ended; its wait status."""
    while True:
        pid, status = os.wait()
        if pid == wanted:
            return status


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
