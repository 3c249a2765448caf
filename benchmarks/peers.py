"""The peers that the fleet is measured beside, each set up as well as it can be.

ClusterShell's clush, pdsh and Ansible go over one real sshd, which is known under many names; Salt has a master and
minions of its own. What the package index has is installed into `.venv/peers` once.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from .latency import free_port, run, started_ssh_config
from .programs import ROOT
from .tables import Unable

HOME = ROOT / ".venv" / "peers"
SSHD_MORE = """\
MaxStartups 1000
MaxSessions 1000
LoginGraceTime 120
"""
NAMES = """\
Host new* kept*
    HostName 127.0.0.1
    HostKeyAlias {alias}
Host kept*
    ControlMaster auto
    ControlPath {folder}/%n
    ControlPersist yes
"""
ANSIBLE = """\
[defaults]
inventory = {folder}/inventory
forks = {count}
local_tmp = {folder}/ansible
interpreter_python = {python}
[ssh_connection]
ssh_args = -F {folder}/names -o ControlMaster=auto -o ControlPersist=600s
control_path_dir = {folder}/a
pipelining = True
"""
MASTER = """\
interface: 127.0.0.1
publish_port: {publish}
ret_port: {port}
root_dir: {folder}
pki_dir: {folder}/pki
cachedir: {folder}/cache
sock_dir: {folder}/sock
pidfile: {folder}/pid
log_file: {folder}/log
log_level_logfile: error
user: {user}
auto_accept: True
timeout: 60
"""
MINION = """\
master: 127.0.0.1
publish_port: {publish}
master_port: {port}
id: {name}
root_dir: {folder}
pki_dir: {folder}/pki
cachedir: {folder}/cache
sock_dir: {folder}/sock
pidfile: {folder}/pid
log_file: {folder}/log
log_level_logfile: error
user: {user}
"""
SALT_START_S = 240.0
IN_A_SESSION = "setsid -w ssh"
"""Linux shares its processors among sessions (sched_autogroup), and on this host the far ends are sessions too, one for
each connection: all of clush's ssh together would get as much as one of those, and take four times as long."""

Command = Callable[[], None]


