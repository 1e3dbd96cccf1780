"""One lab's capsule: a user (if not root), network, PID and mount namespace that takes everything with it when it ends.

    caller (outside) -- waits, forwards signals
      +- init  PID 1 of the capsule: reaps orphans; when it ends, the kernel ends every process of the capsule
           +- the lab

Killing any of the three with SIGKILL leaves nothing: the caller's death reaches init by the parent-death signal, the
lab's death ends init, and namespaces, interfaces and the private /run go with the last process.

A terminal sends its signals to all three, and so does killpg(2); a supervisor signals the caller alone. The lab shall
hear each once, so the caller passes signals on as others (_PASSED_ON), and init compares: what it got itself too, the
lab got as well.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

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
    _flush()  # else each process that is forked would print what waits
    # Blocked from here on and taken one by one: no signal may kill init's parent alone.
    signal.pthread_sigmask(signal.SIG_BLOCK, _ALL)
    # Init sees the caller's end as its own; it cannot ask for its parent, who is outside its process namespace.
    alive, life = os.pipe()
    init = os.fork()
    if init == 0:
        os.close(life)
        system.die_with_parent(signal.SIGKILL)
        if select.select([alive], [], [], 0)[0]:  # the caller died before that was asked for
            os._exit(1)
        os.close(alive)
        _init(main)
    os.close(alive)
    try:
        return _exit_status(_pass_on(init))
    finally:
        os.close(life)


_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# As what the caller passes each on to init, which must tell it from one of its own.
_PASSED_ON: dict[int, int] = {number: signal.SIGRTMIN + 8 + i for i, number in enumerate(_FORWARDED)}
_ALL = (signal.SIGCHLD, *_FORWARDED, *_PASSED_ON.values())
# How long init waits for the caller to pass on what it got itself, before it takes the signal for its own alone (s).
_PATIENCE = 0.3


def _map_to_root(uid: int, gid: int) -> None:
    """Make the user root inside (user_namespaces(7): setgroups must be denied before gid_map may be written)."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
    Path("/proc/self/gid_map").write_text(f"0 {gid} 1")


# What may forbid an ordinary user to make namespaces: Debian's and Ubuntu's settings and the kernel's limit
# (user_namespaces(7), namespaces(7)), each with the value that does and the one that does not.
_SETTINGS = {
    "kernel.unprivileged_userns_clone": ("0", "1"),
    "kernel.apparmor_restrict_unprivileged_userns": ("1", "0"),
    "user.max_user_namespaces": ("0", "10000"),
}


def remedy(settings: Path = Path("/proc/sys")) -> str:
    """What would let an ordinary user make namespaces: the settings that forbid it, or all if none is seen to."""
    forbids = [
        f"{name}={value}"
        for name, (closed, value) in _SETTINGS.items()
        if (file := settings / name.replace(".", "/")).exists() and file.read_text().strip() == closed
    ]
    each = "" if forbids else " (each where it exists)"
    return f"run with sudo, or sudo sysctl {' '.join(forbids or (f'{n}={v}' for n, (_, v) in _SETTINGS.items()))}{each}"


def _refused(error: OSError) -> PlatformError:
    if error.errno in (errno.EPERM, errno.ENOSPC, errno.EACCES):
        return PlatformError("this user may not make namespaces", remedy())
    return PlatformError(f"namespaces cannot be made ({error})", "a Linux kernel with NET_NS, PID_NS and USER_NS")


def _init(main: Callable[[], int]) -> None:
    """PID 1: mounts, forks the lab, reaps until the lab ends. Never returns."""
    status = 1
    try:
        _private_mounts()
        lab = os.fork()
        if lab == 0:
            system.die_with_parent(signal.SIGKILL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _ALL)
            status = main()
        else:
            status = _exit_status(_compare_and_pass_on(lab))
    except PlatformError as error:
        print(f"mininetes: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        status = 130
    except BaseException:  # a forked process must not fall back into its parent's code
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _flush() -> None:
    """Print what waits. Nobody may be left to read it, which must not keep a process from ending."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


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


def _pass_on(init: int) -> int:
    """The caller's part: what it is sent goes to init. The wait status of init, once that has ended."""
    while (status := _reaped(init)) is None:
        number = _next_signal(None)
        if number in _PASSED_ON:
            _send(init, _PASSED_ON[number])
    return status


def _compare_and_pass_on(lab: int) -> int:
    """Init's part: the lab gets what was sent to the caller alone or to init alone, not what went to all three.

    What went to all three has reached init before the caller can pass it on, and is taken first, for its number is
    lower (signal(7)). The wait status of the lab, once that has ended.
    """
    originals = {passed: number for number, passed in _PASSED_ON.items()}
    own: set[int] = set()
    deadline = 0.0
    while (status := _reaped(lab)) is None:
        number = _next_signal(max(0.0, deadline - time.monotonic()) if own else None)
        if number is None:
            while own:
                _send(lab, own.pop())
        elif number in _PASSED_ON:
            own.add(number)
            deadline = time.monotonic() + _PATIENCE
        elif number in originals:
            if originals[number] in own:
                own.discard(originals[number])  # sent to all three
            else:
                _send(lab, originals[number])
    return status


def _next_signal(timeout: float | None) -> int | None:
    """The next of the blocked signals, or None after that time (s).

    Not by handlers: Python runs those between two instructions, so that one which comes just before a system call that
    waits would be noticed only after it.
    """
    found = signal.sigwaitinfo(_ALL) if timeout is None else signal.sigtimedwait(_ALL, timeout)
    return None if found is None else found.si_signo


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):  # it has just ended by itself
        os.kill(pid, number)


def _reaped(wanted: int) -> int | None:
    """Reap all children that have ended; the wait status of `wanted` if it was among them."""
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid in (0, wanted):
            return status if pid else None


def _exit_status(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code
