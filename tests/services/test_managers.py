"""What systemctl, loginctl, launchctl and schtasks are asked to do, in which order.

None of them does anything here: `Recorder` is a stand-in that writes down what it is told and answers as they do. The
files that are written are real.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from clustersh import __version__
from clustersh.home import RunningService
from clustersh.services import AGENT, COORDINATOR, Manager, Program, Scope, ServiceError, Spec, choose
from clustersh.services.commands import Commands, Ran
from clustersh.services.watch import Watch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="paths here are POSIX's")
UP = RunningService(7, "127.0.0.1:5672", __version__)


class Recorder(Commands):
    """A stand-in for the system's own programs, and for the service that they would start."""

    def __init__(self, root: Path) -> None:
        super().__init__({})
        self.root = root
        self.asked: list[str] = []
        self.answers: dict[str, Ran] = {}
        self.effects: dict[str, Callable[[], object]] = {}
        self.running: RunningService | None = None

    def try_to(self, *words: str) -> Ran:
        line = " ".join(words)
        self.asked.append(line)
        for beginning, effect in tuple(self.effects.items()):
            if line.startswith(beginning):
                effect()
        return next((ran for beginning, ran in self.answers.items() if line.startswith(beginning)), Ran(0, "", ""))

    def changes(self) -> list[str]:
        """Return what was asked for, without mere questions; and forget it."""
        questions = (" show ", " is-failed ", " print ", "/Query", "journalctl", "crontab -l")
        asked, self.asked = self.asked, []
        return [line for line in asked if not any(question in f"{line} " for question in questions)]

    def set_running(self, running: RunningService | None) -> None:
        self.running = running


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def make(recorder: Recorder, platform: str, scope: Scope = Scope.USER) -> Manager:
    """Return the manager of *platform* for a user whose home is in the recorder's root."""
    now = iter(range(10**9))
    watch = Watch(now=lambda: float(next(now)), pause=lambda _: None, look=lambda _: recorder.running)
    uid = 0 if scope is Scope.SYSTEM else os.getuid()
    environ = {"HOME": str(recorder.root / "home")}
    return choose(environ, scope, platform=platform, root=recorder.root, commands=recorder, watch=watch, uid=uid)


def spec_of(recorder: Recorder, program: Program = AGENT, scope: Scope = Scope.USER) -> Spec:
    user = "root" if scope is Scope.SYSTEM else "joshua"
    return Spec(program, scope, Path("/opt/current/bin") / program.name, recorder.root / "state", user)


