"""`service --dry-run`: what it tells is what is then done, and nothing is done by it.

As in test_managers.py the system's own programs are stand-ins, and the files are real.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clustersh.services import AGENT, COORDINATOR, Manager, Scope, ServiceError, Spec, users
from clustersh.services.commands import Ran
from clustersh.services.rehearsal import Step

from .test_managers import UP, Recorder, launchd, make, spec_of, systemd

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths here are POSIX's")
needs_root = pytest.mark.skipif(
    getattr(os, "geteuid", lambda: 1)() != 0, reason="gives the state directory to its user"
)
System = Callable[[Recorder, Scope], Manager]


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def windows(recorder: Recorder, scope: Scope) -> Manager:
    recorder.effects = {
        "schtasks /Run": lambda: recorder.set_running(UP),
        "schtasks /End": lambda: recorder.set_running(None),
    }
    recorder.answers = {"schtasks /Query": Ran(0, '"\\clustersh\\clusteragent","N/A","Running"\r\n', "")}
    return make(recorder, "win32", scope)


def nothing(recorder: Recorder, scope: Scope) -> Manager:
    """Have nothing that manages services, as in a container."""
    recorder.effects = {str(recorder.root / "state/agent/start"): lambda: recorder.set_running(UP)}
    return make(recorder, "linux", scope)


def tree(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def rehearse(recorder: Recorder, manager: Manager, spec: Spec, verb: str, **how: bool) -> tuple[Step, ...]:
    """Return what *verb* would do; it has done nothing."""
    before, asked = tree(recorder.root), recorder.changes()
    rehearsal = manager.rehearse()
    getattr(manager, verb)(spec, **how)
    assert recorder.changes() == [] and not asked
    assert tree(recorder.root) == before
    return tuple(rehearsal.steps)


def commands_of(steps: tuple[Step, ...]) -> list[str]:
    return [" ".join(shlex.split(step.what)) for step in steps if step.do == "run"]


def done(recorder: Recorder) -> list[str]:
    """Return the commands that were run since, without the name of a temporary file."""
    changes = (line.split() for line in recorder.changes())
    return [" ".join("task.xml" if word.endswith("/task.xml") else word for word in words) for words in changes]


@pytest.mark.parametrize(
    ("system", "scope"),
    [
        (systemd, Scope.USER),
        pytest.param(systemd, Scope.SYSTEM, marks=needs_root),
        (launchd, Scope.USER),
        pytest.param(launchd, Scope.SYSTEM, marks=needs_root),
        (windows, Scope.USER),
        (nothing, Scope.USER),
    ],
)
def test_what_is_told_is_done_then(recorder: Recorder, system: System, scope: Scope) -> None:
    spec = spec_of(recorder, AGENT, scope)
    if system is nothing:
        spec = spec._replace(executable=Path(sys.executable).with_name("clusteragent"))
    manager = system(recorder, scope)
    steps = rehearse(recorder, make_again(recorder, system, scope), spec, "install")
    (made, *_), (written,) = ([step for step in steps if step.do == what] for what in ("make", "write"))
    assert made.what == str(spec.home) and steps.index(made) < steps.index(written)
    installed = manager.install(spec)
    assert commands_of(steps) == done(recorder) != []
    assert written.what == installed.state.definition
    assert Path(written.what).read_text() == written.content

    steps = rehearse(recorder, make_again(recorder, system, scope), spec, "install")
    assert [step.do for step in steps if step.do != "run"] == [], "it is there already"
    manager.install(spec)
    assert commands_of(steps) == done(recorder)

    if system is nothing:
        recorder.set_running(None)  # its process is not one that could be ended
    (spec.folder / "log").parent.mkdir(exist_ok=True)
    (spec.folder / "log").touch()
    steps = rehearse(recorder, make_again(recorder, system, scope), spec, "uninstall")
    manager.uninstall(spec)
    assert commands_of(steps) == done(recorder)
    removed = [step.what for step in steps if step.do == "remove"]
    assert written.what in removed and (system is systemd or str(spec.log) in removed)
    assert not any(Path(path).exists() for path in removed)
    assert rehearse(recorder, make_again(recorder, system, scope), spec, "uninstall") == ()


def make_again(recorder: Recorder, system: System, scope: Scope) -> Manager:
    """Return another manager of that system, as another command has it; the system is as it is."""
    return make(recorder, {launchd: "darwin", windows: "win32"}.get(system, "linux"), scope)


def test_a_service_is_not_started_where_that_is_not_asked_for(recorder: Recorder) -> None:
    steps = rehearse(recorder, systemd(recorder), spec_of(recorder), "install", start=False)
    assert not [line for line in commands_of(steps) if "start" in line]
    assert commands_of(steps)[-1] == "systemctl --user enable clusteragent.service"


def test_the_last_unit_that_goes_would_end_the_lingering(recorder: Recorder) -> None:
    manager, spec = systemd(recorder), spec_of(recorder)
    manager.install(spec)
    wants = recorder.root / "home/.config/systemd/user/default.target.wants"
    wants.mkdir()
    (wants / "clusteragent.service").touch()
    recorder.changes()
    steps = rehearse(recorder, make(recorder, "linux"), spec, "uninstall")
    assert "loginctl disable-linger joshua" in commands_of(steps)
    (wants / "other.service").touch()
    steps = rehearse(recorder, make(recorder, "linux"), spec, "uninstall")
    assert "loginctl disable-linger joshua" not in commands_of(steps)


def test_what_would_fail_fails(recorder: Recorder) -> None:
    manager = systemd(recorder, lingers=True)
    manager.rehearse()
    recorder.set_running(UP)
    with pytest.raises(ServiceError, match="runs already"):
        manager.install(spec_of(recorder))
    manager._uid = 1000
    with pytest.raises(ServiceError, match="root's to install"):
        manager.install(spec_of(recorder, AGENT, Scope.SYSTEM))


@needs_root
def test_a_user_that_is_missing_would_be_made(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(recorder, COORDINATOR, Scope.SYSTEM)._replace(user="clusterd", executable=Path("/usr/bin/true"))
    monkeypatch.setattr(users, "account", lambda user: None)
    manager = systemd(recorder, Scope.SYSTEM)
    steps = rehearse(recorder, manager, spec, "install")
    assert steps[0].do == "run" and shlex.split(steps[0].what)[0] in ("useradd", "adduser")
    assert steps[0].what.endswith(" clusterd")
    assert steps[1] == Step("make", str(spec.home))
    closed = recorder.root / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(ServiceError, match="clusterd can't run"):
        manager.install(spec._replace(executable=closed / "clusterd"))
    spec.home.mkdir()
    (spec.home / "mine").touch()
    with pytest.raises(ServiceError, match="belongs to root"):
        manager.install(spec)


def test_a_step_is_one_line_and_a_definition_is_indented() -> None:
    assert str(Step("run", "systemctl daemon-reload")) == "Would run systemctl daemon-reload\n"
    assert str(Step("write", "/x", "[Unit]\n\na=b\n")) == "Would write /x:\n  [Unit]\n\n  a=b\n"
