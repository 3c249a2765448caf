"""The parts of what reaches machines by ssh: what comes back, what is sent, what is said, and which hosts there are."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from string import ascii_letters

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.agent.executors import ExecutorError, Task
from clustersh.agent.ssh import hosts, reach, scripts
from clustersh.agent.ssh.conversation import Marked
from clustersh.agent.ssh.facts import VitalsReader, read_facts
from clustersh.agent.ssh.header import Place, header, quoted
from clustersh.agent.ssh.hosts import configured_hosts, is_destination
from clustersh.agent.ssh.problems import explain
from clustersh.agent.ssh.reach import find_ssh
from clustersh.home import HomeError
from clustersh.wire.jobs import BlobRef, Command
from clustersh.wire.link import Start

from ..real.programs import eventually
from .jobs_support import alive, start

MARK = b"\x1e0123456789abcdef"


@given(st.binary(max_size=300).filter(lambda data: MARK not in data), st.lists(st.integers(1, 40), max_size=60))
def test_what_is_the_commands_is_the_same_however_it_is_cut(data: bytes, sizes: list[int]) -> None:
    whole = b"noise\n" + MARK + b"B\n" + data + MARK + b"E7\nafter"
    stream, found = Marked(MARK), b""
    for size in [*sizes, len(whole)]:
        found += stream.feed(whole[:size])
        whole = whole[size:]
    assert (found, stream.word, stream.before) == (data, b"E7", b"noise\n")


def test_only_what_may_be_a_mark_is_held_back() -> None:
    stream = Marked(MARK)
    assert stream.feed(MARK + b"B\nprompt> ") == b"prompt> "
    assert stream.feed(b"x" + MARK[:5]) == b"x"
    assert stream.feed(b"y") == MARK[:5] + b"y"
    assert stream.feed(MARK[:3]) == b"" and stream.rest() == MARK[:3], "nothing comes any more"


VITALS = "stat cpu 1 2 3 4 5 6 7 8\nload 0.1 0.2 0.3 1/2 3\nuptime 10.5 3\nMemTotal: 1000\nMemAvailable: 400\n"


def run_job(line: bytes, stdin: bytes = b"") -> tuple[bytes, bytes]:
    """Run the far side's script here; return what each stream told of the command."""
    argv = ["sh", "-c", scripts.JOB, "clustersh:u:m:"]
    done = subprocess.run(argv, input=line + b"\n" + stdin, capture_output=True, timeout=30, check=True)
    out, err = Marked(MARK), Marked(MARK)
    text, errors = out.feed(done.stdout), err.feed(done.stderr)
    assert out.word == err.word
    return text + b"|" + errors, out.word or b""


def task_of(message: Start, script: bytes | None = None) -> Task:
    nowhere = Path("/none")
    return Task(message.command, nowhere, nowhere, script, message.uuid, message.cwd, None, message.env, message.stdin)


def line_for(shell: str | None = None, cwd: str = "/", **more: object) -> bytes:
    return header(MARK.decode(), task_of(start(shell, cwd=cwd, **more)), Place("m", "/tmp/none"))


@pytest.mark.real
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_a_value_reaches_the_command_as_it_is(value: str) -> None:
    found, word = run_job(line_for('printf "%s" "$X"', env={"X": value}))
    assert (found, word) == (value.encode() + b"|", b"E0")


