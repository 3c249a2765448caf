"""Argument vectors for bash and PowerShell."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import pytest

from clustersh.agent.executors import ExecutorError, Task
from clustersh.agent.executors.bash import Bash
from clustersh.agent.executors.powershell import PowerShell
from clustersh.wire.jobs import BlobRef, Command

HERE = Path("/home/anna")
A_SCRIPT = BlobRef("00" * 32, 1)


def task(tmp_path, shell=None, *, cwd=HERE, argv=None, script=None) -> Task:
    command = Command(shell=shell, argv=argv, script=A_SCRIPT if script is not None else None)
    return Task(command, Path(cwd), tmp_path / "scratch", script)


def decoded(argv: list[bytes]) -> str:
    assert argv[-2] == b"-EncodedCommand"
    return base64.b64decode(argv[-1]).decode("utf-16-le")


def test_bash_sets_no_directory_where_it_is_there_already(tmp_path):
    bash = Bash("/bin/bash", HERE)
    assert bash.argv(task(tmp_path, "ls")) == [b"/bin/bash", b"-c", b"ls", b"bash"]
    assert bash.argv(task(tmp_path, "ls", cwd="/it's")) == [
        b"/bin/bash",
        b"-c",
        b"cd -- '/it'\"'\"'s' || exit 125; ls",
        b"bash",
    ]


def test_sh_is_given_words_as_it_understands_them(tmp_path):
    argv = Bash("/bin/sh", HERE).argv(task(tmp_path, argv=("ls", "-la")))
    assert argv == [b"/bin/sh", b"-c", b'exec "$@"', b"sh", b"ls", b"-la"]


def test_sh_is_found_where_there_is_no_bash(tmp_path):
    (tmp_path / "sh").write_text("#!/bin/true\n")
    (tmp_path / "sh").chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.defpath", "")
        assert Bash.find({"PATH": str(tmp_path)}).argv(task(tmp_path, "ls"))[0] == str(tmp_path / "sh").encode()
        with pytest.raises(ExecutorError, match="no bash and no sh"):
            Bash.find({"PATH": str(tmp_path / "empty")})


def test_what_bash_writes_is_private(tmp_path):
    argv = Bash("/bin/bash", HERE).argv(task(tmp_path, "x" * 200_000))
    path = Path(argv[-1].decode())
    assert path.read_text() == "x" * 200_000
    assert path.stat().st_mode & 0o777 == 0o700
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_powershell_is_told_the_encoding_the_directory_and_to_pass_the_status_on(tmp_path):
    argv = PowerShell("C:\\pwsh.exe").argv(task(tmp_path, "Get-Item 'ü'", cwd="it's"))
    assert argv[0] == b"C:\\pwsh.exe"
    assert {b"-NoProfile", b"-NonInteractive"} <= set(argv)
    text = decoded(argv)
    assert "UTF8Encoding" in text
    assert "Set-Location -LiteralPath 'it''s'; Get-Item 'ü'\n" in text
    assert text.endswith("exit $LASTEXITCODE }; if (-not $ok) { exit 1 }; exit 0")


def test_powershell_quotes_words(tmp_path):
    argv = PowerShell("pwsh").argv(task(tmp_path, argv=("git", "log", "it's $HOME", "\u2019")))
    assert "& 'git' 'log' 'it''s $HOME' '\u2019\u2019'" in decoded(argv)


def test_powershell_takes_what_is_long_and_scripts_from_a_file(tmp_path):
    powershell = PowerShell("pwsh")
    long = task(tmp_path, "# " + "ü" * 20_000)
    assert powershell.writes(long)
    assert not powershell.writes(task(tmp_path, "ls"))
    text = decoded(powershell.argv(long))
    assert f"& '{tmp_path}/scratch/command.ps1'" in text
    assert (tmp_path / "scratch" / "command.ps1").read_text("utf-8-sig") == long.command.shell
    script = task(tmp_path, script=b"exit 3")
    powershell.argv(script)
    assert (tmp_path / "scratch" / "command.ps1").read_bytes() == b"exit 3"


def test_a_machine_without_powershell(tmp_path):
    with pytest.raises(ExecutorError, match="no pwsh"):
        PowerShell.find({"PATH": str(tmp_path)})


def test_commands_get_the_limit_on_open_files_back(tmp_path):
    bash = Bash("/bin/bash", HERE, 1024)
    assert bash.argv(task(tmp_path, "ls"))[2] == b"ulimit -S -n 1024; ls"
    assert bash.argv(task(tmp_path, "ls", cwd="/"))[2] == b"ulimit -S -n 1024; cd -- / || exit 125; ls"
    assert bash.argv(task(tmp_path, argv=("ls",)))[2] == b'ulimit -S -n 1024; exec -- "$@"'


def test_the_probe_is_run_by_the_agents_own_python(tmp_path):
    probe = task(tmp_path, argv=("clusteragent", "probe", "--disk", "/ < 90%"))
    own = [sys.executable, "-I", "-m", "clustersh.probe", "--disk", "/ < 90%"]
    argv = Bash("/bin/bash", HERE).argv(probe)
    assert argv == [b"/bin/bash", b"-c", b'exec -- "$@"', b"bash", *(word.encode() for word in own)]
    assert "& " + " ".join(f"'{word}'" for word in own) + "\n" in decoded(PowerShell("pwsh").argv(probe))


def test_other_words_are_the_commands_own(tmp_path):
    for words in (
        ("clusteragent", "status"),
        ("clusteragent",),
        ("probe", "clusteragent"),
        ("x", "clusteragent", "probe"),
    ):
        argv = Bash("/bin/bash", HERE).argv(task(tmp_path, argv=words))
        assert argv[4:] == [word.encode() for word in words]
    line = "clusteragent probe"
    assert Bash("/bin/bash", HERE).argv(task(tmp_path, line))[2] == line.encode()
