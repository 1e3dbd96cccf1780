"""The capsule alone: statuses and signals pass through, and whichever of its processes is killed, nothing is left."""

from __future__ import annotations

import errno
import os
import random
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from running import ROOT

from topo import capsule, system
from topo.cluster.errors import PlatformError

# Every script's first argument is a mark that all its processes carry in their command line; the second its user.
PRELUDE = """
import ctypes, json, os, signal, subprocess, sys, time
from pathlib import Path
from topo import capsule

def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())

def end(number, frame):
    raise SystemExit(0)

mark, user = sys.argv[1:3]
if user == "ordinary" and os.getuid() == 0:  # after the imports, for the interpreter may lie where only root may look
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, as after an exec: else /proc/self stays root's
"""
# A lab that says it is there, and waits for its end with an orphan beside it.
WAITS = """
def main():
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    subprocess.run(["sh", "-c", f"sleep {mark} & sleep {mark} & :"], check=True)
    child = subprocess.Popen(["sleep", mark])
    try:
        say("ready", os.readlink("/proc/self/ns/net"))
        while True:
            signal.pause()
    except (KeyboardInterrupt, SystemExit) as ending:
        say("ends by", type(ending).__name__)
        return 7
    finally:
        child.kill()
        child.wait()
        say("tidied up")

sys.exit(capsule.run(main))
"""


