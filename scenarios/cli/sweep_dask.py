"""Runs of a sweep on the workers of a dask scheduler, which may be on other machines: each worker runs whole labs.

Files go there and back as bytes, so nothing needs to be shared between the machines; mininetes must be installed on
each. A worker of one thread runs one lab at a time (`dask worker --nthreads 1`).
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scenarios.cli.sweep_runs import INTERRUPTED, End, Run, command
from topo import labfile
from topo.cluster.errors import InputError, PlatformError

# Files by their absolute paths at home; on a worker they lie under a folder of the run's own, in the same order.
Files = Mapping[str, bytes]
_CONNECT = 10.0
_POLL = 0.5
# Seconds that runs which are interrupted may take to end their labs.
_GOODBYE = 30.0


def on_workers(runs: Sequence[Run], address: str, paths: Sequence[Path], timed: bool) -> Generator[End, None, None]:
    """Each run's end, as they end; closing this early interrupts those that run.

    address: of the scheduler, or a file that it wrote (--scheduler-file). paths: files and folders that the runs'
    arguments name. timed: the runs measure times, so no two may share a machine. Raises InputError, PlatformError.
    """
    files = bundle(paths)
    places = {str(path): str(path.resolve()) for path in paths}
    stop = f"mininetes-{uuid.uuid4()}"
    with connected(address, timed) as client:
        from distributed import Event, as_completed, wait

        event = Event(stop, client=client)
        sent = {client.submit(_whole, r.words, places, dict(files), stop, pure=False): r for r in runs}
        try:
            for future in as_completed(sent):
                try:
                    status, said, found = future.result()
                except Exception as error:  # its workers died, one after the other
                    status, said, found = 1, f"{type(error).__name__}: {error}", {}
                _keep(sent[future].folder, found)
                yield End(sent[future], status, said)
        finally:
            event.set()
            wait(list(sent), timeout=_GOODBYE)


@contextlib.contextmanager
def connected(address: str, timed: bool) -> Iterator[Any]:
    """A client of the scheduler, whose workers will do. Raises as `on_workers`."""
    try:
        from distributed import Client
    except ImportError:
        raise PlatformError("--dask needs dask.distributed", "pip install 'mininetes[dask]'") from None
    where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        client = Client(**where, timeout=_CONNECT)
    except (OSError, ValueError) as error:
        raise InputError(f"--dask {address}", f"no scheduler answers there ({error})", "HOST:PORT or a file") from None
    with contextlib.closing(client):
        if problem := unfit(client.scheduler_info(n_workers=-1)["workers"].values(), timed):
            raise InputError(f"--dask {address}", problem, "workers with --nthreads 1, one a machine")
        yield client


def unfit(workers: Any, timed: bool) -> str:
    """Why runs cannot go to these workers (as the scheduler describes them), or ""."""
    found = list(workers)
    if not found:
        return "the scheduler has no worker"
    if not timed:
        return ""
    if busy := [w["id"] for w in found if w["nthreads"] != 1]:
        return f"worker {busy[0]} runs several labs at once, which would slow each other"
    hosts = [w["host"] for w in found]
    if shared := [host for host in hosts if hosts.count(host) > 1]:
        return f"machine {shared[0]} has several workers, whose labs would slow each other"
    return ""


def bundle(paths: Sequence[Path]) -> dict[str, bytes]:
    """Everything that these files and folders need: lab files name manifests. Raises InputError."""
    wanted: list[Path] = []
    for path in paths:
        if path.is_dir():
            wanted += [p for p in sorted(path.rglob("*")) if p.is_file() and "__pycache__" not in p.parts]
            continue
        wanted.append(path)
        if any(line.rstrip() == "kind: Cluster" for line in path.read_text(errors="replace").splitlines()):
            wanted += labfile.load(path).manifests
    return {str(path.resolve()): path.read_bytes() for path in wanted}


def _whole(
    words: Sequence[str], places: Mapping[str, str], files: Files, stop: str
) -> tuple[int, str, dict[str, bytes]]:
    """On a worker: one run from its files to its results. Ends it when the event `stop` is set."""
    from distributed import Event, get_client

    event = Event(stop, client=get_client())
    with tempfile.TemporaryDirectory(prefix="mininetes-run-") as folder:
        root, results = Path(folder) / "files", Path(folder) / "results"
        for path, content in files.items():
            there = root / path.lstrip("/")
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(content)
        if event.is_set():
            return INTERRUPTED, "", {}
        pipe, errors = subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(command(moved(words, places, root), results), stdout=pipe, stderr=errors) as process:
            try:
                said = _outcome(process, event)
            except BaseException:  # the scheduler is gone, or the worker is told to end
                process.send_signal(signal.SIGINT)
                raise
        found = {str(p.relative_to(results)): p.read_bytes() for p in results.rglob("*") if p.is_file()}
        return process.returncode, said, found


def _outcome(process: subprocess.Popen[bytes], event: Any) -> str:
    """The last words of a process that is interrupted when the event is set."""
    while True:
        try:
            return process.communicate(timeout=_POLL)[0].decode(errors="replace").strip()[-400:]
        except subprocess.TimeoutExpired:
            if event.is_set():
                process.send_signal(signal.SIGINT)
                return process.communicate()[0].decode(errors="replace")


def moved(words: Sequence[str], places: Mapping[str, str], root: Path) -> list[str]:
    """The arguments, with those under root for the paths at home. places: absolute paths by how they were given."""
    prefix = "--plugins="
    flags = {f"{prefix}{given}": f"{prefix}{root}{path}" for given, path in places.items()}
    files = {given: f"{root}{path}" for given, path in places.items()}
    return [flags.get(word) or files.get(word) or word for word in words]


def _keep(folder: Path, found: Files) -> None:
    """Results that came from a worker, whole or not at all: a hidden folder gets its name last."""
    tops = {Path(name).parts[0] for name in found}
    for name, content in found.items():
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or len(parts) < 2:
            raise ValueError(f"a worker sent a result called {name}")
        there = folder / f".{name}"
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(content)
    for top in tops:
        (folder / f".{top}").rename(folder / top)
