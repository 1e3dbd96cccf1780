"""Reading what curl, scp and wrk print, what servers are told, and whether one listens."""

from __future__ import annotations

from pathlib import Path

import pytest

from scenarios.measure import fileservers
from scenarios.measure.downloads import curl_rate, scp_rate, wrk_run
from scenarios.measure.place import ProgramError
from topo import platform
from topo.cluster.errors import PlatformError

SCP = """debug1: Exit status 0
debug1: Requesting file
Transferred: sent 5844, received 8009312 bytes, in 0.2 seconds
Bytes per second: sent 25434.6, received 34858620.1
debug1: Exit status 0
"""
WRK = """Running 10s test @ http://127.0.0.1:8088/small
  1 threads and 8 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     0.90ms    1.43ms  16.56ms   92.40%
    Req/Sec     7.69k     1.83k    8.97k    83.33%
  4606 requests in 602.81ms, 647.72KB read
{more}Requests/sec:   7640.92
Transfer/sec:      1.05MB
"""
LISTENS = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:08AE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 75527440 1 0 100 0 0 10 0
   1: 0100007F:0849 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 75527421 1 0 100 0 0 10 0
"""


def test_a_download_is_timed_from_where_the_transfer_begins() -> None:
    assert curl_rate("0.202 1.202 8000000") == pytest.approx(64e6)


def test_of_scp_the_files_own_bytes_count() -> None:
    assert scp_rate(SCP, 8000000) == pytest.approx(34858620.1 * 8 * 8000000 / 8009312)
    with pytest.raises(ProgramError, match="Permission denied"):
        scp_rate("nobody@10.0.0.1: Permission denied (publickey).", 8000000)
    with pytest.raises(ProgramError, match="did not transfer"):
        scp_rate(SCP, 9000000)  # it ended early


def test_requests_and_errors_of_wrk() -> None:
    assert wrk_run(WRK.format(more="")).values == (7640.92,) and wrk_run(WRK.format(more="")).lost == 0
    errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 5\n"
    assert wrk_run(WRK.format(more=errors)).lost == 15
    with pytest.raises(ProgramError, match="unable to connect"):
        wrk_run("unable to connect to 10.0.0.1:8088 Connection refused")


def test_a_connection_at_the_port_is_no_listener() -> None:
    assert fileservers.is_listening(LISTENS, 0x08AE)
    assert not fileservers.is_listening(LISTENS, 0x0849)
    assert not fileservers.is_listening(LISTENS, 80)


@pytest.mark.parametrize("kind", fileservers.PORTS)
def test_a_server_is_told_its_own_place_alone(kind: str) -> None:
    text = fileservers.CONFIGURATIONS[kind]("10.244.2.2", Path("/run/b"), Path("/run/b/own"))
    assert "10.244.2.2" in text and str(fileservers.PORTS[kind]) in text and "/etc" not in text and "/var" not in text


def test_what_is_not_installed_is_said_with_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"nginx", "curl", "scp", "ssh-keygen"}
    monkeypatch.setattr(platform.shutil, "which", lambda name: name if name in there else None)
    with pytest.raises(PlatformError, match="downloads need openssh-server, vsftpd, wrk"):
        platform.require_downloads()
