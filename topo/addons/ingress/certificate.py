"""Self-signed certificates: what a host without a certificate of its own is served with."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

from topo.addons.ingress.routes import Certificate

DEFAULT_NAME = "mininetes default certificate"
_BLOCK = r"-----BEGIN {0}-----.*?-----END {0}-----\n"


def self_signed(common_name: str, hosts: Sequence[str]) -> Certificate:
    """A certificate for these DNS names and its key (ECDSA P-256), valid for a year. Raises CalledProcessError."""
    names = ",".join(f"DNS:{host}" for host in hosts)
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "365", "-subj", f"/CN={common_name}", "-addext", f"subjectAltName={names}"]
    command += ["-keyout", "/dev/stdout"]  # the certificate goes there too, so that no key is on a disk
    text = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout
    chain, key = (re.search(_BLOCK.format(kind), text, re.DOTALL) for kind in ("CERTIFICATE", "PRIVATE KEY"))
    assert chain and key
    return Certificate(chain[0], key[0])
