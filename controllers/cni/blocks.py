"""What a node tells others of its pods' addresses: its pod CIDR, the blocks in use, or each address; pure.

Source: Calico, "IP pool" (blockSize, 26 by default) and "About IP addresses": a node takes a block of addresses when
it first needs one and announces blocks, not pods; an address outside of its blocks is announced by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network

from controllers.flow.fields import ip_text

BLOCK_SIZE = 26
# The option "routes".
CHOICES = ("node", "block", "pod")


def announced(kind: str, pod_cidr: str, addresses: Iterable[int], block_size: int = BLOCK_SIZE) -> Sequence[str]:
    """Prefixes, in order. addresses: of the node's pods. A pod CIDR smaller than a block is one block."""
    if kind == "node":
        return (pod_cidr,)
    length = 32 if kind == "pod" else max(block_size, int(pod_cidr.partition("/")[2]))
    mask = int(IPv4Network((0, length)).netmask)
    return [f"{ip_text(start)}/{length}" for start in sorted({address & mask for address in addresses})]