def systemd(recorder: Recorder, scope: Scope = Scope.USER, *, lingers: bool = False) -> Manager:
    """Have systemd run, and start services as it does."""
    (recorder.root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    linger = recorder.root / "var/lib/systemd/linger/joshua"
    socket = recorder.root / f"run/user/{os.getuid()}/systemd/private"

    def enable() -> None:
        for path in (linger, socket):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()

    if lingers:
        enable()
    start = "systemctl --user start" if scope is Scope.USER else "systemctl start"
    recorder.effects = {
        "loginctl enable-linger": enable,
        "loginctl disable-linger": lambda: linger.unlink(),
        start: lambda: recorder.set_running(UP),
        start.replace("start", "restart"): lambda: recorder.set_running(UP),
        start.replace("start", "disable"): lambda: recorder.set_running(None),
    }
    for program in ("systemctl --user", "systemctl"):
        recorder.answers[f"{program} show"] = Ran(0, "ActiveState=active\nUnitFileState=enabled\nMainPID=7\n", "")
        recorder.answers[f"{program} is-failed"] = Ran(1, "", "")
    return make(recorder, "linux", scope)


def test_a_users_unit_is_enabled_started_and_lingers(recorder: Recorder) -> None:
    manager, spec = systemd(recorder), spec_of(recorder)
    installed = manager.install(spec)
    unit = recorder.root / "home/.config/systemd/user/clusteragent.service"
    assert recorder.changes() == [
        "loginctl enable-linger joshua",
        "systemctl --user daemon-reload",
        "systemctl --user enable clusteragent.service",
        "systemctl --user restart clusteragent.service",
    ]
    assert 'ExecStart="/opt/current/bin/clusteragent"' in unit.read_text()
    assert stat.S_IMODE(unit.stat().st_mode) == 0o644
    assert (installed.state.running, installed.state.at_boot, installed.state.pid) == (True, True, 7)
    assert installed.notes == ()

    assert manager.uninstall(spec).known
    assert recorder.changes() == [
        "systemctl --user disable --now clusteragent.service",
        "systemctl --user daemon-reload",
        "systemctl --user reset-failed clusteragent.service",
        "loginctl disable-linger joshua",
    ]
    assert not unit.exists()
    assert not manager.uninstall(spec).known
    assert recorder.changes() == []


def test_what_runs_as_it_should_is_left_alone(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, lingers=True), spec_of(recorder)
    manager.install(spec)
    recorder.changes()
    manager.install(spec)
    assert "systemctl --user start clusteragent.service" in recorder.changes()
    manager.install(spec, restart=True)
    assert "systemctl --user restart clusteragent.service" in recorder.changes()
    recorder.set_running(RunningService(7, "127.0.0.1:5672", "0.0.1"))
    manager.install(spec)
    assert "systemctl --user restart clusteragent.service" in recorder.changes()


def test_one_that_was_started_by_hand_is_not_disturbed(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, lingers=True), spec_of(recorder)
    recorder.set_running(UP)
    with pytest.raises(ServiceError, match=r"^clusteragent runs already \(process 7\), and not as a service$"):
        manager.install(spec)
    assert recorder.changes() == []
    assert not (recorder.root / "home/.config").exists()


def test_lingering_stays_where_it_was_on_before_or_others_need_it(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, lingers=True), spec_of(recorder)
    manager.install(spec)
    manager.uninstall(spec)
    assert not [line for line in recorder.changes() if line.startswith("loginctl")]

    (recorder.root / "var/lib/systemd/linger/joshua").unlink()
    other = recorder.root / "home/.config/systemd/user/default.target.wants/other.service"
    other.parent.mkdir(parents=True)
    other.touch()
    manager.install(spec)
    manager.uninstall(spec)
    assert [line for line in recorder.changes() if line.startswith("loginctl")] == ["loginctl enable-linger joshua"]


def test_of_two_units_the_last_that_goes_ends_the_lingering(recorder: Recorder) -> None:
    manager = systemd(recorder)
    first, second = spec_of(recorder, AGENT), spec_of(recorder, COORDINATOR)
    wants = recorder.root / "home/.config/systemd/user/default.target.wants"
    manager.install(first)
    recorder.set_running(None)  # the stand-in knows of one service only
    manager.install(second)
    wants.mkdir()
    (wants / "clusterd.service").touch()
    recorder.changes()
    manager.uninstall(first)
    assert "loginctl disable-linger joshua" not in recorder.changes()
    (wants / "clusterd.service").unlink()
    manager.uninstall(second)
    assert "loginctl disable-linger joshua" in recorder.changes()


def test_a_user_who_may_not_linger_is_told_what_that_means(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, lingers=True), spec_of(recorder)
    (recorder.root / "var/lib/systemd/linger/joshua").unlink()
    del recorder.effects["loginctl enable-linger"]
    recorder.answers["loginctl enable-linger"] = Ran(1, "", "Could not enable linger: Access denied\n")
    installed = manager.install(spec)
    assert not installed.state.at_boot
    assert "sudo loginctl enable-linger joshua" in installed.notes[0]
    manager.uninstall(spec)

    (recorder.root / f"run/user/{os.getuid()}/systemd/private").unlink()
    with pytest.raises(ServiceError, match="Access denied") as refused:
        manager.install(spec)
    assert refused.value.hints == ("sudo loginctl enable-linger joshua, then the same again",)
    assert not (recorder.root / "home/.config/systemd/user/clusteragent.service").exists()


def test_a_unit_that_does_not_come_up_says_why_and_is_taken_away(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, lingers=True), spec_of(recorder)
    del recorder.effects["systemctl --user restart"]
    recorder.answers["systemctl --user is-failed"] = Ran(0, "", "")
    recorder.answers["journalctl"] = Ran(0, "starting\nERROR: its state is damaged\nfailed\n", "")
    with pytest.raises(ServiceError, match=r"^clusteragent did not start: its state is damaged$"):
        manager.install(spec)
    assert "systemctl --user disable --now clusteragent.service" in recorder.changes()
    assert not (recorder.root / "home/.config/systemd/user/clusteragent.service").exists()


def test_a_unit_that_was_there_stays_although_it_does_not_come_up(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, lingers=True), spec_of(recorder)
    manager.install(spec)
    recorder.set_running(None)
    del recorder.effects["systemctl --user start"]
    recorder.answers["systemctl --user is-failed"] = Ran(0, "", "")
    with pytest.raises(ServiceError, match="did not start"):
        manager.install(spec)
    assert (recorder.root / "home/.config/systemd/user/clusteragent.service").exists()


def test_a_command_that_fails_is_told_in_one_line(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, lingers=True), spec_of(recorder)
    recorder.answers["systemctl --user enable"] = Ran(1, "", "a\nFailed to enable unit: \x1b[31mbad\n\n")
    with pytest.raises(ServiceError) as failed:
        manager.install(spec)
    assert failed.value.message == (
        "systemctl --user enable clusteragent.service failed: Failed to enable unit: \\x1b[31mbad"
    )


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="gives the state directory to its user")
def test_a_system_unit_needs_no_lingering(recorder: Recorder) -> None:
    manager, spec = systemd(recorder, Scope.SYSTEM), spec_of(recorder, AGENT, Scope.SYSTEM)
    installed = manager.install(spec)
    assert recorder.changes() == [
        "systemctl daemon-reload",
        "systemctl enable clusteragent.service",
        "systemctl restart clusteragent.service",
    ]
    assert installed.state.definition == str(recorder.root / "etc/systemd/system/clusteragent.service")
    assert "User=root" in Path(installed.state.definition).read_text()
    assert manager.uninstall(spec).known
    assert recorder.changes() == [
        "systemctl disable --now clusteragent.service",
        "systemctl daemon-reload",
        "systemctl reset-failed clusteragent.service",
    ]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_system_service_is_roots(recorder: Recorder, platform: str) -> None:
    manager = make(recorder, platform)
    manager._uid = 1000
    with pytest.raises(ServiceError, match="root's") as refused:
        manager.install(spec_of(recorder, AGENT, Scope.SYSTEM))
    assert "sudo" in refused.value.hints[0] and recorder.asked == []


