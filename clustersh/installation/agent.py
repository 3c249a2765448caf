"""A machine's agent: its config, its registration, its service. Whatever fails is undone, up to where it was before."""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import msgspec

from ..config import load
from ..home import HomeError, private_folder, read_json
from ..services import AGENT, Scope, ServiceError, Spec, make_spec, users
from ..services.commands import Commands
from ..trust.tokens import TOKEN_VARIABLE
from . import config_file
from .programs import Programs
from .wish import Wish, quietly

T = TypeVar("T")
_NAME = "clusteragent"
_ONLINE = "60s"
_TAIL_BYTES = 16 << 10


class Known(msgspec.Struct, frozen=True):
    """What an enrolled agent says of itself (``agent.json``)."""

    coordinator: str
    machine: str


class Shown(msgspec.Struct, frozen=True):
    """What is needed of ``clusteragent status --json``."""

    machine: str = ""
    connected: bool = False
    problem: str = ""


def install(wish: Wish) -> None:
    """Make this machine one that commands run on, and say so. Raises ServiceError."""
    spec = make_spec(AGENT, wish.scope, wish.environ, run_as=wish.run_as, prefix=wish.venv)
    layout, before = wish.layout, wish.layout.current_version()
    layout.note_folder(spec.folder)
    if wish.scope is Scope.SYSTEM:
        users.prepare(spec, Commands(wish.environ))
    programs = Programs(wish.venv / "bin", wish.environ, wish.console.err_now, spec)
    with ExitStack() as undo:
        _write_config(wish, spec, undo)
        joined_anew = _enroll(wish, spec, programs, undo)
        notes = _bring_up(wish, before, programs, undo, anew=joined_anew)
        shown = _wait(wish, spec, programs) if wish.service else _status(programs)
        undo.pop_all()
    layout.remove_others(before)
    _tell(wish, spec, shown.machine, notes)


def uninstall(wish: Wish) -> None:
    """End the service, give the registration up, and leave no file. May be done again. Raises ServiceError."""
    layout, bin_ = wish.layout, wish.layout.current / "bin"
    spec = make_spec(AGENT, wish.scope, wish.environ, prefix=layout.current_version())
    notes = list(wish.manager.uninstall(spec).notes)
    programs = Programs(bin_, wish.environ, wish.console.err_now, spec)
    machine = _known(spec)
    left = programs.run(_NAME, "leave", "--purge")
    if left.status != 0:
        left = programs.run(_NAME, "leave", "--purge", "--force")
        left.check()
    notes += left.hints
    with users.acting_as(spec):
        if not layout.installed("clustersh") or wish.scope is Scope.SYSTEM:
            config_file.remove_join(spec.home / "config.toml")
    layout.take_away(_NAME)
    if layout.is_empty():
        layout.make_current(None)
    _remove_if_empty(spec.home)
    name = machine.machine if machine else "this machine"
    wish.console.out_now(f"{name} has left, and clusteragent is removed.\n")
    for note in notes:
        wish.console.hint_now(note)


def _write_config(wish: Wish, spec: Spec, undo: ExitStack) -> None:
    path = spec.home / "config.toml"
    with users.acting_as(spec):
        was = config_file.read(path)
        if wish.scope is Scope.USER:
            private_folder(spec.home)
        undo.callback(quietly(lambda: _as_user(spec, lambda: config_file.restore(path, was))))
        config_file.set_join(path, wish.address, wish.ca_sha256)


