"""Machines that only have SSH: a real sshd on loopback, under several names, carried by a real agent."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from . import sshd as ssh_server
from .clusters import make_cluster
from .examples import check_example, examples_of
from .programs import Cluster, end, eventually, make_home
from .sshd import Sshd

pytestmark = pytest.mark.skipif(bool(ssh_server.missing()), reason="needs OpenSSH's client and server")

BY_PASSWORD = """\
ListenAddress 127.0.0.1:{port}
Match LocalPort {port}
    PubkeyAuthentication no
    PasswordAuthentication yes
"""
NAMES = ("homelab-1", "homelab-2", "nas")
MORE = """\
Host closed
    HostName 127.0.0.1
    Port {port}
Host stranger
    HostName 127.0.0.1
    Port {sshd}
    IdentityFile {folder}/stranger_key
    IdentitiesOnly yes
    UserKnownHostsFile {folder}/known_hosts
    HostKeyAlias there
Host unknown
    HostName 127.0.0.1
    Port {sshd}
    UserKnownHostsFile /dev/null
Host by-password
    HostName 127.0.0.1
    Port {by_password}
    UserKnownHostsFile {folder}/known_hosts
    HostKeyAlias there
Host *.pattern
    User nobody
Include {folder}/more_hosts
"""


@contextmanager
def carrying(folder: Path) -> Iterator[tuple[Cluster, Sshd]]:
    """Start an sshd, and a cluster whose one agent can reach it; end all of it."""
    server = Sshd(folder / "sshd", NAMES)
    (server.folder / "more_hosts").write_text("Host included nowhere.invalid\n")
    closed, by_password = ssh_server.free_port(), ssh_server.free_port()
    more = MORE.format(port=closed, sshd=server.port, by_password=by_password, folder=server.folder)
    server.start(BY_PASSWORD.format(port=by_password))
    try:
        cluster = make_cluster(folder, prepare=lambda home: server.introduce(home, more))
        try:
            yield cluster, server
        finally:
            cluster.stop()
    finally:
        server.stop()


@pytest.fixture(scope="module")
def carried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, Sshd]]:
    with carrying(tmp_path_factory.mktemp("ssh")) as made:
        adopted = made[0].sh("adopt", "homelab-1")
        assert (adopted.status, adopted.out) == (0, "Adopted homelab-1, via ws1.\n"), adopted
        assert made[0].sh("adopt", "homelab-2").status == 0
        yield made


@pytest.fixture
def sh(carried: tuple[Cluster, Sshd]) -> Any:
    return carried[0].sh


@pytest.fixture
def own(tmp_path: Path) -> Iterator[tuple[Cluster, Sshd]]:
    """A cluster of a test's own, which carries homelab-1."""
    with carrying(tmp_path) as made:
        assert made[0].sh("adopt", "homelab-1").status == 0
        yield made


