"""What real clients get from real servers: a file by curl (HTTP, FTP) and scp, requests a second by wrk."""

from __future__ import annotations

import re

from scenarios.measure.fileservers import FILE, PORTS, SMALL, USER, Folder
from scenarios.measure.place import Place, ProgramError, run
from scenarios.measure.suite import Run

PATIENCE = 60.0
CONNECTIONS = 8  # that wrk keeps busy
# Seconds that wrk asks. It is told more and interrupted, upon which it tells what it has: it takes whole seconds only.
ASKING = 0.6
_TIMES = "%{time_pretransfer} %{time_total} %{size_download}"
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_ERRORS = re.compile(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)|Non-2xx.*: (\d+)")
_RECEIVED = re.compile(r"Transferred: sent \d+, received (\d+) bytes")
_BYTES_A_SECOND = re.compile(r"Bytes per second: sent [\d.]+, received ([\d.]+)")


def by_curl(client: Place, address: str, kind: str) -> Run:
    """The file over "http" or "ftp": bit/s from the moment the transfer was about to begin (curl(1), --write-out)."""
    url = f"{kind}://{address}:{PORTS[kind]}/{FILE}"
    argv = ["curl", "-q", "-sS", "--noproxy", "*", "-m", f"{PATIENCE:g}", "-o", "/dev/null", "-w", _TIMES, url]
    return Run((curl_rate(run(client, argv, PATIENCE + 5)),))


def curl_rate(text: str) -> float:
    """Bit/s of what curl wrote."""
    began, ended, size = map(float, text.split())
    return size * 8 / (ended - began)


def by_scp(client: Place, address: str, folder: Folder) -> Run:
    """The file over SSH: bit/s of its own bytes, by ssh's clock, which begins when the user is logged in."""
    options = {
        "StrictHostKeyChecking": "no",
        "UserKnownHostsFile": "/dev/null",
        "IdentitiesOnly": "yes",
        "BatchMode": "yes",
        "ConnectTimeout": "5",
    }
    told = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    source = f"{USER}@{address}:{folder.path / FILE}"
    # What ssh has to say of the transfer it says on standard error.
    argv = ["scp", "-v", "-F", "none", "-i", str(folder.key), "-P", str(PORTS["scp"]), *told, source, "/dev/null"]
    return Run((scp_rate(run(client, ["sh", "-c", 'exec "$@" 2>&1', "sh", *argv], PATIENCE), folder.size),))


def scp_rate(text: str, size: int) -> float:
    """Bit/s of the file, of which ssh said how many bytes it received with all of SSH's own."""
    received, rate = _RECEIVED.search(text), _BYTES_A_SECOND.search(text)
    if received is None or rate is None or int(received[1]) < size:
        raise ProgramError(f"scp: did not transfer the file: {text.strip()[-400:]}")
    return float(rate[1]) * 8 * size / int(received[1])


def by_wrk(client: Place, address: str, *, keep: bool) -> Run:
    """Requests a second over some connections at a time. keep: connections stay open; else each request opens one."""
    argv = ["timeout", "--signal=INT", f"{ASKING:g}", "wrk", "-t", "1", "-c", str(CONNECTIONS), "-d", "60s"]
    argv += [] if keep else ["-H", "Connection: close"]
    return wrk_run(run(client, [*argv, f"http://{address}:{PORTS['http']}/{SMALL}"], PATIENCE, check=False))


def wrk_run(text: str) -> Run:
    """What wrk printed; ProgramError if nothing was answered."""
    rate = _RATE.search(text)
    if rate is None or float(rate[1]) == 0:
        raise ProgramError(f"wrk: nothing was answered: {text.strip()[-400:]}")
    lost = sum(int(count) for groups in _ERRORS.findall(text) for count in groups if count)
    return Run((float(rate[1]),), lost)
