"""`python tests/ordinary_user.py COMMAND ...` runs it in the checkout as an ordinary user: as you, if you are one.

Root becomes who called sudo, or else nobody, in a mount namespace of its own in which that user can open /dev/net/tun,
as on most machines (udev's 50-udev-default.rules), and can reach this checkout and its Python wherever root keeps them.
"""

from __future__ import annotations

import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from topo import system

ROOT = Path(__file__).parents[1]
NOBODY = 65534
TUN = Path("/dev/net/tun")
MS_BIND = 0x1000


def main(command: list[str]) -> None:
    """Become the user, then the command. Raises OSError."""
    if os.getuid() == 0:
        uid, gid = (int(os.environ.get(name, 0)) or NOBODY for name in ("SUDO_UID", "SUDO_GID"))
        system.unshare(system.CLONE_NEWNS)
        system.mount("none", "/", "none", system.MS_REC | system.MS_PRIVATE)
        os.setgroups([])
        _reach({ROOT, Path(sys.prefix), Path(sys.base_prefix).resolve()}, uid, gid)
        _open_tun(uid, gid)
        os.setgid(gid)
        os.setuid(uid)
        entry = pwd.getpwuid(uid)
        # As login(1) sets them; the PATH is Debian's (login.defs(5), ENV_PATH).
        os.environ |= {"USER": entry.pw_name, "LOGNAME": entry.pw_name, "HOME": entry.pw_dir}
        os.environ["PATH"] = "/usr/local/bin:/usr/bin:/bin"
        for name in ("SUDO_UID", "SUDO_GID", "SUDO_USER", "TMPDIR"):
            os.environ.pop(name, None)
        os.chdir(ROOT)  # by its path, which may lead elsewhere now
        os.umask(0o022)
    os.execvp(command[0], command)


@contextmanager
def _as(uid: int, gid: int) -> Iterator[None]:
    """What is tried inside is tried with that user's rights."""
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def _reach(folders: Iterable[Path], uid: int, gid: int) -> None:
    """Where the user may not enter a folder above these, put an empty one with nothing but these over it."""
    above: dict[Path, list[tuple[Path, int]]] = {}
    with _as(uid, gid):
        shut = {
            folder: next((x for x in reversed(folder.parents) if not os.access(x, os.X_OK, effective_ids=True)), None)
            for folder in folders
        }
    for folder, closed in shut.items():
        if closed is not None:
            above.setdefault(closed, []).append((folder, os.open(folder, os.O_PATH)))
    for closed, held in above.items():
        system.mount("tmpfs", str(closed), "tmpfs", system.MS_NOSUID | system.MS_NODEV, "mode=755")
        for folder, fd in sorted(held):
            folder.mkdir(parents=True, exist_ok=True)
            system.mount(f"/proc/self/fd/{fd}", str(folder), "none", MS_BIND | system.MS_REC)
            os.close(fd)


def _open_tun(uid: int, gid: int) -> None:
    """Where the user may not open the device, put a folder with one that all may open over its own."""
    with _as(uid, gid):
        if not TUN.exists() or os.access(TUN, os.R_OK | os.W_OK, effective_ids=True):
            return
    number = TUN.stat().st_rdev
    system.mount("tmpfs", str(TUN.parent), "tmpfs", system.MS_NOSUID, "mode=755")
    os.mknod(TUN, stat.S_IFCHR, number)
    TUN.chmod(0o666)


if __name__ == "__main__":
    main(sys.argv[1:])
