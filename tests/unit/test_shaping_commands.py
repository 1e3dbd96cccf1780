"""The tc commands of every kind of link, word by word, and what is said when the kernel lacks a part."""

from __future__ import annotations

import re
import subprocess
from typing import Any, cast

import pytest

from topo.cluster.errors import PlatformError
from topo.config import LinkConfig
from topo.hosts import Host
from topo.shaping import apply, commands

HTB = "qdisc add dev eth0 root handle 1: htb default 1"


def lines(link: LinkConfig) -> list[str]:
    """As they would be typed, less "tc"."""
    return [" ".join(arguments) for _, arguments in commands(link, "eth0")]


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (LinkConfig(), []),
        (LinkConfig(mtu=9000), []),
        (LinkConfig(delay=0, loss=0), []),
        (
            LinkConfig(bandwidth=100),
            [HTB, "class add dev eth0 parent 1: classid 1:1 htb rate 100mbit burst 125000b cburst 125000b"],
        ),
        (
            LinkConfig(bandwidth=10000),
            [HTB, "class add dev eth0 parent 1: classid 1:1 htb rate 10000mbit burst 12500000b cburst 12500000b"],
        ),
        (
            LinkConfig(bandwidth=0.5),
            [HTB, "class add dev eth0 parent 1: classid 1:1 htb rate 0.5mbit burst 65536b cburst 65536b"],
        ),
        (LinkConfig(delay=10), ["qdisc add dev eth0 root handle 2: netem limit 10000 delay 10000us"]),
        (LinkConfig(delay=0.01), ["qdisc add dev eth0 root handle 2: netem limit 10000 delay 10us"]),
        (LinkConfig(loss=1), ["qdisc add dev eth0 root handle 2: netem limit 10000 loss 1%"]),
        (LinkConfig(loss=0.25), ["qdisc add dev eth0 root handle 2: netem limit 10000 loss 0.25%"]),
        (
            LinkConfig(delay=2.5, loss=100),
            ["qdisc add dev eth0 root handle 2: netem limit 10000 delay 2500us loss 100%"],
        ),
        (
            LinkConfig(bandwidth=1000, delay=1, loss=0.1),
            [
                HTB,
                "class add dev eth0 parent 1: classid 1:1 htb rate 1000mbit burst 1250000b cburst 1250000b",
                "qdisc add dev eth0 parent 1:1 handle 2: netem limit 10000 delay 1000us loss 0.1%",
            ],
        ),
        (
            LinkConfig(bandwidth=1, delay=0, loss=5),
            [
                HTB,
                "class add dev eth0 parent 1: classid 1:1 htb rate 1mbit burst 65536b cburst 65536b",
                "qdisc add dev eth0 parent 1:1 handle 2: netem limit 10000 loss 5%",
            ],
        ),
    ],
)
def test_commands_of_a_link(link: LinkConfig, expected: list[str]) -> None:
    assert lines(link) == expected


def test_every_command_names_the_discipline_the_kernel_must_have() -> None:
    link = LinkConfig(bandwidth=1, delay=1)
    assert [discipline for discipline, _ in commands(link, "eth0")] == ["htb", "htb", "netem"]


def test_the_interface_is_the_one_that_was_asked_for() -> None:
    link = LinkConfig(bandwidth=1, delay=1)
    assert all(arguments[arguments.index("dev") + 1] == "eth7" for _, arguments in commands(link, "eth7"))


class Recorder:
    """A host that notes what is run, and fails at a word."""

    def __init__(self, fails_at: str = "", stderr: str = "") -> None:
        self.ran: list[tuple[str, ...]] = []
        self.fails_at, self.stderr = fails_at, stderr

    def run(self, *argv: str, **_: Any) -> str:
        self.ran.append(argv)
        if self.fails_at in argv:
            raise subprocess.CalledProcessError(2, argv, "", self.stderr)
        return ""


def test_applying_runs_the_commands_in_order() -> None:
    host, link = Recorder(), LinkConfig(bandwidth=10, delay=1)
    apply(cast("Host", host), "eth0", link)
    assert host.ran == [("tc", *arguments) for _, arguments in commands(link, "eth0")]


def test_an_unshaped_link_runs_nothing() -> None:
    host = Recorder()
    apply(cast("Host", host), "eth0", LinkConfig())
    assert host.ran == []


@pytest.mark.parametrize("stderr", ["Error: Specified qdisc kind is unknown.", "RTNETLINK answers: No such file"])
@pytest.mark.parametrize(
    ("link", "kind", "what"),
    [(LinkConfig(bandwidth=1), "htb", "link bandwidth"), (LinkConfig(delay=1), "netem", "link delay and loss")],
)
def test_a_kernel_without_a_discipline_is_told_with_the_remedy(
    stderr: str, link: LinkConfig, kind: str, what: str
) -> None:
    with pytest.raises(
        PlatformError, match=rf"^{what} needs? sch_{kind}, which this kernel lacks: modprobe sch_{kind}"
    ):
        apply(cast("Host", Recorder(kind, stderr)), "eth0", link)


def test_any_other_refusal_of_tc_is_told_with_the_command() -> None:
    host = Recorder("netem", 'Illegal "delay"\n')
    expected = re.escape("tc refused qdisc add dev eth0 root handle 2: netem limit 10000 delay 1000us: Illegal")
    with pytest.raises(PlatformError, match=expected):
        apply(cast("Host", host), "eth0", LinkConfig(delay=1))
