"""The two errors a user may meet: wrong input, and a platform that lacks a part."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend; the command line prints it as one line and exits with 2."""


class InputError(UserError):
    """Bad input, named by its place.

    where: file and line, flag, or field path ("lab.yaml:7: nodes[0].role").
    problem: what is wrong there, as a clause ("unknown role 'master'").
    expected: what would be right ("control-plane or worker"); may be empty.
    """

    def __init__(self, where: str, problem: str, expected: str = "") -> None:
        self.where, self.problem, self.expected = where, problem, expected
        super().__init__(f"{where}: {problem}" + (f"; expected {expected}" if expected else ""))


class PlatformError(UserError):
    """The machine lacks a part.

    missing: what is not there ("link delay needs sch_netem, which this kernel lacks").
    remedy: what would provide it ("modprobe sch_netem, or run in a VM with a stock kernel").
    """

    def __init__(self, missing: str, remedy: str) -> None:
        self.missing, self.remedy = missing, remedy
        super().__init__(f"{missing}: {remedy}")
