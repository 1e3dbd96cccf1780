"""Hands frames between two TAP-like ends, as a virtual machine monitor does; runs as a script, outside of both.

    tap_forwarder.py END END      END: tap:PID:NAME[:MAC] makes a TAP device in the namespace of that process,
                                  file:PATH opens a macvtap's character device

It prints "ready" and ends with its input. No end has a virtio header, so the kernel finishes checksums and segments.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys

# linux/if_tun.h; sched.h.
TUNSETIFF, IFF_TAP, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0002, 0x1000, 0x40000000
ROOM, TURN = 1 << 16, 64


def tap(pid: str, name: str, *mac: str) -> int:
    """A TAP device is of the namespace in which its file was opened."""
    libc, home = ctypes.CDLL(None, use_errno=True), os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    if libc.setns(there, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"setns to the namespace of {pid}")
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
    if mac:
        subprocess.run(["ip", "link", "set", "dev", name, "address", ":".join(mac)], check=True)
    libc.setns(home, CLONE_NEWNET)
    os.close(there)
    os.close(home)
    return fd


def opened(end: str) -> int:
    """Either kind."""
    kind, _, rest = end.partition(":")
    if kind == "tap":
        return tap(*rest.split(":"))
    fd = os.open(rest, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", b"", IFF_TAP | IFF_NO_PI))  # without the virtio header
    return fd


def forward(one: int, two: int) -> None:
    """For ever; some frames at a time of each end."""
    poll, other = select.poll(), {one: two, two: one}
    for fd in (one, two, 0):
        poll.register(fd, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == 0:
                if not os.read(0, 64):
                    return
                continue
            for _ in range(TURN):
                try:
                    os.write(other[fd], os.read(fd, ROOM))
                except OSError:  # nothing more for now, or the other end has no room or is down: lost, as on a wire
                    break


if __name__ == "__main__":
    ends = [opened(end) for end in sys.argv[1:]]
    print("ready", flush=True)
    forward(*ends)
