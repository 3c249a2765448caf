"""A real sshd on loopback, and a user's ssh that knows it under several names."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .programs import Home, end, eventually

SSHD = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/{host_key}
PidFile none
AuthorizedKeysFile {folder}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
MaxStartups 1000
LogLevel VERBOSE
"""
CONFIG = """\
Host {names}
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    HostKeyAlias there
"""


def missing() -> str:
    """Return which of the programs is not here; "" where all are."""
    return next((name for name in ("ssh", "sshd", "ssh-keygen", "tar") if _path(name) is None), "")


def _path(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Sshd:
    """One server; `names` are what *home*'s user calls it."""

    folder: Path
    names: Sequence[str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        for key in ("host_key", "other_host_key", "user_key", "stranger_key"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        shutil.copy(self.folder / "user_key.pub", self.folder / "authorized_keys")
        self.know("host_key")

    def know(self, key: str) -> None:
        """Have the user know the server by that host key."""
        (self.folder / "known_hosts").write_text(f"there {(self.folder / f'{key}.pub').read_text()}")

    def start(self, more: str = "", host_key: str = "host_key") -> None:
        """Start the server, and wait until it listens."""
        config = self.folder / "sshd_config"
        config.write_text(SSHD.format(port=self.port, folder=self.folder, host_key=host_key) + more)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # it insists when it is root
        program = _path("sshd")
        assert program is not None
        with (self.folder / "sshd.log").open("ab") as log:
            words = [program, "-D", "-e", "-f", str(config)]
            self.process = subprocess.Popen(words, stderr=log, start_new_session=True)
        eventually(self._listens, what="sshd listens")

    def _listens(self) -> bool:
        assert self.process is not None and self.process.poll() is None, (self.folder / "sshd.log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        """End the server; its connections stay."""
        if self.process is not None:
            end(self.process)

    def connections(self) -> list[int]:
        """Return the pids of the processes that serve its connections."""
        assert self.process is not None
        found = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        return [int(pid) for pid in found.stdout.split()]

    def config(self, **more: str) -> str:
        """Return the user's configuration of it."""
        return CONFIG.format(names=" ".join(self.names), port=self.port, folder=self.folder, user=getpass.getuser())

    def introduce(self, home: Home, more: str = "") -> None:
        """Give *home*'s user a configuration that names the server, and *more*; for an agent's ssh, too.

        OpenSSH asks the accounts' database, and not $HOME, where its user's files are.
        """
        user = home.path.parent
        (user / ".ssh").mkdir(exist_ok=True)
        (user / ".ssh" / "config").write_text(self.config() + more)
        have_ssh(home, f'exec {_path("ssh")} -F "{user}/.ssh/config" "$@"')


def keep_from_ssh(home: Home) -> None:
    """See that *home*'s agent reaches no host at all."""
    have_ssh(home, 'echo "ssh: connect to host it port 22: Connection refused" >&2; exit 255')


def have_ssh(home: Home, line: str) -> None:
    """Have the ssh that *home*'s agent finds be that line of shell."""
    folder = home.path.parent / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "ssh").write_text(f"#!/bin/sh\n{line}\n")
    (folder / "ssh").chmod(0o755)
    home.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    home.path.mkdir(exist_ok=True)
    (home.path / "config.toml").write_text('[agent]\nenvironment = "service"\ngrace = "2s"\n')
