"""Runs the tests of a module that is marked `as_root` in a capsule of its own where the caller is an ordinary user.

There one is root over namespaces that the tests themselves make, as in a lab without root. The capsule's process is
forked from the one that runs the tests, does each as it is told, and answers with its reports, so that for pytest, its
options and its plugins nothing differs. What a test left running ends with the capsule.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from topo import capsule, links, system
from topo.cluster.errors import PlatformError


class Runner:
    """A process in a capsule that runs tests of this session."""

    def __init__(self, session: pytest.Session) -> None:
        self._config, self._items = session.config, session.items
        ours, theirs = socket.socketpair()
        with warnings.catch_warnings():
            # Eventlet's of threads that do not survive, and Python 3.12's: none is needed there.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._pid = os.fork()
        if self._pid == 0:
            ours.close()
            _live(lambda: self._serve(theirs), theirs)
        theirs.close()
        self._file = ours.makefile("rw")
        ours.close()

    def run(self, item: pytest.Item, following: pytest.Item | None) -> list[pytest.TestReport]:
        """A test's reports. following: the next that will run there, for which some fixtures may stay."""
        numbers = [self._items.index(x) for x in (item, following) if x is not None]
        with suppress(BrokenPipeError):
            _write(self._file, numbers)
        line = self._file.readline()
        answer = json.loads(line) if line else None
        if isinstance(answer, list):
            read = self._config.hook.pytest_report_from_serializable
            return [read(config=self._config, data=data) for data in answer]
        refused = pytest.skip if answer else pytest.fail
        call = pytest.CallInfo.from_call(lambda: refused(answer or "the process that ran it ended"), "setup")
        return [item.ihook.pytest_runtest_makereport(item=item, call=call)]

    def close(self) -> None:
        """End it and what it started."""
        self._file.close()
        os.waitpid(self._pid, 0)

    def _serve(self, theirs: socket.socket) -> int:
        links.set_up(os.getpid(), "lo", True)
        write = self._config.hook.pytest_report_to_serializable
        with theirs.makefile("rw") as file:
            while line := file.readline():
                item, *following = (self._items[number] for number in json.loads(line))
                # The session itself, so that what it has stays: other modules' fixtures, which the caller ends.
                reports = runtestprotocol(item, log=False, nextitem=following[0] if following else item.session)
                _write(file, [write(config=self._config, report=report) for report in reports])
        return 0


def _live(main: Callable[[], int], theirs: socket.socket) -> None:
    """The forked process's whole life. What the machine forbids is the answer to whatever will be asked."""
    status = 1
    try:
        system.die_with_parent(signal.SIGKILL)
        status = capsule.run(main)
    except PlatformError as error:
        with theirs.makefile("rw") as file:
            while file.readline():
                _write(file, str(error))
    finally:
        os._exit(status)


def _write(file: Any, value: str | Sequence[Any]) -> None:
    file.write(json.dumps(value) + "\n")
    file.flush()


RUNNER = pytest.StashKey[Runner]()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Have a marked module's test run there; the runner lives until the next test is another module's."""
    module = item.getparent(pytest.Module)
    if os.getuid() == 0 or module is None or module.get_closest_marker("as_root") is None:
        return None
    stash = item.config.stash
    if RUNNER not in stash:
        stash[RUNNER] = Runner(item.session)
    following = nextitem if nextitem is not None and nextitem.path == item.path else None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    for report in stash[RUNNER].run(item, following):
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if following is None:
        end(item.config)
    return True


def end(config: pytest.Config) -> None:
    """End the runner, if there is one: pytest may stop between two tests of a module."""
    if RUNNER in config.stash:
        config.stash[RUNNER].close()
        del config.stash[RUNNER]
