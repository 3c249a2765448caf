"""Windows: a scheduled task that starts at the user's logon, or with the machine."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import ClassVar

from . import templates
from .manager import Look, Manager, last_error, remove_logs
from .spec import Scope, Spec

_SYSTEM = "S-1-5-18"
_BOOT = "<BootTrigger><Enabled>true</Enabled></BootTrigger>"
_LOGON_TYPE = "<LogonType>{kind}</LogonType>"
_LOGON = "<LogonTrigger><Enabled>true</Enabled><UserId>{user}</UserId></LogonTrigger>"


class Tasks(Manager):
    """Keeps the task's XML beside the service's state, and has schtasks do the rest."""

    kind: ClassVar[str] = "task"

    def definition(self, spec: Spec) -> Path:
        return spec.home / f"{spec.program.name}.xml"

    def render(self, spec: Spec) -> bytes:
        return task(spec).encode("utf-8")

    def log(self, spec: Spec) -> str:
        return str(spec.log)

    def _enable(self, spec: Spec, *, changed: bool) -> tuple[str, ...]:
        # schtasks reads what the XML itself says it is: UTF-16.
        content, words = task(spec).encode("utf-16"), ("/Create", "/TN", _name(spec), "/XML", "task.xml", "/F")
        self._hands.run_with("task.xml", content, "schtasks", *words)
        if spec.scope is Scope.SYSTEM:
            return ()
        return (f"it starts when {spec.user} logs on; one that starts with the machine: --system",)

    def _start(self, spec: Spec, *, again: bool) -> None:
        running = self._watch.running(spec)
        if running is not None and again:
            self._stop(spec, running.pid)
        if running is None or again:
            self._hands.run("schtasks", "/Run", "/TN", _name(spec))

    def _look(self, spec: Spec) -> Look:
        shown = self._hands.ask("schtasks", "/Query", "/TN", _name(spec), "/FO", "CSV", "/NH")
        rows = csv.reader(shown.out.splitlines()) if shown.status == 0 else ()
        known = any(row and row[0] == _name(spec) for row in rows)
        running = self._watch.running(spec)
        return Look(known and spec.scope is Scope.SYSTEM, running is not None, running.pid if running else None)

    def _end(self, spec: Spec) -> None:
        running = self._watch.running(spec)
        if running is not None:
            self._stop(spec, running.pid)
        if self._hands.ask("schtasks", "/Query", "/TN", _name(spec)).status == 0:
            self._hands.run("schtasks", "/Delete", "/TN", _name(spec), "/F")

    def _clean_up(self, spec: Spec, was: str) -> tuple[str, ...]:
        remove_logs(self._hands, spec)
        return ()

    def _last_words(self, spec: Spec) -> str:
        return last_error(spec, spec.log)

    def _stop(self, spec: Spec, pid: int) -> None:
        self._hands.try_to("schtasks", "/End", "/TN", _name(spec))
        self._watch.until_gone(spec, pid, spec.stop_s)


def task(spec: Spec) -> str:
    """Return the task of *spec*."""
    system = spec.scope is Scope.SYSTEM
    own = system and spec.user == spec.program.system_user
    user = templates.xml(_SYSTEM if own else spec.user)
    arguments = " ".join(("--home", templates.windows(str(spec.home)), "--logfile", templates.windows(str(spec.log))))
    return templates.render(
        "windows/service.xml",
        title=spec.program.title,
        name=_name(spec),
        trigger=_BOOT if system else _LOGON.format(user=user),
        user=user,
        logon="" if own else _LOGON_TYPE.format(kind="S4U" if system else "InteractiveToken"),
        level="HighestAvailable" if system else "LeastPrivilege",
        executable=templates.xml(str(spec.executable)),
        arguments=templates.xml(arguments),
    )


def _name(spec: Spec) -> str:
    return f"\\clustersh\\{spec.program.name}"