def installed(name: str, requirement: str, program: str) -> str:
    """Return the path of *program*, from a venv with *requirement*, made if need be. Raises Unable."""
    folder = HOME / name
    path = folder / "bin" / program
    if not path.exists():
        try:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True, capture_output=True, text=True)
            pip = [folder / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", requirement]
            subprocess.run(pip, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(folder, ignore_errors=True)
            said = getattr(error, "stderr", "") or str(error)
            raise Unable(f"{name} can't be installed: {said.strip().splitlines()[-1]}") from error
    return str(path)


class OverSsh:
    """Many names of one sshd on this host: *folder* has the `names` file that ssh is to read."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = folder / "names"
        self._environ = {"PATH": os.environ["PATH"], "HOME": str(folder / "empty"), "LANG": "C.UTF-8"}

    @property
    def names(self) -> Path:
        """The configuration in which ssh finds those names."""
        return self._names

    def ssh(self, host: str, program: Path | None = None) -> Command:
        """Return what runs `true` on *host* with plain ssh, by way of *program* if that is given."""
        found = program or shutil.which("ssh")
        assert found is not None
        return self._command([str(found), "-F", str(self._names), host, "true"])

    def clush(self, hosts: str, count: int) -> Command:
        """Return what runs `true` on *hosts* with clush, all at once."""
        program = str(Path(sys.executable).parent / "clush")  # clustersh itself needs ClusterShell
        words = [program, "-q", "-f", str(count), "-o", f"-F {self._names}", "-w", hosts, "true"]
        return self._command([*words, "-O", f"ssh_path={IN_A_SESSION}"] if shutil.which("setsid") else words)

    def pdsh(self, hosts: str, count: int) -> Command:
        """Return what runs `true` on *hosts* with pdsh, all at once."""
        program = shutil.which("pdsh")
        if program is None:
            raise Unable("no pdsh here; on Debian: apt-get install pdsh")
        words = [program, "-R", "ssh", "-S", "-f", str(count), "-w", hosts, "true"]
        return self._command(words, {"PDSH_SSH_ARGS_APPEND": f"-F {self._names}"})

    def ansible(self, hosts: Sequence[str]) -> Command:
        """Return what runs `true` on *hosts* with Ansible's raw module, all at once, over connections that it keeps."""
        program = installed("ansible", "ansible-core >= 2.17", "ansible")
        (self._folder / "inventory").write_text("".join(f"{host}\n" for host in hosts))
        config = self._folder / "ansible.cfg"
        python = sys.executable
        config.write_text(ANSIBLE.format(folder=self._folder, count=len(hosts), python=python))
        return self._command([program, "all", "-m", "raw", "-a", "true"], {"ANSIBLE_CONFIG": str(config)})

    def close(self) -> None:
        """End the connections that are kept."""
        for pattern in ("kept*", "a/*"):
            for path in self._folder.glob(pattern):
                words = ["ssh", "-F", str(self._names), "-o", f"ControlPath={path}", "-O", "exit", "kept"]
                subprocess.run(words, capture_output=True, check=False)

    def _command(self, words: Sequence[str], more: Mapping[str, str] | None = None) -> Command:
        environ = {**self._environ, **(more or {})}
        return lambda: run(words, environ) and None


@contextlib.contextmanager
def over_ssh(folder: Path) -> Iterator[OverSsh]:
    """Start an sshd that answers to any name that begins with `new` or `kept`."""
    folder.mkdir()
    with started_ssh_config(folder, SSHD_MORE):
        known = (folder / "ssh_config").read_text()
        port = re.search(r"Port (\d+)", known)
        assert port is not None
        known = re.sub(r"^Host (here kept|kept)$", r"Host new* kept*", known.partition("Host kept\n")[0], flags=re.M)
        alias = f"[127.0.0.1]:{port[1]}"
        (folder / "names").write_text(known + NAMES.format(folder=folder, alias=alias))
        peers = OverSsh(folder)
        try:
            yield peers
        finally:
            peers.close()


@contextlib.contextmanager
def salt(folder: Path, count: int) -> Iterator[Command]:
    """Start a Salt master and *count* minions; yield what runs `true` on all of them."""
    programs = {name: installed("salt", "salt >= 3007", name) for name in ("salt", "salt-master", "salt-minion")}
    words = {"user": os.environ.get("USER") or "root", "publish": free_port(), "port": free_port()}
    with contextlib.ExitStack() as running:
        master = _configured(folder / "master", "master", MASTER, words)
        running.enter_context(_service([programs["salt-master"], "-c", str(master)], master))
        for number in range(count):
            name = f"minion-{number}"
            minion = _configured(folder / name, "minion", MINION, {**words, "name": name})
            running.enter_context(_service([programs["salt-minion"], "-c", str(minion)], minion))
        environ = {**os.environ, "HOME": str(folder)}

        def answering() -> bool:
            command = [programs["salt"], "-c", str(master), "--out", "txt", "-t", "5", "*", "test.ping"]
            told = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
            return told.stdout.count(": True") == count

        give_up = time.monotonic() + SALT_START_S
        while not answering():
            if time.monotonic() > give_up:
                raise Unable(f"Salt's {count} minions did not answer within {SALT_START_S:g} s")
        # Salt reads its words as YAML, where `true` is no text.
        command = [programs["salt"], "-c", str(master), "*", "cmd.run", "exit 0"]
        yield lambda: run(command, environ) and None


def _configured(folder: Path, name: str, text: str, words: Mapping[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / name).write_text(text.format(folder=folder, **words))
    return folder


@contextlib.contextmanager
def _service(words: Sequence[str], folder: Path) -> Iterator[None]:
    """Run a service in a session of its own, and end all of that: at once, for a minion takes its time when asked."""
    with (folder / "said").open("wb") as said:
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