@pytest.mark.real
@pytest.mark.parametrize("name", ["bash", "sh"])
def test_the_command_s_shell_is_the_first_bash_on_the_path_or_else_sh(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "a b*"
    folder.mkdir()
    for each in {name, "sh"}:
        (folder / each).symlink_to(shutil.which(each) or "")
    later = f":{os.environ['PATH']}" if name == "bash" else ""
    monkeypatch.setenv("PATH", f"/nowhere:{folder}{later}")
    monkeypatch.setenv("IFS", "b")
    found, word = run_job(line_for('echo "$0 ${BASH-}"', env={"PATH": "/none"}))
    assert (found.decode(), word) == (f"bash {folder}/bash\n|" if name == "bash" else "sh \n|", b"E0")


@pytest.mark.real
def test_no_variable_that_a_user_sets_is_one_of_ours() -> None:
    names = (*ascii_letters, "REPLY", "HOME", "PATH", "TMPDIR")
    env = {name: f"; echo {name} was run; " for name in names} | {"IFS": "x"}
    words = " ".join(f'"${name}"' for name in names)
    found, word = run_job(line_for(f'printf "%s|" {words}\necho last', env=env))
    assert (found.decode(), word) == ("".join(f"{env[name]}|" for name in names) + "last\n|", b"E0")


@pytest.mark.real
def test_a_script_is_found_whatever_the_command_s_folder_for_temporary_files_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "clustersh-u-m" / "command"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "$TMPDIR"\n')
    script.chmod(0o700)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    message = start(command=Command(script=BlobRef("0" * 64, 1, "x")), cwd="/", env={"TMPDIR": "/nowhere"})
    line = header(MARK.decode(), task_of(message, script.read_bytes()), Place("m", f"{scripts.FOLDER}u-m"))
    assert run_job(line) == (b"/nowhere\n|", b"E0")


@pytest.mark.real
def test_what_is_unpacked_is_its_user_s_own(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "command").write_text("x")
    words = [
        "tar",
        "-C",
        str(tmp_path / "source"),
        "--numeric-owner",
        "--owner=54321",
        "--group=54321",
        "-cf",
        "-",
        ".",
    ]
    archive = subprocess.run(words, capture_output=True, check=True, timeout=30).stdout
    argv = ["sh", "-c", scripts.UNPACK, "sh", str(tmp_path / "there")]
    subprocess.run(argv, input=archive, check=True, timeout=30)
    found = [tmp_path / "there", tmp_path / "there" / "command"]
    assert [each.stat().st_uid for each in found] == [os.geteuid()] * 2


@contextmanager
def sleeping(message: Start, machine: str, folder: Path) -> Iterator[tuple[psutil.Popen, list[psutil.Process]]]:
    """Run the job *message*, which starts two `sleep`, as on *machine*; give it, and them."""
    line = folder / machine
    line.write_bytes(header(MARK.decode(), task_of(message), Place(machine, "/none")) + b"\n")
    argv = ["sh", "-c", scripts.JOB, scripts.NAME.format(uuid=message.uuid, machine=machine)]
    with line.open() as stdin:
        job = psutil.Popen(argv, stdin=stdin, stdout=-3, stderr=-3, start_new_session=True)

    def look() -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            found = [each for each in job.children(recursive=True) if each.name() == "sleep"]
            return found if len(found) == 2 else []
        return []

    found: list[psutil.Process] = []
    try:
        found += eventually(look)
        yield job, found
    finally:
        for each in (*found, job):
            with suppress(psutil.NoSuchProcess):
                each.kill()
        job.wait()


@pytest.mark.real
@pytest.mark.parametrize("by", ["proc", "ps"])
def test_all_of_a_job_is_ended_and_nothing_of_another_machine_s(
    by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as narrow as some ps are where nobody looks
    end = scripts.END.replace("[ -r /proc/self/stat ]", "false") if by == "ps" else scripts.END
    message = start("sleep 300 & sleep 300", cwd="/")
    with sleeping(message, "web.1", tmp_path) as (job, own), sleeping(message, "web-1", tmp_path) as (_, others):
        subprocess.run(["sh", "-c", end, "sh", message.uuid, "web.1", "20"], check=True, timeout=30)
        job.wait(10)
        assert not any(alive(each.pid) for each in own)
        assert all(alive(each.pid) for each in others)


@pytest.mark.real
@pytest.mark.parametrize(
    ("shell", "told"),
    [
        ("echo a; echo b >&2; exit 9", (b"a\n|b\n", b"E9")),
        ("kill -TERM $$", (b"|", b"E143")),
        ("kill -TERM 0", (b"|", b"E143")),
        ("exec >&- 2>&-; exit 2", (b"|", b"E2")),
    ],
)
def test_a_status_is_told_on_both_streams(shell: str, told: tuple[bytes, bytes]) -> None:
    argv = ["setsid", "-w", "sh", "-c", scripts.JOB, "clustersh:u:m:"]
    done = subprocess.run(argv, input=line_for(shell) + b"\n", capture_output=True, timeout=30, check=False)
    out, err = Marked(MARK), Marked(MARK)
    assert (out.feed(done.stdout) + b"|" + err.feed(done.stderr), out.word) == told and err.word == out.word


@pytest.mark.real
def test_a_missing_directory_is_told_and_nothing_runs() -> None:
    assert run_job(line_for("echo ran", cwd="/no/such/place")) == (b"|", b"Nno such directory")


@pytest.mark.parametrize("name", ["A-B", "1A", "A;B", "A B", "x$(id)"])
def test_a_name_that_a_shell_would_read_otherwise_is_refused(name: str) -> None:
    with pytest.raises(ExecutorError, match="no environment variable can be called"):
        line_for("true", env={name: "x"})


def test_the_home_of_nobody_is_no_shell() -> None:
    with pytest.raises(ExecutorError, match="no such user"):
        line_for("true", cwd="~$(id)/x")


def test_a_header_is_one_line() -> None:
    assert b"\n" not in line_for("a\nb", env={"X": "c\nd"}) and "\n" not in quoted("a\nb")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("@@@\nWARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.", "has changed"),
        ("Host key verification failed.", "its host key is not known"),
        ("joshua@nas: Permission denied (publickey,password).", "it takes: publickey,password"),
        ("ssh: Could not resolve hostname nas: Name or service not known", "gw finds no host called nas"),
        ("ssh: connect to host nas port 22: Connection refused", "nothing listens on nas port 22"),
        ("ssh: connect to host nas port 22: No route to host", "can't be reached from gw: no route to host"),
        ("joshua@nas: Permission denied (password,keyboard-interactive).", "it takes no key (only: password,keyboard-"),
        ("joshua@nas: Permission denied (publickey,password).", "it refuses every key that gw offers"),
        ("Connection timed out during banner exchange", "does not answer as an sshd does"),
        ("kex_exchange_identification: Connection closed by remote host", "does not answer as an sshd does"),
        (
            "ED25519 host key for [10.0.0.2]:22022 has changed and you",
            "gw: ssh-keygen -R '[10.0.0.2]:22022', and ssh nas",
        ),
        ("command-line: line 0: Bad configuration option: sessiontype", "OpenSSH 8.7 or newer"),
        ("/home/x/.ssh/config: line 3: Bad configuration option: foo", "~/.ssh/config on gw can't be read"),
        ("first\nsomething else\n", "ssh nas: something else"),
        ("", "it ended without a word"),
    ],
)
def test_why_ssh_did_not_get_there(said: str, words: str) -> None:
    told = explain(said, "nas", "gw")
    assert words in str(told) and told.why.startswith("ssh nas: ") and "\n" not in str(told)
    assert str(told) == f"{told.why}; {told.do}" and told.do, "each has something to do"


