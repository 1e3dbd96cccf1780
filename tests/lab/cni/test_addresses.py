"""Addresses while pods come and go at random: never one twice, and each pod answers at its own."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import yaml

from cni.world import NODES, POD_PORT, World, pod, started
from topo import manifests

CHANGES, SEED = 200, 7
# A node's pod CIDR of 16 addresses is soon full: every address is given again and again.
BITS, MOST = 28, 30


def addresses(lab: World) -> list[str]:
    """Of all pods that are there, also of those that are ending."""
    return [p["status"]["podIP"] for p in lab.ask("get", kind="Pod") if p.get("status", {}).get("podIP")]


def change(lab: World, chance: random.Random, names: list[str], number: int) -> None:
    """Add a pod or delete one, and wait for neither."""
    if len(names) < MOST and (not names or chance.random() < 0.6):
        names.append(f"p{number}")
        text = yaml.safe_dump(pod(names[-1], chance.choice(list(NODES))))
        lab.ask("apply", objects=list(manifests.load_text(text, "case").objects), wait=None)
    else:
        name = names.pop(chance.randrange(len(names)))
        lab.ask("delete", keys=[["Pod", "default", name]], grace=0)


@pytest.mark.parametrize("variant", ["flannel vxlan", "conflist host-gw"])
def test_no_address_is_given_twice_while_pods_come_and_go(variant: str, tmp_path: Path) -> None:
    chance, names = random.Random(SEED), list[str]()
    with started(variant, tmp_path, [pod("asking", "worker")], bits=BITS) as lab:
        for number in range(CHANGES):
            change(lab, chance, names, number)
            twice = [address for address, count in Counter(addresses(lab)).items() if count > 1]
            assert not twice, f"after {number + 1} changes: {twice}"
        lab.ask("wait", timeout=60)
        now = {p["metadata"]["name"]: p["status"]["podIP"] for p in lab.ask("get", kind="Pod")}
        assert set(now) == {"asking", *names}
        answers = lab.at("asking").who(*(("tcp", now[name], POD_PORT) for name in names))
        assert answers == names
