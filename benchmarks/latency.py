"""What one short command costs from start to end: `clustersh run here true` beside `ssh here true`, whole processes.

clustersh is measured with a warm standby, without one, and as a first call, which leaves one behind. Last come loops
of a shell: one, and many at once.

Both sides are real and on loopback: a coordinator and an agent of their own, and an OpenSSH server with its own keys
and configuration. The runs are interleaved, so that whatever else the machine does meets them all alike. ssh is
measured twice: over a new connection each time, and over one that is kept open (ControlMaster). The remote shell of
ssh gets an empty home, so that nobody's start-up files are measured. Everything lives in a temporary directory.
"""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import os
import shlex
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .tables import Unable, aim

START_WITHIN_S = 15.0
QUICK_MS = 25
LOOP, LOOPS = 200, 20
"""Calls of one loop, and how many loops share as many."""

SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/user_key.pub
# The keys lie below a temporary directory that everyone may write to.
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
PermitUserRC no
PrintMotd no
PrintLastLog no
MaxSessions 100
SetEnv HOME={folder}/empty
"""

SSH_CONFIG = """\
Host here kept
    HostName 127.0.0.1
    Port {port}
    User {user}
    IdentityFile {folder}/user_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile /dev/null
    StrictHostKeyChecking yes
    BatchMode yes
Host kept
    ControlMaster auto
    ControlPath {folder}/kept
    ControlPersist yes
"""


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description="clustersh run beside ssh, as whole processes")
    parser.add_argument("--runs", type=int, default=30, help="measured runs of each (default: 30)")
    parser.add_argument("--warm-up", type=int, default=3, help="runs of each before those (default: 3)")
    parser.add_argument("--loop", type=int, default=LOOP, help=f"calls of a shell's loop (default: {LOOP})")
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="clustersh-") as name, contextlib.ExitStack() as running:
            folder = Path(name)
            ours = running.enter_context(started_calls(folder))
            new, kept = running.enter_context(started_sshd(folder))
            calls = {**ours, "ssh (new connection)": new, "ssh (kept connection)": kept}
            measured = measure(calls, options.warm_up, options.runs)
            memory = memory_of_standby(ours["clustersh run"])
            rates = {name: looped(calls[name], options.loop) for name in ("clustersh run", "ssh (kept connection)")}
    except Unable as error:
        sys.stderr.write(f"ERROR: {error}\n")
        return 1
    sys.stdout.write(table(measured))
    for name, (one, many) in rates.items():
        sys.stdout.write(f"{name:<32} {one:>8.1f} calls/s in one loop, {many:.1f} in {LOOPS} at once\n")
    sys.stdout.write(f"the standby's memory, idle: {memory / (1 << 20):.1f} MiB\n")
    sys.stdout.write(aims({name: statistics.median(times) for name, times in measured.items()}))
    return 0


def measure(commands: Mapping[str, Callable[[], None]], warm_up: int, runs: int) -> dict[str, list[float]]:
    """Run each of *commands* in turn, *warm_up* and then *runs* times; return the milliseconds of the latter."""
    measured: dict[str, list[float]] = {name: [] for name in commands}
    for turn in range(warm_up + runs):
        for name, command in commands.items():
            before = time.perf_counter()
            command()
            took = time.perf_counter() - before
            if turn >= warm_up:
                measured[name].append(took * 1000)
            if isinstance(command, Call):
                command.clear()
    return measured


def table(measured: Mapping[str, Sequence[float]]) -> str:
    """Return the figures as text; the last lines are ratios of medians."""
    lines = [f"{'command `true`, whole process':<32} {'min ms':>8} {'median ms':>10} {'max ms':>8} {'runs':>5}"]
    for name, times in measured.items():
        figures = f"{min(times):>8.1f} {statistics.median(times):>10.1f} {max(times):>8.1f} {len(times):>5}"
        lines.append(f"{name:<32} {figures}")
    ours = statistics.median(measured["clustersh run"])
    peers = (name for name in ("ssh (new connection)", "ssh (kept connection)") if name in measured)
    lines += [f"ratio to {name}: {ours / statistics.median(measured[name]):.2f}" for name in peers]
    return "\n".join([*lines, ""])


def aims(medians: Mapping[str, float]) -> str:
    """Return how the *medians*, in milliseconds, stand to what they should be."""
    ours, new, kept = (medians[name] for name in ("clustersh run", "ssh (new connection)", "ssh (kept connection)"))
    lines = [
        aim(f"{name} at most {QUICK_MS} ms (here {medians[name]:.1f})", medians[name] <= QUICK_MS)
        for name in ("clustersh run", "clustersh machines", "clustersh history")
    ]
    first, without = medians["clustersh run (leaves one)"], medians["clustersh run (no standby)"]
    return "".join(
        (
            *lines,
            aim(f"at most 0.15 of ssh over a new connection (here {ours / new:.2f})", ours <= 0.15 * new),
            aim(f"at most 4 times ssh over a kept one (here {ours / kept:.1f})", ours <= 4 * kept),
            aim(
                f"a call that leaves one is as quick as one that doesn't (here {first / without:.2f} of it)",
                first <= 1.05 * without,
            ),
        )
    )


class Call(NamedTuple):
    """One call that is measured: its *words* and environment, and what is done *after* it, which is not."""

    words: tuple[str, ...]
    environ: Mapping[str, str]
    after: tuple[str, ...] = ()

    def __call__(self) -> None:
        run(self.words, self.environ)

    def clear(self) -> None:
        """Do what is done after it."""
        if self.after:
            run(self.after, self.environ)


def looped(call: Call, calls: int) -> tuple[float, float]:
    """Return the calls a second of a shell that makes them one after the other, and of LOOPS such at once."""
    line = f"{shlex.join(call.words)} </dev/null || exit"
    rates = []
    for loops in (1, LOOPS):
        each = max(1, calls // loops)
        script = f"for n in {{1..{loops}}}; do (for m in {{1..{each}}}; do {line}; done) & all+=($!); done"
        before = time.perf_counter()
        run(["bash", "-c", f'{script}; for one in "${{all[@]}}"; do wait $one || exit; done'], call.environ)
        rates.append(loops * each / (time.perf_counter() - before))
    return rates[0], rates[1]


@contextlib.contextmanager
def started_calls(folder: Path) -> Iterator[dict[str, Call]]:
    """Start a coordinator and an agent; yield calls of a client that has a standby, and of one that has none yet."""
    with started_programs(folder / "home") as (program, machine, given):
        environ = {name: value for name, value in given.items() if name not in ("CI", "XDG_RUNTIME_DIR")}
        shutil.copytree(folder / "home" / "client", folder / "first" / "client")
        first = {**environ, "CLUSTERSH_HOME": str(folder / "first")}
        words, stop = (program, "run", machine, "true"), (program, "standby", "stop")
        run(words, environ)
        while not json.loads(run([program, "standby", "--json"], environ))["running"]:
            time.sleep(0.05)
        try:
            yield {
                "clustersh run": Call(words, environ),
                "clustersh machines": Call((program, "machines"), environ),
                "clustersh history": Call((program, "history"), environ),
                "clustersh __complete": Call((program, "__complete", "machines"), environ),
                "clustersh run (no standby)": Call(words, {**environ, "CLUSTERSH_STANDBY": "off"}),
                "clustersh run (leaves one)": Call(words, first, after=stop),
            }
        finally:
            run(stop, environ)


def memory_of_standby(call: Call) -> int:
    """Return the bytes of memory of the standby that *call* goes to."""
    shown = json.loads(run([call.words[0], "standby", "--json"], call.environ))
    return int(shown["memory_bytes"])


@contextlib.contextmanager
def started_programs(home: Path) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Start a coordinator and an agent; yield the program, the machine's name and the environment for it."""
    program = str(Path(sys.executable).parent / "clustersh")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CLUSTERSH_")}
    environ["CLUSTERSH_HOME"] = str(home)
    environ.pop("PYTHONDONTWRITEBYTECODE", None)  # else a changed checkout is compiled at every call
    try:
        run([program, "up", "--port", str(free_port())], environ)
        listed = json.loads(run([program, "machines", "--json"], environ))
        machine = listed["machines"][0]["name"]
        yield program, machine, environ
    finally:
        subprocess.run([program, "down"], env=environ, capture_output=True, check=False)