def processes(mark: str) -> dict[int, list[str]]:
    """Everything that has the mark among its arguments, wherever it runs: pid to arguments."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
            except OSError:
                continue  # it ended meanwhile
            if mark in arguments:
                found[int(folder.name)] = arguments
    return found


def parent(pid: int) -> int:
    """The process that started it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def within(seconds: float, holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold in that time. For what the kernel announces to nobody."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Capsule:
    """A script that runs a capsule."""

    def __init__(self, script: str, user: str) -> None:
        # Who runs the tests without root can be that of a user namespace.
        become = ["unshare", "--user", "--map-root-user"] if user == "root" and os.getuid() != 0 else []
        self.mark = f"98765.{random.SystemRandom().randrange(10**12):012}"
        code = PRELUDE + textwrap.dedent(script)
        self.process: subprocess.Popen[bytes] = subprocess.Popen(
            [*become, sys.executable, "-c", code, self.mark, user],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            start_new_session=True,
        )
        self.said = b""

    def line(self) -> str:
        """The next line it prints."""
        assert self.process.stdout is not None
        out = self.process.stdout.fileno()
        while b"\n" not in self.said:
            assert select.select([out], [], [], 20)[0], "it says nothing"
            more = os.read(out, 4096)
            assert more, "it ended"
            self.said += more
        line, _, self.said = self.said.partition(b"\n")
        return line.decode().strip()

    def network(self) -> str:
        """The name of its network namespace, once the lab is there."""
        word, _, name = self.line().partition(" ")
        assert word == "ready", word + name + self.finish()[1]
        return name

    def finish(self, seconds: float = 20) -> tuple[int, str]:
        """Exit status and the rest of what it printed, once it has ended."""
        out, _ = self.process.communicate(timeout=seconds)
        return self.process.returncode, (self.said + out).decode()

    def family(self) -> dict[str, int]:
        """The three processes, by role."""
        pids = {pid for pid, arguments in processes(self.mark).items() if "sleep" not in arguments[0]}
        outer = self.process.pid
        (init,) = (pid for pid in pids if parent(pid) == outer)
        (lab,) = (pid for pid in pids if parent(pid) == init)
        assert pids == {outer, init, lab}
        return {"outer": outer, "init": init, "lab": lab}

    def gone(self, seconds: float = 2) -> bool:
        """Whether all its processes end in that time."""
        return within(seconds, lambda: not processes(self.mark))

    def end(self) -> None:
        """What a failing test leaves."""
        for pid in processes(self.mark):
            with suppress(ProcessLookupError):  # it ended with one before
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


Start = Callable[[str], Capsule]


@pytest.fixture(scope="module", params=["root", "ordinary"])
def user(request: pytest.FixtureRequest) -> str:
    """Both kinds of users: root, and one who needs a user namespace."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"] if os.getuid() == 0 else []
    command = [*nobody, "unshare", "--user", "--map-root-user", "--net", "--mount", "--pid", "--fork", "true"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/")
    if request.param == "ordinary" and done.returncode:
        pytest.skip(f"user namespaces are not allowed: {done.stderr.strip()}")
    return str(request.param)


@pytest.fixture
def start(user: str) -> Iterator[Start]:
    """Starts capsules as that user, and ends what is left of them."""
    started: list[Capsule] = []

    def begin(script: str) -> Capsule:
        started.append(Capsule(script, user))
        return started[-1]

    yield begin
    for one in started:
        one.end()


def networks() -> set[str]:
    """The network namespaces of all processes."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                found.add(str((folder / "ns/net").readlink()))
            except OSError:
                continue  # it ended meanwhile, or is a zombie
    return found


# Status


@pytest.mark.parametrize("status", [0, 3, 255])
def test_the_status_of_the_lab_is_that_of_the_caller(start: Start, status: int) -> None:
    assert start(f"sys.exit(capsule.run(lambda: {status}))").finish() == (status, "")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_lab_ended_by_a_signal_has_the_status_a_shell_would_give(start: Start, number: signal.Signals) -> None:
    script = f"""
    def main():
        signal.signal({number:d}, signal.SIG_DFL) if {number:d} != {signal.SIGKILL:d} else None
        os.kill(os.getpid(), {number:d})
    sys.exit(capsule.run(main))
    """
    assert start(script).finish()[0] == 128 + number


def test_an_exception_in_the_lab_is_told_and_is_status_1(start: Start) -> None:
    script = """
    def main():
        raise RuntimeError("this is why")
    say(capsule.run(main))
    """
    status, out = start(script).finish()
    assert status == 0
    assert "RuntimeError: this is why\n" in out
    assert out.endswith("\n1\n")


def test_what_the_lab_prints_is_there_when_the_caller_goes_on(start: Start) -> None:
    script = """
    say("status", capsule.run(lambda: print("from the lab") or 0))
    """
    assert start(script).finish() == (0, "from the lab\nstatus 0\n")


# What it is like inside


def test_the_lab_is_root_and_its_processes_are_few(start: Start) -> None:
    script = """
    def main():
        pids = sorted(int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit())
        say(os.getuid(), os.getgid(), os.getpid(), os.getppid(), pids)
        return 0
    sys.exit(capsule.run(main))
    """
    assert start(script).finish() == (0, "0 0 2 1 [1, 2]\n")


def test_the_network_is_new_and_empty(start: Start) -> None:
    script = """
    def main():
        say("ready", os.readlink("/proc/self/ns/net"))
        for line in Path("/proc/net/dev").read_text().splitlines()[2:]:
            say(line.split(":")[0].strip())
        return 0
    sys.exit(capsule.run(main))
    """
    one = start(script)
    assert one.network() != str(Path("/proc/self/ns/net").readlink())
    fallbacks = {"tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip6gre0"}  # of modules, in every namespace
    assert set(one.finish()[1].split()) - fallbacks == {"lo"}


def test_what_is_written_in_run_is_not_seen_outside(start: Start) -> None:
    script = """
    def main():
        Path(f"/run/{mark}").write_text("x")
        (capsule.RUN / mark).write_text("x")
        say("written", Path(f"/run/{mark}").exists(), len(list(Path("/run").iterdir())))
        signal.pause()
    sys.exit(capsule.run(main))
    """
    one = start(script)
    assert one.line() == "written True 2"  # its own folder and this file: nothing of the host's
    names = [f"/run/{one.mark}", f"/run/mininetes/{one.mark}"]
    assert not any(Path(name).exists() for name in names)
    one.process.kill()
    assert one.gone()
    assert not any(Path(name).exists() for name in names)


def test_mounts_made_inside_are_not_seen_outside(start: Start) -> None:
    script = """
    from topo import system
    def main():
        system.mount(mark, "/mnt", "tmpfs")
        say("mounted", mark in Path("/proc/self/mountinfo").read_text())
        signal.pause()
    sys.exit(capsule.run(main))
    """
    one = start(script)
    assert one.line() == "mounted True"
    assert one.mark not in Path("/proc/self/mountinfo").read_text()


def test_two_capsules_have_interfaces_of_the_same_names(start: Start) -> None:
    script = """
    def main():
        subprocess.run(["ip", "link", "add", "leaf-1", "type", "veth", "peer", "name", "eth101"], check=True)
        say("ready", os.readlink("/proc/self/ns/net"))
        signal.pause()
    sys.exit(capsule.run(main))
    """
    one, other = start(script), start(script)
    assert one.network() != other.network()
    assert one.process.poll() is other.process.poll() is None
    assert not Path("/sys/class/net/leaf-1").exists()


def test_an_orphan_is_reaped(start: Start) -> None:
    script = """
    def main():
        orphan = int(subprocess.run(["sh", "-c", f"sleep {mark} >&2 & echo $!"], stdout=-1, check=True).stdout)
        state = Path(f"/proc/{orphan}/stat")
        say("parent", state.read_text().rpartition(")")[2].split()[1])
        os.kill(orphan, signal.SIGKILL)
        deadline = time.monotonic() + 5
        while state.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        say("reaped", not state.exists())
        return 0
    sys.exit(capsule.run(main))
    """
    assert start(script).finish() == (0, "parent 1\nreaped True\n")


# Ends


@pytest.mark.parametrize("victim", ["outer", "init", "lab"])
def test_killing_any_of_the_three_leaves_no_process(start: Start, victim: str) -> None:
    one = start(WAITS)
    name = one.network()
    family = one.family()
    assert within(2, lambda: len(processes(one.mark)) == 6)  # and three sleeps
    assert name in networks()
    with Path(f"/proc/{family['lab']}/ns/net").open():  # or a lab beside this test may get the namespace's number
        os.kill(family[victim], signal.SIGKILL)
        assert one.gone()
        assert within(2, lambda: name not in networks())  # a process loses its arguments first
    assert one.mark not in Path("/proc/self/mountinfo").read_text()
    assert one.finish()[0] == (-signal.SIGKILL if victim == "outer" else 128 + signal.SIGKILL)


@pytest.mark.parametrize("victim", ["outer", "init", "lab"])
def test_killing_any_of_the_three_leaves_no_interface(start: Start, victim: str) -> None:
    one = start(WAITS)
    one.network()
    family = one.family()
    # The end that lies elsewhere goes when, and only when, the capsule's namespace does.
    enter = ["nsenter"] if os.getuid() == 0 else ["nsenter", "--user", "--preserve-credentials"]
    elsewhere = [*enter, f"--target={family['lab']}", "unshare", "--net", "sh", "-c", "echo up; exec sleep 1000"]
    with subprocess.Popen(elsewhere, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            inside, outside = f"netns {family['lab']}", f"netns {holder.pid}"
            ip = [*enter, "--net", f"--target={holder.pid}", "ip"]
            lay = f"link add peer0 {outside} type veth peer name lab0 {inside}"
            subprocess.run([*ip, *lay.split()], check=True)

            def there() -> bool:
                return subprocess.run([*ip, "link", "show", "peer0"], capture_output=True, check=False).returncode == 0

            assert there()
            os.kill(family[victim], signal.SIGKILL)
            # The kernel takes namespaces apart one after the other, also those of labs that end beside this test.
            assert within(10, lambda: not there())
        finally:
            holder.kill()


@pytest.mark.parametrize(
    ("number", "ending"),
    [(signal.SIGTERM, "SystemExit"), (signal.SIGHUP, "SystemExit"), (signal.SIGINT, "KeyboardInterrupt")],
)
def test_signals_to_the_caller_reach_the_lab_which_tidies_up(start: Start, number: signal.Signals, ending: str) -> None:
    one = start(WAITS)
    one.network()
    begun = time.monotonic()
    one.process.send_signal(number)
    assert one.finish() == (7, f"ends by {ending}\ntidied up\n")
    assert time.monotonic() - begun < 2
    assert one.gone(0.5)


def test_a_signal_to_init_alone_reaches_the_lab_too(start: Start) -> None:
    one = start(WAITS)
    one.network()
    os.kill(one.family()["init"], signal.SIGTERM)
    assert one.finish() == (7, "ends by SystemExit\ntidied up\n")


def test_a_signal_at_any_moment_of_the_start_ends_it(start: Start) -> None:
    script = """
    say("starts")
    def main():
        while True:
            signal.pause()
    sys.exit(capsule.run(main))
    """
    for i in range(10):
        one = start(script)
        assert one.line() == "starts"
        time.sleep(i * 0.001)  # not to wait for something: to hit another moment each time
        one.process.send_signal(signal.SIGTERM)
        assert one.finish(10)[0] in (-signal.SIGTERM, 128 + signal.SIGTERM)
        assert one.gone()


def test_processes_that_the_lab_leaves_end_with_it(start: Start) -> None:
    script = """
    def main():
        subprocess.Popen(["setsid", "sleep", mark], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run(["sh", "-c", f"trap '' TERM HUP INT; sleep {mark} >/dev/null 2>&1 & :"], check=True)
        return 0
    sys.exit(capsule.run(main))
    """
    one = start(script)
    assert one.finish()[0] == 0
    assert one.gone(0.5)


def test_a_signal_after_the_lab_has_ended_is_no_error(start: Start) -> None:
    script = """
    status = capsule.run(lambda: 4)
    os.kill(os.getpid(), signal.SIGTERM)
    sys.exit(status)
    """
    assert start(script).finish() == (4, "")


def test_ctrl_c_in_a_terminal_reaches_the_lab_once(start: Start) -> None:
    script = """
    def main():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        say("ready")
        count = 0
        while signal.sigtimedwait([signal.SIGINT], 0.5 if count else 20):
            count += 1
        say(count)
        return 0
    sys.exit(capsule.run(main))
    """
    one = start(script)
    assert one.line() == "ready"
    os.killpg(one.process.pid, signal.SIGINT)
    assert one.line() == "1"


def test_a_caller_killed_just_after_the_fork_leaves_no_process(start: Start) -> None:
    script = """
    from topo import system
    ask = system.die_with_parent
    def late(number):
        say("forked")
        time.sleep(0.3)  # as on a busy machine
        ask(number)
    system.die_with_parent = late
    def main():
        signal.pause()
    capsule.run(main)
    """
    one = start(script)
    assert one.line() == "forked"
    one.process.kill()
    assert one.gone()


# Output and refusals


def test_what_was_printed_before_is_printed_once(start: Start) -> None:
    script = """
    sys.stdout = os.fdopen(1, "w", buffering=8192)
    print("before")
    sys.exit(capsule.run(lambda: 0))
    """
    assert start(script).finish() == (0, "before\n")


def test_a_lab_whose_output_nobody_reads_any_more_does_not_run_the_callers_code(start: Start) -> None:
    script = """
    reads, writes = os.pipe()
    os.close(reads)
    def main():
        sys.stdout = os.fdopen(writes, "w", buffering=8192)
        print("for nobody")
        return 0
    try:
        capsule.run(main)
    finally:
        say("the caller's code")
    """
    assert start(script).finish()[1].count("the caller's code") == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSPC, errno.EACCES])
