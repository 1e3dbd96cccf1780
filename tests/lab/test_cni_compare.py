"""The scenarios that compare pod networks, each in few labs."""

from __future__ import annotations

from pathlib import Path

from running import scenario


def test_cni_traits_shows_what_is_said_beside_what_is_found(tmp_path: Path) -> None:
    found = scenario(tmp_path, "cni-traits", "cnis=flannel udp,docker,conflist")
    said, measured, matrix = (table["rows"] for table in found["tables"])
    assert [row[0] for row in said] == ["flannel udp", "docker bridge", "conflist host-gw"]
    udp, docker, left_out = measured
    assert udp[1:8] == ["1472", "1472", "1472", "ip:udp", "ip:udp", "28", "28"] and " > flannel0 > " in udp[8]
    is_there = not docker[1].startswith("left out: ")  # it needs br_netfilter in the kernel
    assert not is_there or docker[1:] == ["1500", "1500", *["-"] * 6]
    # No folder with the user's own plugins was given.
    assert left_out[1].startswith("left out: ") and matrix[2][1] == "left out"
    assert matrix[0][1:] == ["kept", "kept", "kept", "hidden", "hidden", "hidden", "kept", "kept"]
    assert not is_there or matrix[1][1:] == ["kept", "-", "kept", "hidden", "hidden", "-", "kept", "-"]
    assert set(found["lab"]["traits"]) == {"flannel udp", *(["docker bridge"] if is_there else [])}


def test_mtu_shows_a_black_hole_and_that_probing_gets_out_of_it(tmp_path: Path) -> None:
    found = scenario(tmp_path, "mtu", "cnis=flannel vxlan", "cases=too large,jumbo")
    waiting, probing, jumbo = found["tables"][0]["rows"]
    assert waiting[2:7] == ["1500", "1550", "1450", "1450", "ICMP only"] and waiting[7:9] == ["yes", "0.0"]
    assert probing[6] == "probing" and float(probing[8]) > 0
    assert jumbo[2:6] == ["9000", "8950", "8950", "8950"] and float(jumbo[8]) > 0
