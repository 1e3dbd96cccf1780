"""One private Open vSwitch on its dummy datapath (no root, no kernel module), and a raw OpenFlow connection to it."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ryu.ofproto import ofproto_parser

from controllers import wire
from controllers.flow.program import Program
from controllers.ryu_compat import ProtocolDesc
from controllers.sync import BridgeSync, Held, Resync, resync

HELLO = struct.pack("!BBHI", wire.VERSION, 0, 8, 1)
OFPT_ERROR, OFPT_MULTIPART_REPLY, OFPT_BARRIER_REPLY = 1, 19, 21


class Switch:
    """A bridge of the private Open vSwitch."""

    def __init__(self, run: Path, bridge: str) -> None:
        self.run, self.bridge = run, bridge
        self.environment = {**os.environ, "OVS_RUNDIR": str(run)}
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(run / f"{bridge}.mgmt"))
        self.sock.sendall(HELLO)
        self.stream = self.sock.makefile("rb")
        self._read()  # its hello

    def command(self, *argv: str) -> str:
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=20)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _read(self) -> tuple[int, int, bytes]:
        header = self.stream.read(8)
        _, kind, length, xid = struct.unpack("!BBHI", header)
        return kind, xid, header + self.stream.read(length - 8)

    def send(self, messages: list[bytes]) -> list[str]:
        """Send and wait for the barrier; what the switch refused."""
        errors = []
        self.sock.sendall(b"".join([*messages, wire.barrier(77)]))
        while True:
            kind, xid, raw = self._read()
            if kind == OFPT_ERROR:
                errors.append("type {} code {}: {}".format(*struct.unpack_from("!HH", raw, 8), raw[12:].hex()))
            elif kind == OFPT_BARRIER_REPLY and xid == 77:
                return errors

    def load(self, program: Program) -> list[str]:
        """Set every group and flow of a program; what was refused."""
        fragments = list(program.values())
        messages = [wire.set_group(g) for fragment in fragments for g in fragment.groups]
        return self.send(messages + [wire.set_flow(x) for fragment in fragments for x in fragment.flows])

    def held(self) -> Held:
        """What the switch says it holds, read as the controller reads it."""
        from controllers.ryu_compat import parser

        reader = BridgeSync.__new__(BridgeSync)
        reader._held = Held()
        for kind, raw in self._multipart(wire.flow_stats_request(5)):
            assert kind == 1
            body, offset = raw[16:], 0
            while offset < len(body):
                stats = parser.OFPFlowDesc.parser(body, offset)
                reader.holds_flow(stats.table_id, stats.cookie)
                offset += stats.length
        for kind, raw in self._multipart(wire.group_desc_request(6)):
            assert kind == 7
            reader.holds_groups(raw[16:])
        return reader._held

    def _multipart(self, request: bytes) -> Iterator[tuple[int, bytes]]:
        self.sock.sendall(request)
        while True:
            kind, _, raw = self._read()
            assert kind == OFPT_MULTIPART_REPLY, raw
            assert ofproto_parser.msg(ProtocolDesc(version=wire.VERSION), raw[0], kind, len(raw), 0, raw) is not None
            part, flags = struct.unpack_from("!HH", raw, 8)
            yield part, raw
            if not flags & 1:
                return

    def resync(self, program: Program) -> Resync:
        """What a controller that starts anew would send."""
        return resync(self.held(), program)

    def trace(self, flow: str) -> str:
        """ofproto/trace; dp_hash must be given and not 0, or it stops at a select group."""
        return self.command("ovs-appctl", "-t", str(self.run / "vswitchd.ctl"), "ofproto/trace", self.bridge, flow)


@pytest.fixture(scope="session")
def ovs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run folder of a private Open vSwitch."""
    if shutil.which("ovs-vswitchd") is None:
        pytest.skip("Open vSwitch is not installed: make install")
    # A unix socket's path is at most 107 characters, and pytest's folders are deep.
    run = Path(tmp_path_factory.mktemp("o", numbered=True))
    environment = {**os.environ, "OVS_RUNDIR": str(run), "OVS_DBDIR": str(run), "OVS_LOGDIR": str(run)}
    quiet: dict[str, Any] = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    schema = "/usr/share/openvswitch/vswitch.ovsschema"
    subprocess.run(["ovsdb-tool", "create", str(run / "conf.db"), schema], check=True, **quiet)
    database = subprocess.Popen(
        ["ovsdb-server", str(run / "conf.db"), "--remote=punix:db.sock", f"--unixctl={run}/db.ctl"], cwd=run, **quiet
    )
    daemon = None
    try:
        _wait_for(run / "db.sock")
        subprocess.run(["ovs-vsctl", "--no-wait", f"--db=unix:{run}/db.sock", "init"], check=True, **quiet)
        daemon = subprocess.Popen(
            [
                "ovs-vswitchd",
                "unix:db.sock",
                "--enable-dummy=override",
                "--disable-system",
                f"--unixctl={run}/vswitchd.ctl",
            ],
            cwd=run,
            **quiet,
        )
        _wait_for(run / "vswitchd.ctl")
        yield run
    finally:
        for process in filter(None, (daemon, database)):
            process.kill()
            process.wait()


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 10
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.01)


@pytest.fixture
def bridge(ovs: Path) -> Iterator[Any]:
    """Makes bridges with dummy ports of the given OpenFlow numbers; they go after the test."""
    made: list[Switch] = []

    def make(*ports: int) -> Switch:
        name = f"br{len(made)}"
        command = ["ovs-vsctl", "--timeout=10", f"--db=unix:{ovs}/db.sock", "add-br", name]
        command += ["--", "set", "Bridge", name, "datapath_type=dummy", "fail_mode=secure"]
        command += ["protocols=[OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15]"]
        for number in ports:
            command += ["--", "add-port", name, f"{name}-{number}", "--", "set", "Interface", f"{name}-{number}"]
            command += ["type=dummy", f"ofport_request={number}"]
        subprocess.run(command, check=True, env={**os.environ, "OVS_RUNDIR": str(ovs)}, capture_output=True)
        _wait_for(ovs / f"{name}.mgmt")
        made.append(Switch(ovs, name))
        return made[-1]

    yield make
    for switch in made:
        switch.sock.close()
        switch.command("ovs-vsctl", "--timeout=10", f"--db=unix:{ovs}/db.sock", "del-br", switch.bridge)
