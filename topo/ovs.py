"""A private Open vSwitch in one namespace: its own database, its own vswitchd, nothing shared with the system's."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topo.cluster.errors import PlatformError
from topo.cluster.patience import patience
from topo.hosts import Host


@dataclass(frozen=True, slots=True)
class Port:
    """A port of a bridge: number is its OpenFlow port; type and options as ovs-vswitchd.conf.db(5) has them."""

    name: str
    number: int
    type: str = ""
    options: tuple[tuple[str, str], ...] = ()
    mac: str = ""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge that forwards nothing until its controller has spoken (fail mode secure).

    tables: names that `ovs-ofctl --names dump-flows` prints instead of numbers.
    """

    name: str
    ports: tuple[Port, ...]
    mac: str = ""
    tables: tuple[tuple[int, str], ...] = ()


class OpenVSwitch:
    """ovsdb-server and ovs-vswitchd of one host. datapath: "netdev" (userspace) or "system" (kernel module)."""

    def __init__(self, host: Host, run: Path, datapath: str) -> None:
        self.host, self.run, self.datapath = host, run, datapath
        self.processes: dict[str, subprocess.Popen[Any]] = {}
        run.mkdir(parents=True, exist_ok=True)

    @property
    def environment(self) -> dict[str, str]:
        """Where this instance's tools look."""
        return {**os.environ, "OVS_RUNDIR": str(self.run), "OVS_DBDIR": str(self.run), "OVS_LOGDIR": str(self.run)}

    def start_database(self, empty: Path) -> None:
        """Start ovsdb-server on a copy of an empty database."""
        database = self.run / "conf.db"
        # What a machine of the same name has left: its ports are no more, and nobody listens at its socket.
        (self.run / "db.sock").unlink(missing_ok=True)
        shutil.copyfile(empty, database)
        self._serve_database()

    def configure(self, bridges: Sequence[Bridge]) -> None:
        """Write the bridges into the database; vswitchd makes them when it starts."""
        # One thread each: a lab has many switches and few cores.
        command = ["--no-wait", "init", "--", "set", "Open_vSwitch", ".", "other_config:n-handler-threads=1"]
        command += ["other_config:n-revalidator-threads=1"]
        for bridge in bridges:
            command += self._bridge(bridge)
        self._vsctl(*command)

    def start_switch(self) -> None:
        """Start ovs-vswitchd and wait until it has made everything in the database."""
        self._daemon("ovs-vswitchd", "unix:db.sock")
        # ovs-vsctl waits for vswitchd after a change, so it must change something.
        self._vsctl("set", "Open_vSwitch", ".", f"external_ids:started={time.monotonic_ns()}")
        self._check_ports()
        if self.datapath == "netdev":
            # What closed is forgotten in two steps (seen on 3.1): its translation outlives it, and answers to another
            # connection with the same addresses and ports are held to the sequence numbers of the one before.
            self.appctl("dpctl/ct-disable-tcp-seq-chk")

    def add_ports(self, bridge: str, ports: Sequence[Port]) -> None:
        """Add ports and wait until they forward; a switch that does not run makes them when it starts."""
        command: list[str] = []
        for port in ports:
            command += [*(["--"] if command else []), *_port(bridge, port)]
        if command:
            self._change(command)

    def delete_ports(self, bridge: str, names: Sequence[str]) -> None:
        """Remove ports; one that is gone already is no error."""
        command: list[str] = []
        for name in names:
            command += [*(["--"] if command else []), "--if-exists", "del-port", bridge, name]
        if command:
            self._change(command)

    def ports(self, bridge: str) -> list[str]:
        """Names of a bridge's ports, as the database has them."""
        return self._vsctl("list-ports", bridge).split()

    def is_running(self) -> bool:
        """Whether ovs-vswitchd lives."""
        process = self.processes.get("ovs-vswitchd")
        return process is not None and process.poll() is None

    def kill_switch(self) -> None:
        """Kill ovs-vswitchd: a node's switch crash."""
        self.processes["ovs-vswitchd"].kill()
        self.processes["ovs-vswitchd"].wait()

    def kill_database(self) -> None:
        """Kill ovsdb-server; the switch forwards on, and takes no change until it is back."""
        self.processes["ovsdb-server"].kill()
        self.processes["ovsdb-server"].wait()

    def restart_database(self) -> None:
        """Start ovsdb-server again, on what it had written."""
        (self.run / "db.sock").unlink(missing_ok=True)
        self._serve_database()

    def ofctl(self, *arguments: str) -> str:
        """Run ovs-ofctl against this instance and give its output."""
        command = ["ovs-ofctl", "-O", "OpenFlow14", *arguments]
        return self._run(command)

    def appctl(self, *arguments: str) -> str:
        """Run ovs-appctl against this instance's vswitchd and give its output."""
        return self._run(["ovs-appctl", "-t", str(self.run / "ovs-vswitchd.ctl"), *arguments])

    def stop(self) -> None:
        """End both processes."""
        for process in reversed(list(self.processes.values())):
            process.kill()
            process.wait()
        self.processes.clear()

    def _bridge(self, bridge: Bridge) -> list[str]:
        name = bridge.name
        command = ["--", "--may-exist", "add-br", name, "--", "set", "Bridge", name, "fail_mode=secure"]
        command += [f"datapath_type={self.datapath}", "protocols=[OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15]"]
        command += [f'other_config:hwaddr="{bridge.mac}"'] if bridge.mac else []
        for number, table in bridge.tables:
            row = f"@{name.replace('-', '_')}_{number}"
            command += ["--", f"--id={row}", "create", "Flow_Table", f"name={table}"]
            command += ["--", "set", "Bridge", name, f"flow_tables:{number}={row}"]
        command += ["--", "set-controller", name, f"unix:{self.run / name}.ctl"]
        command += ["--", "set", "Controller", name, "max_backoff=1000", "inactivity_probe=0"]
        for port in bridge.ports:
            command += ["--", *_port(name, port)]
        return command

    def _change(self, command: list[str]) -> None:
        """Change the database, and wait until a switch that runs has followed."""
        self._vsctl(*([] if self.is_running() else ["--no-wait"]), *command)

    def _vsctl(self, *arguments: str) -> str:
        return self._run(
            ["ovs-vsctl", f"--timeout={patience(20):.0f}", f"--db=unix:{self.run / 'db.sock'}", *arguments]
        )

    def _run(self, command: list[str]) -> str:
        # In a session of its own, so that Ctrl-C is the lab's to answer and not an error of this program.
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environment, check=False, start_new_session=True
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.host.name}: {' '.join(command[:3])} failed: {done.stderr.strip()}")
        return done.stdout

    def _serve_database(self) -> None:
        self._daemon("ovsdb-server", str(self.run / "conf.db"), "--remote=punix:db.sock")
        self._await_listener(self.run / "db.sock", "ovsdb-server")

    def _daemon(self, program: str, *arguments: str) -> None:
        control = self.run / f"{program}.ctl"
        control.unlink(missing_ok=True)
        self.processes[program] = self.host.start_daemon(
            program,
            *arguments,
            f"--unixctl={control}",
            "-vconsole:off",
            "-vsyslog:off",
            f"--log-file={self.run / program}.log",
            env=self.environment,
            cwd=self.run,
        )

    def _await_listener(self, path: Path, program: str) -> None:
        """Until the program takes connections there; its socket is bound, and so has its name, a moment before."""
        deadline = time.monotonic() + patience(20)
        while not _listens(path):
            if self.processes[program].poll() is not None or time.monotonic() > deadline:
                # The log goes with the capsule, so its last words must be said here.
                log = self.run / f"{program}.log"
                words = log.read_text(errors="replace").strip().splitlines()[-1:] if log.exists() else []
                status = self.processes[program].poll()
                said = words[0] if words else f"no log, exit status {status}"
                raise PlatformError(f"{program} of {self.host.name} did not start ({said})", "see `mininetes doctor`")
            time.sleep(0.002)

    def _check_ports(self) -> None:
        """A port that vswitchd could not make shows as an error in the database."""
        errors = self._vsctl("--bare", "--columns=name,error", "find", "Interface", "error!=[]").split()
        if errors:
            raise PlatformError(
                f"Open vSwitch of {self.host.name} refused {' '.join(errors)}", "see `mininetes doctor`"
            )


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(str(path)) == 0


def _port(bridge: str, port: Port) -> list[str]:
    command = ["--may-exist", "add-port", bridge, port.name, "--", "set", "Interface", port.name]
    command += [f"ofport_request={port.number}"]
    command += [f"type={port.type}"] if port.type else []
    command += [f'mac="{port.mac}"'] if port.mac else []
    command += [f"options:{key}={value}" for key, value in port.options]
    if not port.type:
        # Without this vswitchd would remove what shapes the interface (ovs-vswitchd.conf.db(5), QoS, linux-noop).
        command += ["--", f"--id=@{port.name}", "create", "QoS", "type=linux-noop"]
        command += ["--", "set", "Port", port.name, f"qos=@{port.name}"]
    return command


def empty_database(run: Path) -> Path:
    """An empty database to copy: making one takes longer than copying it. Raises PlatformError without Open vSwitch."""
    schema = Path("/usr/share/openvswitch/vswitch.ovsschema")
    if not schema.exists() or shutil.which("ovsdb-tool") is None:
        raise PlatformError("Open vSwitch is not installed", "apt-get install openvswitch-switch, or `make install`")
    path = run / "empty.db"
    subprocess.run(["ovsdb-tool", "create", str(path), str(schema)], check=True, capture_output=True)
    return path
