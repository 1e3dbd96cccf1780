"""Makes the machine's image (kernel, initial RAM disk, read-only root) once; notices one that is not whole."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vm import VmError, checkout
from vm.recipe import INIT, INITRD, KERNEL, SOURCE, VENV, Recipe, bootstrap, virtual_environment

# A squashfs. Whatever is written in the machine lies over it in memory and is gone with the machine.
ROOT = "root.squashfs"
# Written last: the recipe's key and what the image's files must be.
STAMP = "made.json"
# What this machine trusts: pip may reach its index only through something that Debian's own list does not have.
TRUST = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True, slots=True)
class Image:
    """The files that a machine boots from."""

    kernel: Path
    initrd: Path
    root: Path


def ready(folder: Path, key: str) -> bool:
    """Whether a whole image of this recipe lies there; one that was changed or cut off is not."""
    try:
        return bool(json.loads((folder / STAMP).read_text()) == _stamp(folder, key))
    except (OSError, ValueError):
        return False


def made(recipe: Recipe, source: Path, cache: Path) -> Image:
    """The recipe's image, built if there is none; waits while another process builds it. Raises VmError."""
    folder, partial = cache / recipe.release, cache / f"{recipe.release}.partial"
    with _alone(cache / f"{recipe.release}.lock"):
        if not ready(folder, recipe.key()):
            _remove(partial)
            partial.mkdir()
            print(f"making the image of a Debian machine ({recipe.release}) in {folder}: some minutes", flush=True)
            _build(recipe, source, partial)
            (partial / STAMP).write_text(json.dumps(_stamp(partial, recipe.key())))
            _remove(folder)
            partial.rename(folder)
    return Image(folder / KERNEL, folder / INITRD, folder / ROOT)


def _build(recipe: Recipe, source: Path, folder: Path) -> None:
    """Two programs joined by a pipe: one makes the tree and archives it, one makes a file system of the archive."""
    missing = [name for name in ("mmdebstrap", "tar2sqfs") if shutil.which(name) is None]
    if missing:
        raise VmError(f"{' and '.join(missing)} not found: sudo make vm installs what it needs")
    (folder / INIT).write_text(recipe.init)
    (folder / VENV).write_text(virtual_environment(recipe))
    checkout.pack(source, folder / SOURCE)
    trust = TRUST if TRUST.exists() else None
    # As root the tree is built here; in a user namespace it belongs to users who may not enter a home.
    root = os.getuid() == 0
    scratch = {"TMPDIR": str(folder)} if root else {}
    # Whoever ends us ends all that installs packages too, and its mounts (in a user namespace that is so by itself).
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"] if root else []
    log = folder.with_suffix(".log")
    environment = os.environ | scratch | ({"PIP_CERT": str(trust)} if trust else {})
    with log.open("w") as output:
        tree = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *alone, *bootstrap(recipe, folder, trust)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            env=environment,
        )
        # Quick to read rather than small: an emulated processor unpacks it.
        pack = ["tar2sqfs", "-q", "-c", "lz4", str(folder / ROOT)]
        try:
            packed = subprocess.run(pack, stdin=tree.stdout, stdout=output, stderr=output, check=False)
        except BaseException:
            tree.kill()
            raise
        if tree.wait() != 0 or packed.returncode != 0:
            last = "\n".join(log.read_text().splitlines()[-12:])
            raise VmError(f"no image could be made; the end of {log}:\n{last}")
    for done in (INIT, VENV, SOURCE):
        (folder / done).unlink()


def _remove(folder: Path) -> None:
    """An image, or what an interrupted build left; should the kernel still have something mounted there, that stays."""
    subprocess.run(["rm", "-rf", "--one-file-system", str(folder)], check=True)


def _stamp(folder: Path, key: str) -> dict[str, object]:
    sums = {}
    for name in (KERNEL, INITRD, ROOT):
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return {"key": key, "files": sums}


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time; the kernel lets the lock go when its holder dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another process makes the image: waiting for it", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
