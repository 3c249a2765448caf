"""What is written for systemd, launchd and Windows: read by systemd itself, and by parsers of plists and XML."""

from __future__ import annotations

import os
import plistlib
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from clustersh.services import AGENT, COORDINATOR, Program, Scope, Spec
from clustersh.services.launchd import plist
from clustersh.services.pidfile import start_script
from clustersh.services.systemd import unit
from clustersh.services.tasks import task
from clustersh.services.templates import windows

ANALYZE = shutil.which("systemd-analyze")
BOTH = pytest.mark.parametrize("program", [COORDINATOR, AGENT], ids=lambda program: program.name)
SCOPES = pytest.mark.parametrize("scope", list(Scope))
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="systemd is not installed")


def spec_of(program: Program, scope: Scope, folder: Path, *, user: str = "root", stop_s: int = 60) -> Spec:
    """Return a service whose program is there: *folder* has it."""
    executable = folder / "bin" / program.name
    executable.parent.mkdir(exist_ok=True)
    for path in (executable, executable.with_name("twistd")):
        if not path.exists():
            path.symlink_to(sys.executable)
    return Spec(program, scope, executable, folder / "state", user, stop_s)


def analyze(*words: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    assert ANALYZE is not None
    return subprocess.run(
        [ANALYZE, *words],
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def settings(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


@needs_systemd
@BOTH
@SCOPES
@pytest.mark.parametrize("name", ["plain", "a b%h$HOME;#"])
def test_systemd_accepts_the_unit(tmp_path: Path, program: Program, scope: Scope, name: str) -> None:
    folder = tmp_path / name
    folder.mkdir()
    path = tmp_path / f"{program.name}.service"
    path.write_text(unit(spec_of(program, scope, folder), linger_ours=scope is Scope.USER))
    verified = analyze("verify", f"--{scope}", "--man=no", path, folder=tmp_path)
    assert [line for line in verified.stderr.splitlines() if program.name in line] == []


@needs_systemd
def test_a_bad_unit_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "bad.service"
    path.write_text("[Service]\nExecStart=/bin/true\nKillMod=process\n")
    assert "KillMod" in analyze("verify", "--user", "--man=no", path, folder=tmp_path).stderr


@needs_systemd
def test_the_coordinators_unit_is_strict_by_systemds_own_measure(tmp_path: Path) -> None:
    path = tmp_path / "clusterd.service"
    path.write_text(unit(spec_of(COORDINATOR, Scope.SYSTEM, tmp_path, user="nobody")))
    assert analyze("security", "--offline=yes", "--threshold=20", path, folder=tmp_path).returncode == 0
    path.write_text(unit(spec_of(COORDINATOR, Scope.SYSTEM, tmp_path)).replace("NoNewPrivileges=yes", ""))
    looser = analyze("security", "--offline=yes", "--threshold=5", path, folder=tmp_path)
    assert looser.returncode != 0


@SCOPES
def test_the_agents_unit_leaves_its_jobs_alone(tmp_path: Path, scope: Scope) -> None:
    found = settings(unit(spec_of(AGENT, scope, tmp_path, stop_s=42)))
    assert {name: found[name] for name in ("OOMPolicy", "KillMode", "TasksMax", "TimeoutStopSec", "LimitNOFILE")} == {
        "OOMPolicy": "continue",
        "KillMode": "mixed",
        "TasksMax": "infinity",
        "TimeoutStopSec": "42",
        "LimitNOFILE": "1024:1048576",
    }
    assert not [name for name in found if name.startswith(("Protect", "Private", "Restrict", "NoNew", "SystemCall"))]
    assert ("User" in found) == (scope is Scope.SYSTEM)


def test_what_goes_into_a_unit_is_quoted(tmp_path: Path) -> None:
    spec = spec_of(AGENT, Scope.USER, tmp_path)._replace(
        executable=Path('/opt/a "b"/%h'), home=Path("/home/it's 100%/$X")
    )
    found = settings(unit(spec))
    assert found["ExecStart"] == '"/opt/a \\"b\\"/%%h"'
    assert found["Environment"] == '"CLUSTERSH_HOME=/home/it\'s 100%%/$X"'


@BOTH
@SCOPES
def test_the_property_list_says_what_to_run(tmp_path: Path, program: Program, scope: Scope) -> None:
    folder = tmp_path / "<&>'"
    folder.mkdir()
    spec = spec_of(program, scope, folder, user="joshua", stop_s=42)
    found = plistlib.loads(plist(spec).encode())
    assert found["Label"] == f"clustersh.{program.name}"
    assert found["ProgramArguments"] == [str(spec.executable), "--logfile", str(spec.log)]
    assert found["EnvironmentVariables"] == {"CLUSTERSH_HOME": str(spec.home)}
    assert found.get("UserName") == ("joshua" if scope is Scope.SYSTEM else None)
    assert (found["RunAtLoad"], found["KeepAlive"], found["ExitTimeOut"]) == (True, {"SuccessfulExit": False}, 42)


@BOTH
@SCOPES
def test_the_windows_task_says_what_to_run(program: Program, scope: Scope) -> None:
    home = Path(r"C:\Users\Jo & Co\state")
    user = program.system_user if scope is Scope.SYSTEM else "Jo & Co"
    text = task(Spec(program, scope, Path(r"C:\Programs\a b\x.exe"), home, user))
    tree = ElementTree.fromstring(text.encode("utf-16"))
    names = {"t": "http://schemas.microsoft.com/windows/2004/02/mit/task"}

    def of(path: str) -> str | None:
        return tree.findtext("/".join(f"t:{part}" for part in path.split("/")), None, names)

    assert of("Actions/Exec/Command") == r"C:\Programs\a b\x.exe"
    arguments = of("Actions/Exec/Arguments") or ""
    assert arguments.startswith(rf'--home "{home}" --logfile "')
    assert of("Principals/Principal/UserId") == ("S-1-5-18" if scope is Scope.SYSTEM else "Jo & Co")
    assert of("Principals/Principal/LogonType") == (None if scope is Scope.SYSTEM else "InteractiveToken")
    trigger = "BootTrigger" if scope is Scope.SYSTEM else "LogonTrigger"
    assert of(f"Triggers/{trigger}/Enabled") == "true"
    assert of("Settings/ExecutionTimeLimit") == "PT0S"
    assert of("Settings/StopIfGoingOnBatteries") == "false"


def test_a_path_that_ends_in_a_backslash_stays_one_argument() -> None:
    assert windows("C:\\state\\") == '"C:\\state\\\\"'
    with pytest.raises(ValueError, match="quotation mark"):
        windows('C:\\"')


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's")
@pytest.mark.parametrize("user", ["root", "clusterd"])
def test_the_start_script_is_quoted_twice_where_it_changes_the_user(tmp_path: Path, user: str) -> None:
    folder = tmp_path / "it's $HOME"
    folder.mkdir()
    spec = spec_of(COORDINATOR, Scope.SYSTEM, folder, user=user)
    script = start_script(spec, Path("/etc/clustersh/start"))
    [line] = [line for line in script.splitlines() if line.startswith("exec ")]
    words = shlex.split(line)
    inner = words[words.index("-c") + 1]
    assert ("su" in words and words[-1] == user) == (user != "root")
    removed, started = inner.split("; exec ")
    assert shlex.split(removed) == ["rm", "-f", str(spec.folder / "twistd.pid")]
    assert shlex.split(started)[1] == f"--pidfile={spec.folder / 'twistd.pid'}"
    assert shlex.split(started)[-2:] == ["clusterd", f"--home={spec.home}"]


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
@pytest.mark.parametrize("user", ["root", "clusterd"])
def test_shellcheck_finds_nothing_in_what_is_generated(tmp_path: Path, user: str) -> None:
    path = tmp_path / "start"
    folder = tmp_path / "it's"
    folder.mkdir()
    path.write_text(start_script(spec_of(AGENT, Scope.SYSTEM, folder, user=user), path))
    debian = Path(__file__).parents[2] / "packaging" / "debian"
    subprocess.run(["shellcheck", path, *(debian / name for name in ("postinst", "prerm", "postrm"))], check=True)


def test_every_template_is_used_with_all_its_values(tmp_path: Path) -> None:
    for program in (COORDINATOR, AGENT):
        for scope in Scope:
            spec = spec_of(program, scope, tmp_path)
            for text in (unit(spec), plist(spec), task(spec), start_script(spec, tmp_path / "start")):
                assert re.search(r"\$[a-z{]", text) is None
