"""What goes into an image of the virtual machine, how, and the number that says whether one is still right. Pure."""

from __future__ import annotations

import configparser
import hashlib
import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Debian's releases that are tried: Python 3.11 and Open vSwitch 3.1; Python 3.13 and Open vSwitch 3.5.
RELEASES = ("bookworm", "trixie")
# What the machine itself needs: a kernel, what finds its disk, and trust for pip while the image is made.
SYSTEM = ("ca-certificates", "initramfs-tools", "linux-image-amd64")
# The initial RAM disk holds these and nothing else, for it may be unpacked by an emulated processor.
INITIAL_MODULES = ("virtio_pci", "virtio_blk", "squashfs")
# Documentation, translations, and drivers of hardware that a virtual machine cannot have: a third of the disk.
LEFT_OUT = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    *(
        f"/lib/modules/*/kernel/{part}/*"
        for part in ("sound", "drivers/gpu", "drivers/media", "drivers/net/wireless", "drivers/net/ethernet")
    ),
)
# Where the checkout lies in the machine, with its virtual environment.
CHECKOUT = "/mininetes"
# What the build takes from its folder and leaves there.
INIT, VENV, SOURCE, KERNEL, INITRD = "init", "venv", "checkout.tar", "vmlinuz", "initrd"


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that an image depends on. The project's code is not part of it: that goes in at every boot.

    packages: of the distribution; build, requirements: of Python, the former before the latter.
    init: text of the machine's first program.
    """

    release: str
    packages: tuple[str, ...]
    build: tuple[str, ...]
    requirements: tuple[str, ...]
    init: str

    def key(self) -> str:
        """A hash of all that is done to make it: other recipes have other keys."""
        done = [bootstrap(self, Path(), None), virtual_environment(self), self.init]
        return hashlib.sha256(json.dumps(done).encode()).hexdigest()


def recipe(release: str, packages: Sequence[str], build: Sequence[str], setup: str, init: str) -> Recipe:
    """From the Makefile's packages, the text of setup.cfg, and the text of the first program.

    Raises ValueError for a release that is not known.
    """
    if release not in RELEASES:
        raise ValueError(f"VM_RELEASE={release}: expected {' or '.join(RELEASES)}")
    parsed = configparser.ConfigParser()
    parsed.read_string(setup)
    lines = parsed["options"]["install_requires"] + "\n" + parsed["options.extras_require"]["test"]
    wanted = tuple(line.strip() for line in lines.splitlines() if line.strip() and not line.strip().startswith("#"))
    return Recipe(release, tuple(sorted({*SYSTEM, *packages})), tuple(build), wanted, init)


def bootstrap(recipe: Recipe, folder: Path, trust: Path | None) -> list[str]:
    """The command that writes the root's archive to standard output, and kernel and RAM disk into the folder.

    trust: certificates to trust besides Debian's while the image is made.
    """
    modules = " ".join(INITIAL_MODULES)
    here = {name: shlex.quote(str(folder / name)) for name in (INIT, VENV, SOURCE, KERNEL, INITRD)}
    hooks = [
        # The RAM disk is made as packages are set up; it must know by then what goes into it.
        ("essential", 'mkdir -p "$1/etc/initramfs-tools/conf.d"'),
        ("essential", f'printf "%s\\n" {modules} > "$1/etc/initramfs-tools/modules"'),
        ("essential", 'echo MODULES=list > "$1/etc/initramfs-tools/conf.d/vm"'),
        ("customize", f"upload {here[INIT]} /sbin/vm-init"),
        ("customize", f'chmod 755 "$1/sbin/vm-init" && mkdir -p "$1{CHECKOUT}"'),
        ("customize", f"tar-in {here[SOURCE]} {CHECKOUT}"),
        ("customize", f"upload {here[VENV]} {CHECKOUT}/venv"),
        *([("customize", f"upload {trust} {trust}")] if trust else []),
        ("customize", f'chroot "$1" bash {CHECKOUT}/venv'),
        ("customize", f"download /vmlinuz {here[KERNEL]}"),
        ("customize", f"download /initrd.img {here[INITRD]}"),
        ("customize", 'rm -rf "$1"/boot/* "$1/root/.cache"'),
    ]
    return [
        "mmdebstrap",
        "--variant=minbase",
        f"--include={' '.join(recipe.packages)}",
        "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude={path}" for path in LEFT_OUT),
        *(f"--{when}-hook={command}" for when, command in hooks),
        recipe.release,
        "-",
    ]


def virtual_environment(recipe: Recipe) -> str:
    """The script that makes it in the image, with the release's own Python; the code goes again after that."""
    pip = ".venv/bin/pip install -q --disable-pip-version-check"
    return "\n".join(
        [
            "set -e",
            f"cd {CHECKOUT}",
            "python3 -m venv .venv",
            f"{pip} {shlex.join(recipe.build)}",
            f"{pip} --no-build-isolation {shlex.join(recipe.requirements)}",
            f"{pip} --no-build-isolation --no-deps -e .",
            "find . -mindepth 1 -maxdepth 1 ! -name .venv -exec rm -rf {} +",
            "",
        ]
    )
