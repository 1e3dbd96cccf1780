"""Which program captures, and that a filter reaches it whole."""

from __future__ import annotations

import pytest

from scenarios.lab.capturing import command


@pytest.mark.parametrize(
    ("may_drop", "expected"),
    [
        (True, "tcpdump -i eth0 --immediate-mode -U -w - -c 2|udp|or|icmp"),
        (False, "dumpcap -q -P -i eth0 -w - -c 2 -f|udp or icmp"),
    ],
)
def test_who_may_not_become_another_user_has_dumpcap(may_drop: bool, expected: str) -> None:
    head, *words = expected.split("|")
    assert command("eth0", 2, ["udp", "or", "icmp"], may_drop=may_drop) == [*head.split(" "), *words]
    assert "-f" not in command("eth0", None, [], may_drop=may_drop)