def running(word: str) -> list[int]:
    """Return the pids of `sleep` with that many seconds: each test has its own."""
    found = subprocess.run(["pgrep", "-x", "-f", f"sleep {word}"], capture_output=True, text=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def until_running(word: str, number: int = 1) -> None:
    eventually(lambda: len(running(word)) == number, what=f"{number} sleep {word}")


# -- running commands


def test_the_output_and_the_status_are_the_commands_own(sh):
    done = sh("run", "homelab-1", "echo out; echo err >&2; exit 3")
    assert (done.status, done.out, done.err) == (3, "out\n", "err\n")


@pytest.mark.parametrize("status", [1, 124, 125, 126, 255])
def test_no_status_of_a_command_is_taken_for_one_of_ssh(sh, status):
    done = sh("run", "--json", "homelab-1", f"exit {status}")
    assert (done.status, done.json["status"], done.json["exit_code"]) == (status, "failed", status), done


def test_a_command_that_a_signal_ends_has_the_status_that_a_shell_gives_it(sh):
    assert sh("run", "homelab-1", "kill -9 $$").status == 137


def test_a_command_that_signals_its_own_group_is_told_of(sh):
    done = sh("run", "homelab-1", "trap '' TERM; echo before; kill -TERM 0; echo after")
    assert (done.status, done.out) == (0, "before\nafter\n")


def test_an_argument_vector_goes_through_no_shell(sh):
    words = ["a b", "it's", "$HOME", "new\nline", "", "*", "-n", "ü"]
    done = sh("run", "homelab-1", "--", "printf", "<%s>", *words)
    assert done.out == "".join(f"<{word}>" for word in words)


def test_a_line_of_several_lines_and_quotes(sh):
    done = sh("run", "homelab-1", "x='a b'\necho \"$x\" 'it'\"'\"'s'\necho last")
    assert done.out == "a b it's\nlast\n"


def test_a_line_longer_than_an_argument_may_be(sh):
    words = ["x" * 70_000] * 3
    done = sh("run", "homelab-1", ":", *words, ";", "echo", "done")
    assert (done.status, done.out) == (0, "done\n"), done.err


def test_stdin_reaches_the_command_whole_and_ends(sh):
    data = os.urandom(1 << 20)
    done = sh("run", "--stdin", "homelab-1", "sha256sum", stdin=data)
    import hashlib

    assert done.out.split()[0] == hashlib.sha256(data).hexdigest()


def test_without_stdin_there_is_nothing_to_read(sh):
    assert sh("run", "homelab-1", "cat; echo end").out == "end\n"


def test_a_script_with_its_own_interpreter(sh, tmp_path):
    script = tmp_path / "greet"
    script.write_text("#!/usr/bin/env -S awk -f\nBEGIN { print 6 * 7 }\n")
    assert sh("run", "--script", str(script), "homelab-1").out == "42\n"


def test_files_lie_in_a_folder_that_is_gone_afterwards(sh, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "run.sh").write_text("echo run\n")
    (tmp_path / "tree" / "run.sh").chmod(0o755)
    done = sh("run", "--file", str(tmp_path / "tree"), "homelab-1", "pwd; ./tree/run.sh; stat -c %a .")
    where, *rest = done.out.splitlines()
    assert (done.status, rest) == (0, ["run", "700"]), done
    assert not Path(where).exists() and not Path(where).parent.exists()


def test_environment_and_directory(sh, tmp_path):
    value = 'it\'s $HOME\n"two" lines'
    done = sh("run", "--env", f"X={value}", "--cwd", str(tmp_path), "homelab-1", 'printf "%s|" "$X"; pwd')
    assert done.out == f"{value}|{tmp_path}\n"


def test_no_value_of_the_environment_is_in_an_argument_vector(sh):
    # Only builtins see the value, apart from the one process that is there to be found.
    look = 'case $(tr "\\0" " " <$f) in *"$SECRET"*) echo $f;; esac'
    script = f"for f in /proc/[0-9]*/cmdline; do {look}; done 2>/dev/null"
    secret = "hidden-in-plain-sight"
    with subprocess.Popen(["cat", "-", secret], stdin=subprocess.PIPE, stderr=subprocess.PIPE) as cat:
        done = sh("run", "--env", "SECRET", "homelab-1", script, environ={"SECRET": secret})
        assert done.out.splitlines() == [f"/proc/{cat.pid}/cmdline"], done
        cat.communicate()


def test_a_directory_that_is_not_there(sh):
    done = sh("run", "--cwd", "/no/such/place", "homelab-1", "true")
    assert done.status == 125 and "not started: no such directory: /no/such/place" in done.err


def test_output_larger_than_an_answer_is_kept_and_read_later(sh):
    done = sh("run", "homelab-1", "seq 100000")
    uuid = sh("history", "--json", "homelab-1").json["jobs"][0]["uuid"]
    whole = "".join(f"{number}\n" for number in range(1, 100_001))
    assert done.status == 123 and sh("cat", "homelab-1", uuid).out == whole


def test_what_is_left_in_the_background_holds_nothing_up(sh):
    done = sh("run", "homelab-1", "sleep 7101 & echo left")
    assert (done.status, done.out) == (0, "left\n") and done.seconds < 60
    for pid in running("7101"):
        os.kill(pid, signal.SIGKILL)


# -- ending commands


@pytest.mark.parametrize("seconds", ["7201"])
def test_a_time_out_ends_all_that_the_command_started(sh, seconds):
    started = f"(setsid sleep {seconds} &); (sleep {seconds} &); sleep {seconds} & "
    seen = f'while [ "$(pgrep -c -x -f "sleep {seconds}")" -lt 3 ]; do sleep 0.05; done; echo all run; wait'
    done = sh("run", "--timeout", "5s", "homelab-1", started + seen)
    assert (done.status, done.out) == (124, "all run\n") and "timed out after 5 seconds" in done.err, done
    assert running(seconds) == []


def test_a_cancel_ends_it_also_where_it_ignores_a_term(sh):
    uuid = sh("run", "--detach", "homelab-1", "trap '' TERM; sleep 7202; sleep 7202").out.strip()
    until_running("7202")
    assert sh("cancel", uuid).status == 0
    assert sh("wait", uuid).status == 130
    assert running("7202") == []


def test_ending_one_leaves_the_same_run_on_another_machine_alone(sh):
    uuid = sh("run", "--detach", "homelab-1,homelab-2", "sleep 7203").out.strip()
    until_running("7203", 2)
    assert sh("cancel", "homelab-1", uuid).status == 0
    until_running("7203", 1)
    assert sh("cancel", uuid).status == 0
    until_running("7203", 0)


# -- how they appear


def test_they_are_machines_like_others(sh):
    done = sh("run", "homelab-[1-2],ws1", "echo same")
    assert done.status == 0 and "homelab-[1-2],ws1 (3)" in done.out
    assert sh("groups", "add", "lab", "homelab-[1-2]").status == 0
    assert sh("run", "@lab", "true").status == 0
    assert sh("history", "homelab-1").status == 0


def test_facts_and_vitals_are_the_other_sides(sh):
    def said() -> dict[str, Any] | None:
        machines = sh("machines", "--json", "-l").json["machines"]
        found = next(each for each in machines if each["name"] == "homelab-1")
        return found if found["vitals"] else None

    found = eventually(said, what="vitals")
    here = os.uname()
    assert found["facts"]["kernel"] == here.release and found["platform"].startswith("linux/")
    assert found["facts"]["cpus"] >= 1 and found["facts"]["memory"] > 1 << 20
    assert 0 < found["vitals"]["memory"] < 100 and found["vitals"]["load"]


# -- adopting


def test_the_documented_examples(tmp_path):
    examples = examples_of("ssh-machines.md")
    assert examples
    with carrying(tmp_path / "cluster") as (cluster, _):
        for example in examples:
            check_example(cluster, example, tmp_path)


def test_adopting_again_changes_nothing(sh):
    done = sh("adopt", "homelab-1")
    assert (done.status, done.out) == (0, "homelab-1: adopted already, via ws1.\n")


def test_all_hosts_of_the_configuration(sh):
    done = sh("adopt", "--all", "--dry-run", "--json")
    adopted = {each["destination"] for each in done.json["adopted"]}
    failed = {each["destination"]: each["problem"] for each in done.json["failed"]}
    assert adopted == set(NAMES) and done.status == 1
    others = {"closed", "stranger", "unknown", "by-password", "included", "nowhere.invalid"}
    assert set(failed) == others, "patterns are no hosts"
    assert "nas" not in {each["name"] for each in sh("machines", "--json").json["machines"]}


@pytest.mark.parametrize(
    ("host", "words", "hint"),
    [
        ("closed", "nothing listens on 127.0.0.1 port", "start its sshd"),
        ("stranger", "it refuses every key", "put one into its authorized_keys"),
        ("unknown", "its host key is not known", "check it by hand: ssh unknown"),
        ("by-password", "it takes no key (only: password", "allow keys there"),
        ("nowhere.invalid", "finds no host called nowhere.invalid", "see to ~/.ssh/config"),
    ],
)
def test_why_a_host_is_not_reached_is_told_in_a_line_and_what_to_do_in_another(sh, host, words, hint):
    done = sh("adopt", host)
    said, told = done.err.splitlines()
    assert done.status == 125 and said.startswith(f"ERROR: ws1: ssh {host}: ") and words in said, done
    assert told.startswith("hint: ") and hint in told, done


def test_all_hosts_of_a_configuration_of_which_one_can_not_be_reached(own):
    cluster, server = own
    closed = f"Host closed\n    HostName 127.0.0.1\n    Port {ssh_server.free_port()}\n"
    server.introduce(cluster.agent, closed)
    done = cluster.sh("adopt", "--all")
    assert sorted(done.out.splitlines()) == [
        "Adopted homelab-2, via ws1.",
        "Adopted nas, via ws1.",
        "homelab-1: adopted already, via ws1.",
    ]
    said, told = done.err.splitlines()
    assert said.startswith("closed: ws1: ssh closed: nothing listens on 127.0.0.1 port ") and done.status == 1, done
    assert told.startswith("hint: start its sshd, ")
    ran = cluster.sh("run", "--json", ",".join(NAMES), "true")
    assert [job["exit_code"] for job in ran.json["jobs"]] == [0, 0, 0], "one that fails keeps no other from it"

    again = cluster.sh("adopt", "--all", "--json")
    assert again.status == 1 and again.err == ""
    assert {each["machine"]: each["already"] for each in again.json["adopted"]} == dict.fromkeys(NAMES, True)
    [failed] = again.json["failed"]
    assert failed["destination"] == "closed" and "nothing listens" in failed["problem"] and failed["hint"]
    server.introduce(cluster.agent)
    assert cluster.sh("adopt", "--all").status == 0, "it is in the configuration no more"


def test_what_has_an_agent_of_its_own_needs_nobody_to_carry_it(own):
    cluster, server = own
    server.introduce(cluster.agent, server.config().replace(" ".join(NAMES), "ws1"))
    for words in (("adopt", "ws1"), ("adopt", "--dry-run", "nas", "--name", "WS1")):
        done = cluster.sh(*words)
        assert done.status == 125 and done.err.splitlines() == [
            "ERROR: ws1 is a machine with an agent of its own",
            "hint: there is nothing to adopt: clustersh run ws1 COMMAND",
            f"hint: if {'nas' if 'nas' in words else 'ws1'} is another machine: --name ws1-2",
        ], done
    assert cluster.sh("adopt", "ws1", "--name", "ws1-2").status == 0, "as it said"


@pytest.mark.parametrize("host", ["-oProxyCommand=touch /tmp/x", "a b", "a;b"])
def test_what_is_no_host_never_reaches_ssh(sh, host):
    done = sh("adopt", "--", host)
    assert done.status == 125 and "can't be where ssh goes to" in done.err, done


# -- what breaks


def test_a_host_key_that_changed_is_told_apart_from_a_command_that_fails(own):
    cluster, server = own
    connections = server.connections()
    server.stop()
    for pid in connections:
        os.kill(pid, signal.SIGKILL)
    server.start(host_key="other_host_key")
    done = eventually(lambda: (ran := cluster.sh("run", "homelab-1", "true")).status == 125 and ran, what="a refusal")
    assert "its host key has changed" in done.err and "ssh-keygen -R" in done.err, done
    server.know("other_host_key")
    assert cluster.sh("run", "homelab-1", "true").status == 0, "once that is mended it works again"


def test_a_machine_that_is_not_reached_is_told_as_that_until_it_is_again(own):
    cluster, server = own

    def machine(name: str = "homelab-1") -> dict[str, Any]:
        return next(each for each in cluster.sh("machines", "--json").json["machines"] if each["name"] == name)

    def unreached() -> bool:
        return "nothing listens on 127.0.0.1 port" in (machine()["unreached"] or "")

    eventually(lambda: machine()["vitals"], what="vitals")
    connections = server.connections()
    server.stop()
    for pid in connections:
        os.kill(pid, signal.SIGKILL)
    eventually(unreached, what="that it is not reached")
    found = machine()
    assert (found["status"], found["vitals"], found["score"], found["latency_ms"]) == ("unreachable", None, None, None)
    assert "unreachable (ssh homelab-1: nothing listens on 127.0.0.1 port " in cluster.sh("machines", "-l").out
    assert machine("ws1")["status"] == "online", "its gateway is there"
    assert "homelab-1 | unreachable\n" in cluster.sh("targets", "@offline").out
    skipping = cluster.sh("run", "--skip-offline", "homelab-1,ws1", "true")
    assert (skipping.status, skipping.err) == (0, "1 completed, 1 skipped (offline: homelab-1)\n")
    planned = cluster.sh("run", "--dry-run", "homelab-1", "true")
    assert planned.status == 125 and "ERROR: it would not start on homelab-1: unreachable\n" in planned.err
    tried = cluster.sh("run", "homelab-1", "true")
    assert tried.status == 125 and "command not started: ssh homelab-1: nothing listens on" in tried.err

    end(cluster.agent_process)
    cluster.restart_agent()
    eventually(unreached, what="that it is not reached, told by a gateway that was started anew")
    server.start()
    assert cluster.sh("run", "homelab-1", "echo back").out == "back\n", "a run tries to connect"
    eventually(lambda: machine()["status"] == "online" and machine()["unreached"] is None, what="online")


def connecting(cluster: Cluster, host: str, number: int) -> None:
    """Wait until the agent makes that many connections to *host*."""
    agent = psutil.Process(cluster.agent_process.pid)

    def look() -> bool:
        with suppress(psutil.Error):
            lines = [each.cmdline() for each in agent.children()]
            return sum(host in line and "ControlMaster=yes" in line for line in lines) == number
        return False

    eventually(look, what=f"{number} connections to {host}")


def test_two_who_adopt_the_same_machine_at_once_do_not_undo_each_other(own):
    cluster, server = own
    with frozen(server):
        both = [cluster.client.open("clustersh", "adopt", "nas") for _ in range(2)]
        connecting(cluster, "nas", 2)
    assert 0 in [each.wait(60) for each in both]
    for each in both:
        end(each)
    done = cluster.sh("run", "nas", "echo there")
    assert (done.status, done.out) == (0, "there\n"), done


def test_a_gateway_that_goes_away_meanwhile_is_told_of_as_what_it_is(own):
    cluster, server = own
    with frozen(server):
        adopting = cluster.client.open("clustersh", "adopt", "nas")
        connecting(cluster, "nas", 1)
        end(cluster.agent_process, signal.SIGKILL)
        _, said = adopting.communicate(timeout=60)
    assert adopting.returncode == 125
    assert said.decode().splitlines()[0] == "ERROR: ws1 has gone offline, or does not answer"


@pytest.mark.parametrize("keep", [False, True])
def test_the_files_that_a_killed_agent_left_there_are_removed_unless_they_were_to_be_kept(own, tmp_path, keep):
    cluster, _ = own
    (tmp_path / "a.txt").write_text("x")
    options = ("--file", str(tmp_path / "a.txt"), *(("--keep-files",) if keep else ()))
    uuid = cluster.sh("run", "--detach", *options, "homelab-1", "sleep 7306").out.strip()
    until_running("7306")
    (folder,) = Path("/tmp").glob(f"clustersh-{uuid}-homelab-1")
    assert (folder / "files" / "a.txt").exists()
    end(cluster.agent_process, signal.SIGKILL)
    cluster.restart_agent()
    cluster.until_job(uuid, "interrupted")
    assert running("7306") == []
    try:
        assert folder.exists() == keep
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_with_two_gateways_one_has_to_be_named(own, tmp_path):
    cluster, server = own
    second = make_home(tmp_path, "second")
    server.introduce(second)
    assert second.run("clusteragent", "enroll", f"http://{cluster.address}", "--name", "gate").status == 0
    assert cluster.sh("run", "ws1", "true").status == 0
    second.start("clusteragent")
    try:
        cluster.until_status("gate", "online")
        unsaid = cluster.sh("adopt", "nas")
        assert unsaid.status == 125 and "which of 2 machines is to carry it?" in unsaid.err
        assert "hint: clustersh adopt --via ws1 ..." in unsaid.err, "the other one is new"
        assert cluster.sh("adopt", "nas", "--via", "gate").out == "Adopted nas, via gate.\n"
        assert cluster.sh("run", "nas,homelab-1", "true").status == 0
        assert "is carried by ws1 itself" in cluster.sh("adopt", "nas", "--via", "homelab-1").err
        taken = cluster.sh("adopt", "nas", "--via", "ws1")
        assert taken.status == 125 and taken.err.splitlines() == [
            "ERROR: nas is carried already: by gate, as nas",
            "hint: if nas is another machine: --name nas-2",
            "hint: to have ws1 carry it, first on the coordinator: clusterd forget nas",
        ]
        own_agent = cluster.sh("adopt", "ws1", "--via", "gate")
        assert own_agent.status == 125 and own_agent.err.splitlines() == [
            "ERROR: ws1 is a machine with an agent of its own",
            "hint: there is nothing to adopt: clustersh run ws1 COMMAND",
            "hint: if ws1 is another machine: --name ws1-2",
            "hint: to have gate carry it instead, on ws1 first: clusteragent leave",
        ]
        assert cluster.sh("run", "gate", "true").status == 0
        end(cluster.agent_process)
        cluster.until_status("ws1", "offline")
        assert "hint: clustersh adopt --via gate ..." in cluster.sh("adopt", "homelab-2").err, "who is online"
    finally:
        second.stop()


def test_facts_are_there_from_the_first_moment(own):
    cluster, _ = own
    found = next(each for each in cluster.sh("machines", "--json").json["machines"] if each["name"] == "homelab-1")
    assert found["facts"]["kernel"] == os.uname().release and found["platform"].startswith("linux/")
    assert found["carrier"] == {"machine": "ws1", "destination": "homelab-1"}


def test_a_killed_agent_leaves_nothing_running_there(own):
    cluster, _ = own
    uuid = cluster.sh("run", "--detach", "homelab-1", "setsid sleep 7301 & sleep 7301").out.strip()
    until_running("7301", 2)
    end(cluster.agent_process, signal.SIGKILL)
    cluster.restart_agent()
    job = cluster.until_job(uuid, "interrupted")
    assert job["reason"] == "the agent restarted"
    assert running("7301") == []
    assert cluster.sh("run", "homelab-1", "echo again").out == "again\n"


@contextmanager
def frozen(server: Sshd) -> Iterator[None]:
    """Have what serves the connections, and takes new ones, stand still meanwhile."""
    assert server.process is not None
    above = psutil.Process(server.process.pid)
    # Not the commands themselves, which are below them.
    stopped = [above, *(each for each in above.children(recursive=True) if each.name().startswith("sshd"))]
    for each in stopped:
        each.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for each in stopped:
            with suppress(psutil.NoSuchProcess):
                each.send_signal(signal.SIGCONT)


def test_an_agent_stops_at_once_although_a_machine_can_not_be_reached(own):
    cluster, server = own
    cluster.sh("run", "--detach", "homelab-1", "sleep 7303")
    until_running("7303")
    with frozen(server):
        begun = time.monotonic()
        end(cluster.agent_process)
        assert time.monotonic() - begun < 15, "the grace, here 2 seconds, and 5 more"
        assert len(running("7303")) == 1
    cluster.restart_agent()
    until_running("7303", 0)


def test_a_cancel_does_not_wait_for_a_machine_that_can_not_be_reached(own):
    cluster, server = own
    uuid = cluster.sh("run", "--detach", "homelab-1", "sleep 7304").out.strip()
    until_running("7304")
    with frozen(server):
        assert cluster.sh("cancel", uuid).status == 0
        begun = time.monotonic()
        assert cluster.sh("wait", uuid).status == 130 and time.monotonic() - begun < 35
    until_running("7304", 0)


def test_a_cancel_does_not_wait_for_files_either_and_none_of_them_stay(own, tmp_path):
    cluster, server = own
    (tmp_path / "a.txt").write_text("x")
    with frozen(server):
        uuid = cluster.sh("run", "--detach", "--file", str(tmp_path / "a.txt"), "homelab-1", "sleep 7307").out.strip()
        agent = psutil.Process(cluster.agent_process.pid)
        eventually(lambda: any(each.name() == "sh" for each in agent.children()), what="sending them")
        assert cluster.sh("cancel", uuid).status == 0
        begun = time.monotonic()
        assert cluster.sh("wait", uuid).status == 130 and time.monotonic() - begun < 20

    def is_removed() -> bool:
        cluster.sh("machines", "-l")  # looks at the machine, as is done every 30 seconds
        left = cluster.agent.path / "agent" / "carried" / "homelab-1" / "left.json"
        return json.loads(left.read_text()) == {"jobs": []} and not list(Path("/tmp").glob(f"clustersh-{uuid}-*"))

    eventually(is_removed, what="its files are removed")
    assert running("7307") == []


def test_the_executor_that_a_gateway_is_told_to_use_is_for_its_own_commands(own):
    cluster, _ = own
    end(cluster.agent_process)
    config = cluster.agent.path / "config.toml"
    config.write_text(config.read_text() + 'executor = "nowhere"\n')
    cluster.restart_agent()
    assert "no executor 'nowhere'" in cluster.sh("run", "ws1", "true").err
    assert cluster.sh("run", "homelab-1", "echo by ssh").out == "by ssh\n"


def test_a_connection_that_breaks_ends_the_command_once_there_is_another(own):
    cluster, server = own
    uuid = cluster.sh("run", "--detach", "homelab-1", "setsid sleep 7302 & sleep 7302").out.strip()
    until_running("7302", 2)
    for pid in server.connections():
        os.kill(pid, signal.SIGKILL)
    job = cluster.until_job(uuid, "interrupted")
    assert "the connection was lost; what it left there was ended" in job["reason"]
    assert running("7302") == []


def test_forgetting_one_ends_it_and_it_can_be_adopted_again(own):
    cluster, _ = own
    folder = cluster.agent.path / "agent" / "carried" / "homelab-1"
    assert json.loads((folder / "carried.json").read_text()) == {"destination": "homelab-1"}
    audit = cluster.coordinator.run("clusterd", "audit").out
    assert "of joshua@mba, carried by ws1 (ssh homelab-1)" in " ".join(audit.split())
    assert cluster.coordinator.run("clusterd", "forget", "homelab-1").status == 0
    eventually(lambda: not folder.exists(), what="its folder is removed")
    assert cluster.sh("run", "homelab-1", "true").status == 125
    assert cluster.sh("adopt", "homelab-1").status == 0
    assert cluster.sh("run", "homelab-1", "echo back").out == "back\n"
    assert cluster.coordinator.run("clusterd", "forget", "ws1").status == 0
    assert cluster.sh("machines", "--json").json["machines"] == [], "whom a machine carries goes with it"


# -- checks


def test_checks_are_made_on_the_machine_by_its_shell(sh, carried):
    port = carried[1].port
    good = sh("check", "homelab-[1-2]", "--tcp", str(port), "--disk", "/ < 100%", "--command", "cd && test -d .")
    assert good.status == 0 and good.err == "2 ok\n", good
    assert good.out.startswith("homelab-1: ok (connected; ") or good.out.startswith("homelab-2: ok (connected; ")
    bad = sh("check", "--json", "homelab-1,ws1", "--command", 'echo "it\'s" not; exit 3', "--disk", "/nowhere < 9%")
    assert bad.status == 1
    told = {each["machine"]: [check["said"] for check in each["checks"]] for each in bad.json["machines"]}
    assert told["homelab-1"] == told["ws1"] == ["exit 3: it's not", "No such file or directory"]
    assert sh("check", "homelab-1").out == "homelab-1: ok\n"


def test_a_check_ends_in_time_with_all_that_it_started(sh):
    done = sh("check", "homelab-1", "--timeout", "1s", "--command", "sleep 7401; true")
    assert (done.status, done.out) == (1, "homelab-1: FAILED: command sleep 7401; true: still ran after 1s\n"), done
    assert running("7401") == []


# -- what is refused


def test_the_guard_judges_by_what_the_other_side_is(sh):
    """Nothing of it is run: a policy is only asked."""
    for line, verdict in (("Restart-Computer", "pass"), ("mkfs.ext4 /dev/sda", "deny")):
        (told,) = sh("policy", "test", "--json", "homelab-1", line).json["verdicts"]
        assert (told["machines"], told["platform"], told["verdict"]) == (["homelab-1"], "linux", verdict), line


@pytest.mark.parametrize("enrollment", ["token", "approve"])
def test_who_may_use_the_gateway_adopts_by_it_however_machines_are_enrolled(own, enrollment):
    cluster, _ = own
    config = f'[enrollment]\npolicy = "{enrollment}"\n'
    for targets, status in (("homelab-1", 126), ("ws1", 0)):
        end(cluster.coordinator_process)
        limits = f'[policy.client."joshua@mba"]\ntargets = "{targets}"\n'
        (cluster.coordinator.path / "config.toml").write_text(config + limits)
        cluster.restart_coordinator()
        cluster.until_status("ws1", "online")
        done = cluster.sh("adopt", "nas")
        assert done.status == status, done
        if status:
            assert "refused by policy: joshua@mba may run on homelab-1 only, not on ws1" in done.err
            assert cluster.sh("adopt", "--all", "--dry-run").status == status, "nor is told what hosts there are"
            assert cluster.sh("run", "homelab-1", "true").status == 0, "it may run on what is carried there"
    assert done.out == "Adopted nas, via ws1.\n"
    refused = cluster.sh("run", "nas", "true")
    assert refused.status == 126 and "may run on ws1 only, not on nas" in refused.err, "to adopt is not to use"
    assert cluster.sh("label", "nas", "kind=disks").status == cluster.sh("groups", "add", "disks", "nas").status == 0
    assert cluster.sh("targets", "--json", "all").json["machines"] == ["homelab-1"], "nor to lead others there"
    assert "nas" in cluster.sh("targets", "--json", "@new").json["machines"]
