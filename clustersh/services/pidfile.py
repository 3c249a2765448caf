"""No manager of services (containers, old systems): twistd in the background with a pidfile, started by a script.

Whether it runs is not read from the pidfile, which a crash leaves behind, but from the lock on the service's state.
"""

from __future__ import annotations

import os
import shlex
import signal
from pathlib import Path
from typing import ClassVar

from . import templates, users
from .commands import Ran
from .errors import ServiceError
from .manager import Look, Manager, error_in, last_error, remove_logs
from .spec import AGENT, Scope, Spec, find_twistd

_PIDFILE = "twistd.pid"
_KILLED_S = 15.0


class Pidfile(Manager):
    """Writes a script that starts the service, and runs it."""

    kind: ClassVar[str] = "pidfile"
    mode: ClassVar[int] = 0o755

    def definition(self, spec: Spec) -> Path:
        # The system's is root's own: whatever the service's user may write, root doesn't run.
        if spec.scope is Scope.SYSTEM:
            return self._root / "etc/clustersh" / f"start-{spec.program.name}"
        return spec.folder / "start"

    def render(self, spec: Spec) -> bytes:
        return start_script(spec, self.definition(spec)).encode()

    def log(self, spec: Spec) -> str:
        return str(spec.log)

    def _enable(self, spec: Spec, *, changed: bool) -> tuple[str, ...]:
        if self._in_crontab(spec):
            return ()
        line = f"@reboot {_in_cron(self.definition(spec))}"
        return (f"nothing starts services here; to have it start with the machine: crontab -e, and the line  {line}",)

    def _start(self, spec: Spec, *, again: bool) -> None:
        running = self._watch.running(spec)
        if running is not None and not again:
            return
        if running is not None:
            self._end(spec)
        ran = self._hands.try_to(str(self.definition(spec)))
        if ran.status != 0:
            raise _not_started(spec, ran)

    def _look(self, spec: Spec) -> Look:
        if spec.home.exists() and not os.access(spec.home, os.X_OK):
            raise ServiceError(
                f"whether {spec.program.name} runs is for {spec.user} and root to see",
                ("the same with sudo",),
                kind="policy",
            )
        running = self._watch.running(spec)
        return Look(self._in_crontab(spec), running is not None, running.pid if running else None)

    def _end(self, spec: Spec) -> None:
        running = self._watch.running(spec)
        if running is None:
            return
        for number, seconds in ((signal.SIGTERM, spec.stop_s), (signal.SIGKILL, _KILLED_S)):
            self._signal(spec, running.pid, number)
            # It lets go of its state before it has ended: what it then still does must not outlive the service.
            if self._watch.until_gone(spec, running.pid, seconds) and self._watch.until(
                lambda: _ended(running.pid), seconds
            ):
                return
        raise ServiceError(f"{spec.program.name} (process {running.pid}) does not end", kind="unavailable")

    def _clean_up(self, spec: Spec, was: str) -> tuple[str, ...]:
        remove_logs(self._hands, spec, spec.folder / _PIDFILE)
        if spec.scope is Scope.SYSTEM:
            self._hands.remove_if_empty(self.definition(spec).parent)
        return ("take its line out of the crontab: crontab -e",) if self._in_crontab(spec) else ()

    def _failed(self, spec: Spec) -> bool:
        return self._watch.running(spec) is None  # twistd is in the background only after the lock was taken

    def _in_crontab(self, spec: Spec) -> bool:
        try:
            lines = self._hands.ask("crontab", "-l").out.splitlines()
        except ServiceError:  # there is no cron
            return False
        return any(line.startswith("@reboot") and _in_cron(self.definition(spec)) in line for line in lines)

    def _last_words(self, spec: Spec) -> str:
        return last_error(spec, spec.log)

    def _signal(self, spec: Spec, pid: int, number: int) -> None:
        """Signal process *pid*, if it is the service's user's: the file that names it is that user's to write."""
        ids = users.account(spec.user)
        try:
            owner = Path(f"/proc/{pid}").stat().st_uid
        except FileNotFoundError:
            return
        if spec.scope is Scope.SYSTEM and (ids is None or owner != ids[0]):
            raise ServiceError(f"process {pid}, which {spec.folder} names, is not {spec.user}'s", kind="policy")
        try:
            self._hands.send(pid, number)
        except ProcessLookupError:
            return
        except PermissionError as error:
            raise ServiceError(f"process {pid} is another user's: only that user may stop it", kind="policy") from error


def start_script(spec: Spec, script: Path) -> str:
    """Return the script at *script* that starts *spec*."""
    pidfile = spec.folder / _PIDFILE
    twistd = (
        str(find_twistd(spec.executable)),
        f"--pidfile={pidfile}",
        f"--logfile={spec.log}",
        "--logger=clustersh.log.text_log",
        "--umask=022",
        # In the user's home, so that commands, which run there, inherit it.
        f"--rundir={_home_of(spec) if spec.program is AGENT else '/'}",
        spec.program.name,
        f"--home={spec.home}",
    )
    # The pidfile is not asked: one that a crash left may name some other process by now.
    command = f"rm -f {shlex.quote(str(pidfile))}; exec {shlex.join(twistd)}"
    words: tuple[str, ...] = ("sh", "-c", command)
    if spec.scope is Scope.SYSTEM and spec.user != "root":
        words = ("su", "-s", "/bin/sh", "-c", command, spec.user)
    return templates.render(
        "pidfile/start.sh",
        title=spec.program.title,
        name=spec.program.name,
        script=str(script),
        command=shlex.join(words),
    )


def _in_cron(script: Path) -> str:
    return shlex.quote(str(script)).replace("%", "\\%")


def _home_of(spec: Spec) -> str:
    return os.path.expanduser(f"~{spec.user}") if spec.scope is Scope.SYSTEM else os.path.expanduser("~")  # noqa: PTH111


def _not_started(spec: Spec, ran: Ran) -> ServiceError:
    lines = [line.strip() for line in ran.err.splitlines() if line.strip()]
    reason = error_in(ran.err) or last_error(spec, spec.log) or (lines[-1] if lines else f"exit {ran.status}")
    hints = tuple(line.removeprefix("hint: ") for line in lines if line.startswith("hint: "))
    return ServiceError(f"{spec.program.name} did not start: {reason}", hints, kind="unavailable")


def _ended(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True
