"""launchd: agents of a user, which run while that user is logged in, and daemons, which run from the start on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from . import templates
from .manager import Look, Manager, last_error, remove_logs
from .spec import Scope, Spec

_PID = re.compile(r"^\s*pid = ([0-9]+)$", re.MULTILINE)
_USER_NAME = re.compile(r"\t<key>UserName</key>\n\t<string>.*?</string>\n")
_GONE_S = 30.0


class Launchd(Manager):
    """Writes property lists and has launchctl do the rest."""

    kind: ClassVar[str] = "launchd"

    def definition(self, spec: Spec) -> Path:
        if spec.scope is Scope.USER:
            return self._user_home / "Library/LaunchAgents" / f"{_label(spec)}.plist"
        return self._root / "Library/LaunchDaemons" / f"{_label(spec)}.plist"

    def render(self, spec: Spec) -> bytes:
        return plist(spec).encode()

    def log(self, spec: Spec) -> str:
        return str(spec.log)

    def _enable(self, spec: Spec, *, changed: bool) -> tuple[str, ...]:
        self._hands.run("launchctl", "enable", self._target(spec))
        if spec.scope is Scope.SYSTEM:
            return ()
        return (f"it starts when {spec.user} logs in; one that starts with the machine: --system",)

    def _start(self, spec: Spec, *, again: bool) -> None:
        loaded = self._hands.ask("launchctl", "print", self._target(spec)).status == 0
        if loaded and not again:
            self._hands.run("launchctl", "kickstart", self._target(spec))
            return
        if loaded:
            self._end(spec)
        self._hands.make_folder(spec)  # launchd opens the first log before there is a service that could make it
        self._hands.run("launchctl", "bootstrap", self._domain(spec), str(self.definition(spec)))

    def _look(self, spec: Spec) -> Look:
        shown = self._hands.ask("launchctl", "print", self._target(spec))
        pid = _PID.search(shown.out) if shown.status == 0 else None
        return Look(spec.scope is Scope.SYSTEM, pid is not None, int(pid[1]) if pid else None)

    def _end(self, spec: Spec) -> None:
        target = self._target(spec)
        if self._hands.ask("launchctl", "print", target).status != 0:
            return
        self._hands.run("launchctl", "bootout", target)
        # It returns before the service has ended, and until then another can't be loaded.
        self._watch.until(lambda: self._hands.ask("launchctl", "print", target).status != 0, spec.stop_s + _GONE_S)

    def _clean_up(self, spec: Spec, was: str) -> tuple[str, ...]:
        remove_logs(self._hands, spec, _start_log(spec))
        return ()

    def _last_words(self, spec: Spec) -> str:
        return last_error(spec, _start_log(spec)) or last_error(spec, spec.log)

    def _domain(self, spec: Spec) -> str:
        return "system" if spec.scope is Scope.SYSTEM else f"gui/{self._uid}"

    def _target(self, spec: Spec) -> str:
        return f"{self._domain(spec)}/{_label(spec)}"


def plist(spec: Spec) -> str:
    """Return the property list of *spec*."""
    text = templates.render(
        "launchd/service.plist",
        label=_label(spec),
        executable=templates.xml(str(spec.executable)),
        home=templates.xml(str(spec.home)),
        log=templates.xml(str(spec.log)),
        start_log=templates.xml(str(_start_log(spec))),
        user=templates.xml(spec.user),
        stop_s=str(spec.stop_s),
    )
    return text if spec.scope is Scope.SYSTEM else _USER_NAME.sub("", text)


def _label(spec: Spec) -> str:
    return f"clustersh.{spec.program.name}"


def _start_log(spec: Spec) -> Path:
    return spec.folder / "start.log"
