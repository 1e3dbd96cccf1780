"""Boots the machine for one command or one shell, and gives back its status. Nothing of it is left afterwards."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vm import VmError, checkout
from vm.image import Image

# A kernel that runs at all is there within this; an emulated one on a busy machine too.
BOOTED_WITHIN = 180
# A kernel without a root panics within two seconds where KVM works; where it does not, it hangs or is refused.
PROBED_WITHIN = 8
# What the machine may take, after its command's time is up, to take labs down and hand its results back.
GRACE = 300
# Python's and the shell's own status for a program that was ended because its time was up (timeout(1)).
TIMED_OUT = 124
# What the machine runs once it is up; not part of the image, so that it may change without a new one.
MAIN = Path(__file__).with_name("main")
DEVICE = Path("/dev/kvm")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Processor:
    """What runs the machine's instructions. slowness: how much longer things take than outside; options: of qemu."""

    name: str
    slowness: int
    options: tuple[str, ...]
    kernel: str = ""


KVM = Processor("KVM", 1, ("-accel", "kvm", "-cpu", "host"))
# Its clock is the counter of the processor outside, which all emulated processors read alike; what Linux would choose
# instead is a device, and each look at the time twenty times as dear.
EMULATED = Processor("emulation", 10, ("-accel", "tcg,thread=multi", "-cpu", "max"), "tsc=reliable clocksource=tsc")


def quick(image: Image, cache: Path) -> Processor:
    """KVM if this machine really runs Linux with it (that /dev/kvm opens says little), else emulation; says which.

    Tried once, until this machine boots again.
    """
    known = cache / "kvm"
    boot = BOOT_ID.read_text().strip()
    words = known.read_text().split(maxsplit=1) if known.exists() else []
    if words[:1] != [boot]:
        words = [boot, _without_kvm(image)]
        known.write_text(" ".join(words))
    if len(words) == 1 or not words[1]:
        return KVM
    print(f"no KVM ({words[1]}): plain emulation, about {EMULATED.slowness} times slower", flush=True)
    return EMULATED


def _without_kvm(image: Image) -> str:
    """Why KVM cannot be used here; empty if it can."""
    try:
        with DEVICE.open("r+b"):
            pass
    except OSError as error:
        return f"{DEVICE}: {error.strerror}"
    probe = qemu(KVM, image.kernel, 256, 1, "panic=-1")
    try:
        done = subprocess.run(probe, timeout=PROBED_WITHIN, capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired:
        return "a kernel hangs in it"
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["qemu failed"])[0]


def qemu(processor: Processor, kernel: Path, megabytes: int, cpus: int, append: str, *more: str) -> list[str]:
    """The command of a machine without network, screen or firmware settings, which ends where it would boot again."""
    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-no-reboot", "-machine", "q35", *processor.options),
        *("-m", str(megabytes), "-smp", str(cpus), "-display", "none", "-kernel", str(kernel)),
        *("-append", f"{append} {processor.kernel}".strip(), *more),
    ]


def whole(processor: Processor, image: Image, job: Path, megabytes: int, cpus: int) -> list[str]:
    """The command of the machine: its disk, a shared folder, a terminal that is ours, a console that is a file."""
    append = "root=/dev/vda rootfstype=squashfs ro init=/sbin/vm-init console=ttyS0 panic=-1 mitigations=off quiet"
    return qemu(
        *(processor, image.kernel, megabytes, cpus, append, "-initrd", str(image.initrd)),
        *("-drive", f"file={image.root},if=virtio,format=raw,readonly=on"),
        *("-virtfs", f"local,path={job},mount_tag=job,security_model=none"),
        *("-chardev", "stdio,id=terminal,signal=off", "-device", "virtio-serial-pci"),
        *("-device", "virtconsole,chardev=terminal", "-serial", f"file:{job}/console"),
    )


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine that can be booted: from an image, with the files of a checkout."""

    image: Image
    processor: Processor
    source: Path
    cache: Path
    megabytes: int
    cpus: int

    def run(self, command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> int:
        """Run a command in the checkout; its output is ours, and its status, or TIMED_OUT. Raises VmError."""
        with _job_folder(self.cache) as job:
            # As Ctrl-C would end it: pytest still writes its report, a scenario takes its lab down.
            limited = ["timeout", "--signal=INT", f"--kill-after={GRACE // 2}", str(seconds), *command]
            (job / "command").write_text(f"exec {shlex.join(limited)}\n")
            return self._boot(job, environment, subprocess.DEVNULL, seconds)

    def shell(self, environment: Mapping[str, str]) -> int:
        """A prompt in the checkout, on our terminal; its status."""
        if not sys.stdin.isatty():
            raise VmError("a shell needs a terminal")
        size = shutil.get_terminal_size()
        before = termios.tcgetattr(sys.stdin)
        with _job_folder(self.cache) as job:
            more = {"LINES": str(size.lines), "COLUMNS": str(size.columns)}
            try:
                return self._boot(job, {**environment, **more}, None, None)
            finally:
                termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)

    def _boot(self, job: Path, environment: Mapping[str, str], stdin: int | None, seconds: float | None) -> int:
        checkout.pack(self.source, job / "checkout.tar")
        shutil.copy(MAIN, job / "main")
        (job / "environment").write_text("".join(f"{k}={shlex.quote(v)}\n" for k, v in environment.items()))
        began = time.monotonic()
        # The machine dies with us, however we die. One for a command has a session of its own: Ctrl-C reaches us alone.
        command = whole(self.processor, self.image, job, self.megabytes, self.cpus)
        running = subprocess.Popen(
            ["setpriv", "--pdeathsig=KILL", *command],
            stdin=stdin,
            start_new_session=stdin is not None,
        )
        try:
            while not (job / "booted").exists():
                if running.poll() is not None or time.monotonic() > began + BOOTED_WITHIN:
                    raise VmError(f"the machine did not boot; the end of its console:\n{_tail(job / 'console')}")
                time.sleep(0.1)
            print(f"booted in {time.monotonic() - began:.0f} s ({self.processor.name})", flush=True)
            running.wait(None if seconds is None else seconds + GRACE)
        except subprocess.TimeoutExpired:
            print(f"the machine did not end within {GRACE} s after its time was up", file=sys.stderr)
            return TIMED_OUT
        finally:
            running.kill()
            running.wait()
        if (job / "back.tar").exists():
            checkout.unpack(job / "back.tar", self.source)
        try:
            return int((job / "exit").read_text())
        except FileNotFoundError:
            raise VmError(f"the machine broke down; the end of its console:\n{_tail(job / 'console')}") from None


@contextmanager
def _job_folder(cache: Path) -> Iterator[Path]:
    """A folder to share with one machine; those of processes that are no more go first."""
    for old in cache.glob("run-*"):
        if not Path("/proc", old.name.split("-")[1]).exists():
            shutil.rmtree(old)
    with tempfile.TemporaryDirectory(prefix=f"run-{os.getpid()}-", dir=cache) as folder:
        yield Path(folder)


def _tail(console: Path) -> str:
    return "\n".join(console.read_text(errors="replace").splitlines()[-15:]) if console.exists() else "(nothing)"