@contextlib.contextmanager
def started_sshd(folder: Path) -> Iterator[tuple[Call, Call]]:
    """Start an OpenSSH server; yield what runs `true` through it, over a new and over a kept connection."""
    with started_ssh_config(folder) as ssh:
        try:
            yield Call((*ssh, "here", "true"), os.environ), Call((*ssh, "kept", "true"), os.environ)
        finally:
            subprocess.run([*ssh, "-O", "exit", "kept"], stderr=subprocess.DEVNULL, check=False)


@contextlib.contextmanager
def started_ssh_config(folder: Path, more: str = "") -> Iterator[list[str]]:
    """Start an OpenSSH server; yield the words of an ssh command that knows it as ``here``, and ``kept``.

    *more* is put at the end of the server's configuration.
    """
    sshd = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if sshd is None or shutil.which("ssh") is None:
        raise Unable("no OpenSSH here; on Debian: apt-get install openssh-server openssh-client")
    port = free_port()
    (folder / "empty").mkdir()
    for key in ("host_key", "user_key"):
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], os.environ)
    host_key = (folder / "host_key.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(port=port, folder=folder) + more)
    (folder / "ssh_config").write_text(SSH_CONFIG.format(port=port, folder=folder, user=getpass.getuser()))
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, compiled in; it insists when it is root
    ssh = ["ssh", "-F", str(folder / "ssh_config")]
    with (folder / "sshd.log").open("wb") as log:
        server = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "sshd_config")], stderr=log)
    try:
        wait_for(port, server, folder / "sshd.log")
        run([*ssh, "here", "true"], os.environ)
        yield ssh
    finally:
        server.terminate()
        server.wait()


def run(command: Sequence[str], environ: Mapping[str, str]) -> str:
    """Run *command*; return its stdout. Raises Unable, with what it said, where it fails."""
    ran = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise Unable(f"`{' '.join(command)}` exited {ran.returncode}: {(ran.stderr or ran.stdout).strip()}")
    return ran.stdout


def wait_for(port: int, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until *server* accepts connections. Raises Unable, with its log, where it does not."""
    give_up = time.monotonic() + START_WITHIN_S
    while time.monotonic() < give_up and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise Unable(f"sshd did not start: {log.read_text(errors='replace').strip()}")


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