def _enroll(wish: Wish, spec: Spec, programs: Programs, undo: ExitStack) -> bool:
    """Have the coordinator take this machine in; return whether it has a new registration, for its service to use."""
    known, existed = _known(spec), _as_user(spec, spec.folder.exists)
    words = [_NAME, "enroll", wish.address, "--ca", wish.ca_sha256]
    words += ["--name", wish.name] if wish.name else []
    anew = known is None
    if known is not None:
        if _ca_of(spec) not in ("", wish.ca_sha256):
            raise ServiceError(
                f"this machine is {known.machine} of another coordinator ({known.coordinator})",
                (f"to leave that one first: {wish.again('--uninstall')}",),
            )
        if known.coordinator != wish.address or wish.name not in ("", known.machine):
            words.append("--again")
            anew = True
    elif not existed:
        undo.callback(quietly(lambda: programs.run(_NAME, "leave", "--purge", "--force")))
    else:
        undo.callback(quietly(lambda: programs.run(_NAME, "leave", "--force")))
    wish.joined(programs.run(*words, **({TOKEN_VARIABLE: wish.token} if wish.token else {})))
    return anew


def _bring_up(wish: Wish, before: Path | None, programs: Programs, undo: ExitStack, *, anew: bool) -> tuple[str, ...]:
    """Make the version the current one and have its service run; one that does already is left alone."""
    layout, manager = wish.layout, wish.manager
    had, changed = layout.installed(_NAME), before != wish.venv

    def spec() -> Spec:
        made = make_spec(AGENT, wish.scope, wish.environ, run_as=wish.run_as, prefix=layout.current_version())
        return made._replace(stop_s=made.stop_s + _grace_s(made))

    if wish.service and had and changed:
        undo.callback(quietly(lambda: manager.install(spec(), restart=True)))
    if not had:
        undo.callback(quietly(lambda: layout.take_away(_NAME)))
    undo.callback(quietly(lambda: layout.make_current(before)))
    if changed:
        layout.make_current(wish.venv)
    layout.place(_NAME)
    if not wish.service:
        return ()
    layout.note_folder(manager.definition(spec()).parent)
    known = manager.status(spec()).installed
    if not known:
        undo.callback(quietly(lambda: manager.uninstall(spec())))
    return manager.install(spec(), restart=known and (changed or anew)).notes


def _grace_s(spec: Spec) -> int:
    with users.acting_as(spec):
        return round(load(spec.home).agent.grace)


def _wait(wish: Wish, spec: Spec, programs: Programs) -> Shown:
    shown = _status(programs, "--wait", _ONLINE)
    if not shown.connected:
        _keep_log(wish, spec)
        raise ServiceError(
            f"{shown.machine} did not come online: {shown.problem}", (f"the agent's log: {wish.layout.log}",)
        )
    return shown


def _status(programs: Programs, *words: str) -> Shown:
    ran = programs.run(_NAME, "status", "--json", *words)
    try:
        return msgspec.json.decode(ran.out, type=Shown)
    except msgspec.DecodeError:
        raise ServiceError(ran.message or "the agent can't say how it is", ran.hints) from None


def _keep_log(wish: Wish, spec: Spec) -> None:
    """What the service logged goes with it; its end is kept with the installer's own log."""
    try:
        with users.acting_as(spec), spec.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            text = file.read(_TAIL_BYTES)
        with wish.layout.log.open("ab") as log:
            log.write(text)
    except OSError:
        return


def _known(spec: Spec) -> Known | None:
    try:
        return _as_user(spec, lambda: read_json(spec.folder / "agent.json", Known))
    except HomeError as error:
        raise ServiceError(str(error), kind="storage") from error


def _ca_of(spec: Spec) -> str:
    try:
        pem = _as_user(spec, (spec.folder / "ca.pem").read_text)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem)).hexdigest()
    except (OSError, ValueError):
        return ""


def _as_user(spec: Spec, look: Callable[[], T]) -> T:
    with users.acting_as(spec):
        return look()


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return


def _tell(wish: Wish, spec: Spec, machine: str, notes: tuple[str, ...]) -> None:
    console = wish.console
    if wish.service:
        console.out_now(f"{machine} has joined {wish.address} and is online; commands run as {spec.user}.\n")
    else:
        console.out_now(f"{machine} has joined {wish.address}; commands will run as {spec.user}.\n")
        console.hint_now(f"it has no service; to start it: {wish.layout.links / _NAME}")
    for note in notes:
        console.hint_now(note)