def launchd(recorder: Recorder, scope: Scope) -> Manager:
    """Have launchd load services, and let them go some time after it was told to."""
    domain = "system" if scope is Scope.SYSTEM else f"gui/{os.getuid()}"
    target = f"launchctl print {domain}/clustersh.clusteragent"
    unknown = Ran(113, "", "Could not find service")

    def load() -> None:
        recorder.set_running(UP)
        recorder.answers[target] = Ran(0, "state = running\n\tpid = 7\n", "")

    def leave() -> None:
        recorder.set_running(None)
        recorder.effects[target] = going
        recorder.left = 3  # type: ignore[attr-defined]

    def going() -> None:
        recorder.left -= 1  # type: ignore[attr-defined]
        if not recorder.left:  # type: ignore[attr-defined]
            del recorder.effects[target]
            recorder.answers[target] = unknown

    recorder.answers = {target: unknown}
    recorder.effects = {"launchctl bootstrap": load, "launchctl bootout": leave}
    return make(recorder, "darwin", scope)


def test_a_launchd_agent_is_loaded_again_only_once_the_old_one_is_gone(recorder: Recorder) -> None:
    manager, spec = launchd(recorder, Scope.USER), spec_of(recorder)
    plist = recorder.root / "home/Library/LaunchAgents/clustersh.clusteragent.plist"
    domain = f"gui/{os.getuid()}"
    installed = manager.install(spec)
    assert recorder.changes() == [
        f"launchctl enable {domain}/clustersh.clusteragent",
        f"launchctl bootstrap {domain} {plist}",
    ]
    assert (installed.state.pid, installed.state.at_boot) == (7, False)
    assert "--system" in installed.notes[0]
    recorder.asked = []
    manager.install(spec, restart=True)
    asked = [line.split()[1] for line in recorder.asked]
    assert asked[asked.index("bootout") :][:5] == ["bootout", "print", "print", "print", "bootstrap"]
    recorder.changes()
    assert manager.uninstall(spec).known
    assert recorder.changes() == [f"launchctl bootout {domain}/clustersh.clusteragent"]
    assert not plist.exists()


