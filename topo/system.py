"""Linux calls that Python 3.11 does not offer (unshare, setns, mount ...), ends of processes, and kinds of devices."""

from __future__ import annotations

import ctypes
import os
import select
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x4000, 0x40000
_PR_SET_PDEATHSIG = 1

# Where tc, ovs-vswitchd and nginx are; Debian's ordinary users have none of it in PATH (login.defs(5), ENV_PATH).
_SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin")

_libc = ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _call("unshare", flags)


def setns(fd: int, kind: int) -> None:
    """setns(2) for the calling thread. Raises OSError."""
    _call("setns", fd, kind)


def mount(source: str, target: str, kind: str, flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError."""
    _call("mount", source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())


def die_with_parent(signal: int) -> None:
    """Ask for `signal` when the thread that forked this process ends (prctl(2))."""
    _call("prctl", _PR_SET_PDEATHSIG, ctypes.c_ulong(signal), 0, 0, 0)


@contextmanager
def inside(place: int | str) -> Iterator[None]:
    """Run the block with this thread in a network namespace; other threads stay where they are.

    place: a process in it, or the path of a file that stands for it.
    """
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        path = place if isinstance(place, str) else f"/proc/{place}/ns/net"
        there = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(there, CLONE_NEWNET)
        finally:
            os.close(there)
        try:
            yield
        finally:
            setns(here, CLONE_NEWNET)
    finally:
        os.close(here)


def in_own_network(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program in a network namespace of its own, which goes with it; status 127 if it cannot be run."""
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    try:
        return subprocess.run(["unshare", *user, "--net", *command], capture_output=True, text=True, check=False)
    except OSError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


@lru_cache
def has_device(kind: str) -> bool:
    """Whether the kernel has devices of this kind (ip-link(8)), found by making one."""
    return in_own_network(["ip", "link", "add", "probe", "type", kind, *_NEEDED.get(kind, ())]).returncode == 0


# What some kinds want to be told. A namespace may have an ipip device (tunl0) from the start, whose addresses are none.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    "vxlan": ("id", "1", "dstport", "4789"),
    "ipip": ("local", "192.0.2.1"),
}


def here_or_root(pid: int) -> str:
    """The caller's folder, or / where that process does not see it: mnexec could not go back to it there."""
    here = os.readlink("/proc/self/cwd")  # noqa: PTH115 - unlike getcwd(3) it has a name for a folder that was removed
    return here if os.path.isdir(f"/proc/{pid}/root{here}") else "/"  # noqa: PTH112


def find_system_programs() -> None:
    """Have this process and its children find them, whatever their user's PATH."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(dict.fromkeys((*path, *_SYSTEM_PROGRAMS)))


def wait_end(number: int, seconds: float | None = None) -> bool:
    """Until the process has ended, whoever started it (pidfd_open(2)); False if it has not within so many seconds."""
    try:
        fd = os.pidfd_open(number)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], seconds)[0])
    finally:
        os.close(fd)
