"""A log becomes no longer than it may, and who writes it goes on behind what is left."""

from __future__ import annotations

from pathlib import Path

from topo import logs


def test_the_end_of_a_long_log_stays_and_a_short_one_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "worker").mkdir()
    long, short = tmp_path / "worker" / "long.log", tmp_path / "short.log"
    lines = [f"line {number}\n" for number in range(logs.MOST // 8)]
    short.write_text("short\n")
    with long.open("a") as writer:
        writer.writelines(lines)
        writer.flush()
        assert long.stat().st_size > logs.MOST
        logs.shorten(tmp_path)
        writer.write("and on\n")
    left = long.read_text().splitlines(keepends=True)
    assert left == [*lines[1 - len(left) :], "and on\n"]
    assert logs.LEFT - 100 < long.stat().st_size <= logs.LEFT + 100
    assert short.read_text() == "short\n"
