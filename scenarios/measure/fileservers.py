"""Real servers for downloads, each by itself in a place: nginx (HTTP), vsftpd (FTP) and OpenSSH (SCP).

Each has its own configuration, port, keys and folder, none of the machine's. All of them run as nobody of a user
namespace of their own, as root or not: then none tries to change its user, which a lab without root does not have, and
sshd needs no user and no folder of the distribution. The user that logs in is the same nobody; sshd gives him
internal-sftp alone, so no shell is needed (sshd_config(5)); scp has spoken SFTP since OpenSSH 9.0.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scenarios.measure.place import Place, ProgramError, end, start

USER, NOBODY = "nobody", 65534  # Debian's, Debian Policy 9.2.2
FILE, SMALL = "file", "small"  # what is downloaded, and a request whose answer is short
PORTS: Mapping[str, int] = {"http": 8088, "ftp": 2121, "scp": 2222}
_UNPRIVILEGED = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
_LISTENING = "0A"  # TCP_LISTEN in /proc/net/tcp (proc(5))
_STEP, _PATIENCE = 0.02, 10.0


@dataclass(frozen=True, slots=True)
class Folder:
    """What servers of all places share: the file, and keys. path: absolute, gone with the lab."""

    path: Path
    size: int

    @property
    def key(self) -> Path:
        """The client's key."""
        return self.path / "client-key"


def prepare(path: Path, size: int) -> Folder:
    """Make a folder with a file of so many bytes, and keys."""
    path.mkdir(parents=True)
    with (path / FILE).open("wb") as file:
        file.write(bytes(size))
    folder = Folder(path, size)
    for key in (folder.key, path / "host-key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True, timeout=30)
    return folder


@contextmanager
def serving_files(kind: str, place: Place, folder: Folder) -> Iterator[None]:
    """Run one of PORTS' servers around the body. Raises ProgramError if it does not come to listen."""
    own = folder.path / f"{kind}-{place.address}"
    own.mkdir(exist_ok=True)
    configuration = own / "configuration"
    configuration.write_text(CONFIGURATIONS[kind](place.address, folder.path, own))
    process = start(place, _commands(own)[kind], stdin=subprocess.PIPE)
    try:
        _await_listening(process, place, PORTS[kind])
        yield
    finally:
        end(process)


def _commands(own: Path) -> dict[str, list[str]]:
    # sshd starts itself again for every connection, and refuses to by a name that is no whole path.
    configuration, passwords = str(own / "configuration"), own / "shadow"
    passwords.write_text(f"{USER}:*:1::::::\n")
    return {
        # Without -e it would open the distribution's log before it has read a line of ours.
        "http": [*_UNPRIVILEGED, "nginx", "-e", "stderr", "-p", str(own), "-c", configuration],
        "ftp": [*_UNPRIVILEGED, "vsftpd", configuration],
        # Who may not read the machine's shadow file is told by systemd (nss-systemd(8)) that nobody is locked.
        "scp": ["unshare", "--mount", "sh", "-c", 'mount --bind "$0" /etc/shadow && exec "$@"', str(passwords)]
        + [*_UNPRIVILEGED, shutil.which("sshd") or "sshd", "-D", "-e", "-f", configuration],
    }


def nginx(address: str, folder: Path, own: Path) -> str:
    """Its configuration: one worker, no log, files as they are and a short answer."""
    kept = " ".join(f"{name}_temp_path {own}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""\
worker_processes 1;
daemon off;
pid {own}/pid;
error_log stderr error;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    {kept}
    server {{
        listen {address}:{PORTS["http"]};
        root {folder};
        location = /{SMALL} {{ return 200 "{"x" * 64}"; }}
    }}
}}
"""


def vsftpd(address: str, folder: Path, own: Path) -> str:
    """Its configuration: anonymous, reading only, no second user (vsftpd.conf(5))."""
    del own
    return f"""\
listen=YES
background=NO
listen_address={address}
listen_port={PORTS["ftp"]}
run_as_launching_user=YES
anonymous_enable=YES
no_anon_password=YES
anon_root={folder}
local_enable=NO
write_enable=NO
connect_from_port_20=NO
xferlog_enable=NO
seccomp_sandbox=NO
"""


def sshd(address: str, folder: Path, own: Path) -> str:
    """Its configuration: one key, one user, SFTP and nothing else (sshd_config(5))."""
    del own
    return f"""\
ListenAddress {address}
Port {PORTS["scp"]}
HostKey {folder}/host-key
AuthorizedKeysFile {folder}/client-key.pub
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers {USER}
PidFile none
UseDNS no
Compression no
LogLevel ERROR
Subsystem sftp internal-sftp
ForceCommand internal-sftp
"""


CONFIGURATIONS: Mapping[str, Callable[[str, Path, Path], str]] = {"http": nginx, "ftp": vsftpd, "scp": sshd}


def is_listening(table: str, port: int) -> bool:
    """Whether a socket listens at the port, by the text of /proc/net/tcp."""
    rows = (line.split() for line in table.splitlines()[1:])
    return any(row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port for row in rows)


def _await_listening(process: subprocess.Popen[bytes], place: Place, port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not is_listening(Path(f"/proc/{place.pid}/net/tcp").read_text(), port):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            said = process.stdout.read().decode(errors="replace").strip()[-400:] if ended and process.stdout else ""
            how = f"ended: {said}" if ended else f"does not listen at {port} within {_PATIENCE:g} s"
            raise ProgramError(f"server in {place.name}: {how}")
        time.sleep(_STEP)