@pytest.mark.parametrize("words", ["identity file ", "permission denied (", "could not resolve hostname " + "x" * 5000])
def test_what_a_machine_says_to_hold_the_agent_up_or_to_flood_it_does_not(words: str) -> None:
    began = time.thread_time()
    told = str(explain(words * (64_000 // len(words)) + ":", "nas", "gw"))
    assert time.thread_time() - began < 0.2 and len(told) < 1000


def test_a_folder_for_sockets_that_is_somebody_else_s_link_is_refused_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / ("long" * 30)
    folder.mkdir()
    wanted = reach._sockets(folder)
    assert wanted.parent == tmp_path and wanted.stat().st_mode & 0o777 == 0o700
    wanted.rmdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "target").chmod(0o755)
    wanted.symlink_to(tmp_path / "target")
    with pytest.raises(HomeError, match="belongs to somebody else"):
        reach._sockets(folder)
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o755


def test_without_an_ssh_it_says_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match="install OpenSSH's client"):
        find_ssh(None, {b"PATH": bytes(tmp_path)}, tmp_path / "agent")


def test_the_hosts_of_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "a").write_text("Host inner\n  Port 2\nInclude ../config\n")
    (tmp_path / "config").write_text(
        "# Host commented\nInclude conf.d/*\nhost one two # three\nHOST=four\nHost *.lan w?b !not\n"
        'Host "quoted" -oProxyCommand=x\nMatch host five\nHost a/b\nHost \'unbalanced\n'
    )
    assert configured_hosts(tmp_path / "config") == ["inner", "one", "two", "four", "quoted"]
    assert configured_hosts(tmp_path / "missing") == []


