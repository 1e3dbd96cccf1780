"""What the Makefile's targets for the virtual machine call: python -m vm VERB, from the checkout's folder."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vm import VmError, image, machine, ran
from vm.recipe import RELEASES, recipe

HERE = Path(__file__).parent
# Limits of time in the machine are so many times as long (topo/cluster/patience.py).
SLOWNESS = "MININETES_SLOWNESS"
VERBS = ("image", "run", "test", "shell", "ran")
# Reports of tests, inside and outside, that `ran` compares.
REPORTS, HOST = Path(".cache/reports"), "host"


def arguments() -> argparse.ArgumentParser:
    """The command line; the Makefile gives all of it."""
    parser = argparse.ArgumentParser(prog="python -m vm", description=__doc__)
    parser.add_argument("--release", default=RELEASES[0], help=" or ".join(RELEASES))
    parser.add_argument("--packages", default="", help="the distribution's packages, as the Makefile lists them")
    parser.add_argument("--build", default="", help="what builds Python packages, as the Makefile lists it")
    parser.add_argument("--memory", type=int, default=4096, help="of the machine, MB")
    parser.add_argument("--limit", type=float, default=3600, help="seconds that a command may take")
    # The rest of the line, options and all, belongs to what is run.
    parser.add_argument("words", nargs=argparse.PARSER, choices=VERBS, metavar="VERB ...", help=", ".join(VERBS))
    return parser


def main(argv: Sequence[str]) -> int:
    """Do what is asked; the status of the command in the machine, 2 if there is none."""
    asked = arguments().parse_args(argv)
    verb, *command = asked.words
    source = HERE.parent
    cache = source / ".cache" / "vm"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        if verb == "ran":
            first = source / REPORTS / f"{HOST}.xml"
            later = ran.nightly((source / "tests" / "nightly.txt").read_text())
            others = sorted(set(first.parent.glob("*.xml")) - {first})
            said, good = ran.lines([ran.read(file) for file in (first, *others)], later)
            print("\n".join(said))
            return 0 if good else 1
        wanted = recipe(
            asked.release,
            asked.packages.split(),
            asked.build.split(),
            (source / "setup.cfg").read_text(),
            (HERE / "init").read_text(),
        )
        made = image.made(wanted, source, cache)
        if verb == "image":
            return 0
        processor = machine.quick(made, cache)
        box = machine.Machine(made, processor, source, cache, asked.memory, os.cpu_count() or 1)
        environment = {
            "TERM": os.environ.get("TERM", "dumb"),
            SLOWNESS: os.environ.get(SLOWNESS, str(processor.slowness)),
        }
        if verb == "shell":
            return box.shell(environment)
        if verb == "test":
            report = REPORTS / f"{asked.release}.xml"
            command = [".venv/bin/pytest", "-q", f"--junitxml={report}", *command]
        return box.run(command, asked.limit, environment)
    except (VmError, ValueError) as error:
        print(f"vm: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        _give_back(cache.parent, source / "results")


def _give_back(*folders: Path) -> None:
    """Under sudo: what was made belongs to whoever called it, who can go on without sudo."""
    if os.getuid() == 0 and "SUDO_UID" in os.environ:
        owner = f"{os.environ['SUDO_UID']}:{os.environ['SUDO_GID']}"
        subprocess.run(["chown", "-R", owner, *map(str, folders)], check=True)


if __name__ == "__main__":
    # Ended like this, too, we leave no machine and no folder behind.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    sys.exit(main(sys.argv[1:]))