def test_where_namespaces_are_forbidden_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(flags: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(system, "unshare", refuse)
    with pytest.raises(PlatformError, match=r"may not make namespaces: run with sudo, or sudo sysctl .*userns"):
        capsule.run(lambda: 0)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Ubuntu 24.04
        (
            {"kernel/apparmor_restrict_unprivileged_userns": "1", "user/max_user_namespaces": "63514"},
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        # An older Debian whose administrator also set a limit
        (
            {"kernel/unprivileged_userns_clone": "0", "user/max_user_namespaces": "0"},
            "kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000",
        ),
    ],
)
def test_the_remedy_names_the_settings_that_forbid_namespaces(
    settings: dict[str, str], expected: str, tmp_path: Path
) -> None:
    for name, value in settings.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f"{value}\n")
    assert capsule.remedy(tmp_path) == f"run with sudo, or sudo sysctl {expected}"


def test_where_there_are_no_namespaces_the_kernel_is_to_blame(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(flags: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(system, "unshare", refuse)
    with pytest.raises(PlatformError, match="a Linux kernel with NET_NS"):
        capsule.run(lambda: 0)


def test_where_nothing_can_be_mounted_the_caller_is_told_in_one_line(start: Start) -> None:
    script = """
    from topo import system
    def refuse(*arguments):
        raise OSError(1, "mount: Operation not permitted")
    system.mount = refuse
    sys.exit(capsule.run(lambda: 0))
    """
    status, out = start(script).finish()
    assert status == 2
    assert out.startswith("mininetes: the capsule cannot mount its own /proc and /run ([Errno 1] mount")
    assert len(out.splitlines()) == 1