def test_files_that_include_each_other_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[str] = []
    real = hosts.glob

    def noted(pattern: str) -> list[str]:
        looks.append(pattern)
        return real(pattern)

    monkeypatch.setattr(hosts, "glob", noted)
    folder = tmp_path / "conf.d"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(f"Host {name}\nInclude conf.d/*\n")
    (tmp_path / "config").write_text("Include conf.d/*\n")
    assert configured_hosts(tmp_path / "config") == ["a", "b"] and len(looks) == 3


@pytest.mark.parametrize("text", ["nas", "joshua@nas.lan", "10.0.0.1", "fe80::1%eth0", "a_b-c.d"])
def test_where_ssh_may_go_to(text: str) -> None:
    assert is_destination(text)


@pytest.mark.parametrize("text", ["", "-oX", "joshua@-x", "a b", "a;b", "ssh://x", "a\nb", "x" * 400])
def test_where_it_may_not(text: str) -> None:
    assert not is_destination(text)


@pytest.mark.real
def test_the_greeter_tells_facts_and_vitals_of_a_linux() -> None:
    said = subprocess.run(["sh", "-c", scripts.GREETER], input=b"\n", capture_output=True, timeout=30, check=True)
    first, second, rest = said.stdout.decode().split("clustersh-ready\n")
    facts, reader = read_facts(first), VitalsReader()
    assert facts.platform.startswith("linux/") and facts.cpus >= 1 and facts.memory > 1 << 20 and rest == ""
    reader.read(first, 0)
    vitals = reader.read(second, 3)
    assert vitals is not None and vitals.jobs == 3 and vitals.disk_root is not None and vitals.load is not None
    assert reader.read("system Darwin\n", 0) is None


def test_a_mac_is_called_as_its_own_agent_would_call_it() -> None:
    facts = read_facts("system Darwin\nmachine arm64\n")
    assert (facts.platform, facts.os, facts.executor) == ("darwin/arm64", "darwin", "bash")


@pytest.mark.parametrize(
    ("line", "other"),
    [
        ("MemAvailable: 400", ""),  # a kernel before 3.14 has none
        ("MemTotal: 1000", "MemTotal: 0"),
        ("uptime 10.5 3", "uptime inf"),
        ("uptime 10.5 3", "uptime -1"),
        ("load 0.1 0.2 0.3 1/2 3", "load nan nan nan"),
        ("stat cpu 1 2", "stat cpu x"),
    ],
)
def test_vitals_that_can_not_be_are_none(line: str, other: str) -> None:
    assert VitalsReader().read(VITALS, 0) is not None
    assert VitalsReader().read(VITALS.replace(line, other), 0) is None


def test_a_digit_that_is_no_number_is_none() -> None:
    assert read_facts("cpus \u00b2\n").cpus == 0