@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0, reason="gives the state directory to its user")
def test_a_launchd_daemon_is_the_systems(recorder: Recorder) -> None:
    manager, spec = launchd(recorder, Scope.SYSTEM), spec_of(recorder, AGENT, Scope.SYSTEM)
    installed = manager.install(spec)
    plist = recorder.root / "Library/LaunchDaemons/clustersh.clusteragent.plist"
    assert recorder.changes() == [
        "launchctl enable system/clustersh.clusteragent",
        f"launchctl bootstrap system {plist}",
    ]
    assert installed.state.at_boot and installed.notes == ()
    assert manager.uninstall(spec).known and not plist.exists()


def test_a_windows_task_is_made_from_xml_run_and_deleted(recorder: Recorder) -> None:
    name = "\\clustersh\\clusteragent"
    manager, spec = make(recorder, "win32"), spec_of(recorder)
    seen: list[str] = []

    def create() -> None:
        path = Path(recorder.asked[-1].split("/XML ")[1].removesuffix(" /F"))
        seen.append(path.read_bytes().decode("utf-16"))

    recorder.effects = {
        "schtasks /Create": create,
        "schtasks /Run": lambda: recorder.set_running(UP),
        "schtasks /End": lambda: recorder.set_running(None),
    }
    recorder.answers = {"schtasks /Query": Ran(0, f'"{name}","N/A","Running"\r\n', "")}
    installed = manager.install(spec)
    created, *others = recorder.changes()
    assert created.startswith(f"schtasks /Create /TN {name} /XML ") and created.endswith(" /F")
    assert others == [f"schtasks /Run /TN {name}"]
    assert [text.splitlines()[0] for text in seen] == ['<?xml version="1.0" encoding="UTF-16"?>']
    assert installed.state.running and "--system" in installed.notes[0]
    manager.install(spec)
    assert [line.split()[1] for line in recorder.changes()] == ["/Create"]
    assert manager.uninstall(spec).known
    assert recorder.changes() == [f"schtasks /End /TN {name}", f"schtasks /Delete /TN {name} /F"]
    assert not manager.status(spec).installed


def test_a_service_without_a_manager_starts_with_the_machine_by_cron(recorder: Recorder) -> None:
    manager, spec = make(recorder, "linux"), spec_of(recorder)
    spec = spec._replace(executable=Path(sys.executable).with_name("clusteragent"))
    script = recorder.root / "state/agent/start"
    recorder.effects = {str(script): lambda: recorder.set_running(UP)}
    installed = manager.install(spec)
    assert recorder.changes() == [str(script)]
    assert (installed.state.manager, installed.state.at_boot) == ("pidfile", False)
    assert f"@reboot {script}" in installed.notes[0]
    recorder.answers["crontab -l"] = Ran(0, f"# mine\n@reboot {script}\n", "")
    again = manager.install(spec)
    assert again.state.at_boot and again.notes == ()
    recorder.set_running(None)
    assert manager.uninstall(spec).notes == ("take its line out of the crontab: crontab -e",)
