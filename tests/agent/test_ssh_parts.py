"""The parts of what reaches machines by ssh: what comes back, what is sent, what is said, and which hosts there are."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersh.agent.executors import ExecutorError, Task
from clustersh.agent.executors.ssh import Place, header, quoted
from clustersh.agent.ssh import scripts
from clustersh.agent.ssh.facts import VitalsReader, read_facts
from clustersh.agent.ssh.hosts import configured_hosts, is_destination
from clustersh.agent.ssh.problems import explain
from clustersh.agent.ssh.reach import find_ssh
from clustersh.agent.ssh.session import Marked

from .jobs_support import start

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


def run_job(line: bytes, stdin: bytes = b"") -> tuple[bytes, bytes]:
    """Run the far side's script here; return what each stream told of the command."""
    argv = ["sh", "-c", scripts.JOB, "clustersh:u:m:"]
    done = subprocess.run(argv, input=line + b"\n" + stdin, capture_output=True, timeout=30, check=True)
    out, err = Marked(MARK), Marked(MARK)
    text, errors = out.feed(done.stdout), err.feed(done.stderr)
    assert out.word == err.word
    return text + b"|" + errors, out.word or b""


def line_for(shell: str | None = None, cwd: str = "/", **more: object) -> bytes:
    message = start(shell, cwd=cwd, **more)
    task = Task(message.command, Path("/"), Path("/none"))
    return header(MARK.decode(), message, task, Place("m", "/tmp/none", files=False))


@pytest.mark.real
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_a_value_reaches_the_command_as_it_is(value: str) -> None:
    found, word = run_job(line_for('printf "%s" "$X"', env={"X": value}))
    assert (found, word) == (value.encode() + b"|", b"E0")


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
        ("first\nsomething else\n", "ssh nas: something else"),
        ("", "it ended without a word"),
    ],
)
def test_why_ssh_did_not_get_there(said: str, words: str) -> None:
    told = explain(said, "nas", "gw")
    assert words in told and told.startswith("ssh nas: ") and "\n" not in told


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
    assert (facts.platform, facts.os) == ("darwin/arm64", "darwin"), "as sys.platform is there"
