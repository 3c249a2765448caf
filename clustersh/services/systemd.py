"""systemd: units of the system, and units of a user who lingers, so that they run without a login."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from . import templates, users
from .commands import failed
from .definition import read
from .errors import ServiceError
from .manager import Look, Manager, error_in
from .spec import AGENT, COORDINATOR, Scope, Spec

_SYSTEM_FOLDER = "etc/systemd/system"
_USER_FOLDER = ".config/systemd/user"
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""What the strict unit of the coordinator doesn't see (ProtectHome)."""
_REFUSED = set("\"'\\")
_LINGER_OURS = "Linger=ours"
_LINGER_NOTE = f"""
# Lingering was turned on for this unit: the last such unit that is removed turns it off.
[X-Clustersh]
{_LINGER_OURS}
"""
_USER_MANAGER_S = 20.0


class Systemd(Manager):
    """Writes units and has systemctl do the rest."""

    kind: ClassVar[str] = "systemd"

    def definition(self, spec: Spec) -> Path:
        return self._folder(spec) / self._unit(spec)

    def render(self, spec: Spec) -> bytes:
        return unit(spec, linger_ours=self._lingers_for_us(spec)).encode()

    def log(self, spec: Spec) -> str:
        return f"journalctl {'--user ' if spec.scope is Scope.USER else ''}--unit {spec.program.name}"

    def _check(self, spec: Spec) -> None:
        super()._check(spec)
        if _REFUSED & set(str(spec.executable)):
            raise ServiceError(f"systemd starts no program whose path has quotes or backslashes: {spec.executable}")
        if (spec.program, spec.scope) == (COORDINATOR, Scope.SYSTEM):
            for path in users.programs(spec.executable):
                hidden = next((folder for folder in _HIDDEN if folder in path.parents), None)
                if hidden is not None:
                    raise users.unreachable(spec, path, hidden)

    def _enable(self, spec: Spec, *, changed: bool) -> tuple[str, ...]:
        notes = self._linger(spec) if spec.scope is Scope.USER else ()
        self._systemctl(spec, "daemon-reload")
        self._systemctl(spec, "enable", self._unit(spec))
        return notes

    def _start(self, spec: Spec, *, again: bool) -> None:
        self._systemctl(spec, "restart" if again else "start", self._unit(spec))

    def _look(self, spec: Spec) -> Look:
        words = (*self._words(spec), "show", "--property=ActiveState,UnitFileState,MainPID", self._unit(spec))
        shown = self._hands.ask(*words)
        if shown.status != 0:
            raise failed(words, shown)
        found = dict(line.split("=", 1) for line in shown.out.splitlines() if "=" in line)
        pid = int(found.get("MainPID") or 0)
        boot = found.get("UnitFileState") == "enabled" and (spec.scope is Scope.SYSTEM or self._lingers(spec))
        return Look(boot, found.get("ActiveState") == "active", pid or None)

    def _end(self, spec: Spec) -> None:
        self._systemctl(spec, "disable", "--now", self._unit(spec))

    def _clean_up(self, spec: Spec, was: str) -> tuple[str, ...]:
        self._systemctl(spec, "daemon-reload")
        self._hands.try_to(*self._words(spec), "reset-failed", self._unit(spec))
        if _LINGER_OURS in was and self._lingers(spec) and not self._others_enabled(spec):
            self._hands.run("loginctl", "disable-linger", spec.user)
        return ()

    def _failed(self, spec: Spec) -> bool:
        return self._hands.ask(*self._words(spec), "is-failed", "--quiet", self._unit(spec)).status == 0

    def _last_words(self, spec: Spec) -> str:
        words = (*self.log(spec).split(), "--lines=50", "--output=cat", "--no-pager")
        return error_in(self._hands.ask(*words).out)

    def _linger(self, spec: Spec) -> tuple[str, ...]:
        """See that this user's services start with the machine, and wait for the manager that runs them."""
        told: tuple[str, ...] = ()
        if not self._lingers(spec):
            words = ("loginctl", "enable-linger", spec.user)
            ran = self._hands.try_to(*words)
            if ran.status != 0:
                if not self._has_manager():
                    raise ServiceError(failed(words, ran).message, (f"sudo {' '.join(words)}, then the same again",))
                told = (
                    f"it starts when {spec.user} logs in; to have it start with the machine: sudo {' '.join(words)}",
                )
        if not self._watch.until(self._has_manager, _USER_MANAGER_S):
            raise ServiceError(
                f"systemd runs no services for {spec.user} (there is no {self._manager_socket()})",
                ("log in as that user, not through su or sudo, then the same again",),
                kind="unavailable",
            )
        return told

    def _lingers(self, spec: Spec) -> bool:
        return (self._root / "var/lib/systemd/linger" / spec.user).exists()

    def _lingers_for_us(self, spec: Spec) -> bool:
        """Whether lingering is on because one of our units needs it: the last one that goes turns it off."""
        if spec.scope is Scope.SYSTEM:
            return False
        ours = (spec._replace(program=program) for program in (AGENT, COORDINATOR))
        return not self._lingers(spec) or any(_LINGER_OURS in read(self.definition(each)) for each in ours)

    def _others_enabled(self, spec: Spec) -> bool:
        return any(path.name != self._unit(spec) for path in self._folder(spec).glob("*.wants/*"))

    def _has_manager(self) -> bool:
        return self._manager_socket().exists()

    def _manager_socket(self) -> Path:
        return self._root / "run/user" / str(self._uid) / "systemd/private"

    def _folder(self, spec: Spec) -> Path:
        return self._user_home / _USER_FOLDER if spec.scope is Scope.USER else self._root / _SYSTEM_FOLDER

    def _unit(self, spec: Spec) -> str:
        return f"{spec.program.name}.service"

    def _words(self, spec: Spec) -> tuple[str, ...]:
        return ("systemctl", "--user") if spec.scope is Scope.USER else ("systemctl",)

    def _systemctl(self, spec: Spec, *words: str) -> None:
        self._hands.run(*self._words(spec), *words)


def unit(spec: Spec, *, linger_ours: bool = False) -> str:
    """Return the unit of *spec*."""
    text = templates.render(
        f"systemd/{spec.program.name}.{spec.scope}.service",
        executable=templates.systemd(str(spec.executable)),
        home=templates.systemd(str(spec.home)),
        environment=templates.systemd(f"CLUSTERSH_HOME={spec.home}"),
        user=spec.user,
        stop_s=str(spec.stop_s),
    )
    return text + (_LINGER_NOTE if linger_ours else "")
