"""Jobs as real processes: how they end, what they print, and that nothing of them is left."""

from __future__ import annotations

import hashlib
import os
import sys
import time

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from clustersh.agent.files import unpack
from clustersh.agent.process import keep_descriptors_private
from clustersh.agent.runner import AGENT_STOPPED, CANCELLED
from clustersh.wire.files import Entry, EntryKind, Manifest, encode_manifest
from clustersh.wire.jobs import BlobRef, Command, Outcome, State
from clustersh.wire.link import Failed, Stdin, StdinTaken

from .jobs_support import alive, gone

ensure = pytest_twisted.ensureDeferred
STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def pids(output) -> list[int]:
    return [int(line) for line in output.stdout.split() if line.isdigit()]


@ensure
async def test_a_command_that_ends_by_itself(host):
    outcome, output = await host.run("echo out; echo err >&2; exit 3")
    assert outcome == Outcome(State.FAILED, exit_code=3)
    assert (output.stdout, output.stderr) == (b"out\n", b"err\n")


@ensure
async def test_a_command_that_succeeds_and_its_duration(host):
    job = host.job("sleep 0.1")
    result = await job.done
    assert result.outcome == Outcome(State.COMPLETED, exit_code=0)
    assert 0.1 <= result.duration_s < 10


@ensure
async def test_a_command_that_a_signal_ends(host):
    outcome, _ = await host.run("kill -SEGV $$")
    assert outcome == Outcome(State.FAILED, signal=11)


@ensure
async def test_output_is_taken_byte_for_byte_even_from_a_fast_exit(host):
    program = "import os; d = bytes(range(256)) * 4096\nwhile d: d = d[os.write(1, d):]"
    outcome, output = await host.run(command=Command(argv=(sys.executable, "-c", program)))
    assert outcome.exit_code == 0
    assert output.stdout == bytes(range(256)) * 4096


@ensure
async def test_what_the_pipes_hold_at_the_exit_is_read_although_reading_was_paused(host):
    job = host.job("read; head -c 60000 /dev/zero; echo end", stdin=True)
    job.output.pressure(True)
    job.runner.stdin(Stdin(1, job.uuid, 0, b"\n", end=True), lambda _: None)
    result = await job.done
    assert result.outcome.exit_code == 0
    assert job.output.stdout == bytes(60000) + b"end\n"


@ensure
async def test_a_background_child_outlives_a_normal_end_and_delays_nothing(host):
    outcome, output = await host.run("sleep 60 & echo $!")
    assert outcome.state is State.COMPLETED
    (child,) = pids(output)
    assert alive(child)
    os.kill(child, 9)


@ensure
async def test_a_timeout_ends_the_whole_tree(host):
    shell = f"sleep 60 & echo $!; setsid sleep 60 & (trap '' TERM; echo $BASHPID; exec sleep 60) & {STUBBORN}"
    job = host.job(f"{shell}", timeout_s=0.5)
    await job.output.shows(b"ready")
    result = await job.done
    assert result.outcome == Outcome(State.TIMED_OUT, reason="timed out after 0.5s")
    found = pids(job.output)
    assert len(found) == 2
    assert not any(alive(pid) for pid in found)
    assert not host_processes(host)


def host_processes(host) -> list[int]:
    from clustersh.agent.tree import take_snapshot

    return [one.pid for one in take_snapshot().values() if one.machine == host.machinery.machine]


@ensure
async def test_a_silent_command_reaches_its_idle_timeout_and_a_talking_one_does_not(host):
    talking = host.job("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done", idle_timeout_s=0.4)
    silent, _ = await host.run("echo begun; sleep 60", idle_timeout_s=0.2)
    assert silent == Outcome(State.TIMED_OUT, reason="no output for 0.2s")
    assert (await talking.done).outcome.state is State.COMPLETED


@ensure
async def test_cancel_kills_what_ignores_term_and_answers_when_all_is_gone(host):
    job = host.job(STUBBORN)
    await job.output.shows(b"ready")
    began = time.monotonic()
    job.runner.end(CANCELLED)
    job.runner.end(AGENT_STOPPED)
    assert (await job.done).outcome == CANCELLED
    assert 0.3 <= time.monotonic() - began < 5
    assert not host_processes(host)


@ensure
async def test_cancel_lets_a_command_clean_up(host):
    job = host.job("trap 'echo cleaned; exit 0' TERM; echo ready; while :; do sleep 0.02; done")
    await job.output.shows(b"ready")
    job.runner.end(CANCELLED)
    assert (await job.done).outcome == CANCELLED
    assert b"cleaned" in job.output.stdout


@ensure
async def test_cancel_reaches_a_stopped_process(host):
    job = host.job("echo ready; kill -STOP $$")
    await job.output.shows(b"ready")
    job.runner.end(CANCELLED)
    assert (await job.done).outcome == CANCELLED


@ensure
async def test_cancel_reaches_a_daemon_that_left_the_session_and_its_parent(host):
    job = host.job("(setsid setsid sh -c 'echo $$; echo ready; exec sleep 60' &); sleep 60")
    await job.output.shows(b"ready")
    (daemon,) = pids(job.output)
    job.runner.end(CANCELLED)
    await job.done
    assert not alive(daemon)


@ensure
async def test_the_same_run_on_another_machine_of_this_host_is_left_alone(host, tmp_path):
    from .jobs_support import Host, RunningJob, start

    (tmp_path / "other").mkdir()
    other = Host(tmp_path / "other", host.machinery.machine[:50] + "-other")
    message = start("echo ready; sleep 60")
    mine, theirs = RunningJob(host.machinery, message), RunningJob(other.machinery, message)
    await gatherResults([Deferred.fromCoroutine(job.output.shows(b"ready")) for job in (mine, theirs)])
    mine.runner.end(CANCELLED)
    await mine.done
    assert not theirs.done.called
    theirs.runner.end(CANCELLED)
    await theirs.done


@ensure
async def test_a_cancel_before_the_process_exists_starts_nothing(host, tmp_path):
    job = host.job(f"touch {tmp_path}/ran", cwd=str(tmp_path))
    job.runner.end(CANCELLED)
    assert (await job.done).outcome == CANCELLED
    assert not (tmp_path / "ran").exists()


@ensure
async def test_a_hundred_at_once(host):
    jobs = [host.job(f"echo {number}; sleep 0.2") for number in range(120)]
    results = await gatherResults([job.done for job in jobs])
    assert {result.outcome.exit_code for result in results} == {0}
    assert [int(job.output.stdout) for job in jobs] == list(range(120))


@ensure
async def test_no_terminal_no_stdin(host):
    outcome, output = await host.run("cat; (read x < /dev/tty) 2>/dev/null || echo none; exec 2>&1; : < /dev/tty")
    assert outcome.exit_code == 1
    assert output.stdout.startswith(b"none\n")
    assert b"No such device or address" in output.stdout


@ensure
async def test_the_environment_has_marks_and_what_was_asked_for(host):
    job = host.job('echo "$CLUSTERSH_JOB $CLUSTERSH_MACHINE $GREETING"', env={"GREETING": "grüße"})
    await job.done
    assert job.output.stdout.decode().split() == [job.uuid, host.machinery.machine, "grüße"]


@ensure
async def test_no_descriptor_of_the_agent_reaches_a_command(host):
    inherited = os.dup(0)
    os.set_inheritable(inherited, True)
    keep_descriptors_private()
    _, output = await host.run("ls /proc/self/fd")
    os.close(inherited)
    assert {int(fd) for fd in output.stdout.split()} == {0, 1, 2, 3}  # 3 is ls reading the folder


@ensure
async def test_where_commands_run(host):
    (host.home / "sub dir").mkdir()
    for cwd, expected in (("", host.home), ("sub dir", host.home / "sub dir"), ("/", "/")):
        _, output = await host.run("pwd", cwd=cwd)
        assert output.stdout.decode() == f"{expected}\n"
        _, output = await host.run(command=Command(argv=("pwd",)), cwd=cwd)
        assert output.stdout.decode() == f"{expected}\n"


@ensure
async def test_a_missing_directory_starts_nothing(host):
    outcome, _ = await host.run("touch ran", cwd="/no/such")
    assert outcome == Outcome(State.NOT_STARTED, reason="no such directory: /no/such")


@ensure
async def test_an_argument_vector_reaches_the_program_unread(host):
    words = ("printf", "%s|", "a b", "$HOME", "*", "", "'")
    _, output = await host.run(command=Command(argv=words))
    assert output.stdout == b"a b|$HOME|*||'|"


@ensure
async def test_a_missing_program(host):
    outcome, output = await host.run(command=Command(argv=("no-such-program",)))
    assert outcome.exit_code == 127
    assert b"no-such-program" in output.stderr


@ensure
async def test_an_error_message_names_the_users_own_line(host):
    _, output = await host.run("no-such-program", cwd="/")
    assert output.stderr == b"bash: line 1: no-such-program: command not found\n"


@ensure
async def test_a_command_too_long_for_an_argument(host):
    long = "x" * 300_000
    outcome, output = await host.run(f"printf %s {long}; pwd")
    assert outcome.exit_code == 0
    assert output.stdout.decode() == f"{long}{host.home}\n"
    assert not any(host.workspaces.folder.iterdir())


@ensure
async def test_an_argument_over_the_systems_limit_is_told(host):
    outcome, _ = await host.run(command=Command(argv=("echo", "x" * 300_000)))
    assert outcome.state is State.NOT_STARTED
    assert "Argument list too long" in outcome.reason


def keep(host, content: bytes) -> BlobRef:
    digest = hashlib.sha256(content).hexdigest()
    with host.blobs.cache.writer(digest, len(content)) as writer:
        writer.write(content)
        writer.commit()
    return BlobRef(digest, len(content))


@ensure
@pytest.mark.parametrize(
    ("script", "printed"),
    [
        (b"#!/usr/bin/env python3\nimport os; print('python', os.getcwd())\n", "python"),
        (b"echo bash ${BASH_VERSION:+yes} $PWD", "bash yes"),
    ],
)
async def test_a_script_runs_by_its_own_interpreter_or_else_bash(host, script, printed):
    outcome, output = await host.run(command=Command(script=keep(host, script)))
    assert outcome.exit_code == 0
    assert output.stdout.decode() == f"{printed} {host.home}\n"


def tree_of(host) -> BlobRef:
    hello = keep(host, b"hello\n")
    entries = (
        Entry(b"sub", EntryKind.FOLDER, 0o755),
        Entry(b"sub/hello", EntryKind.FILE, 0o640, hello.sha256, hello.size),
    )
    return keep(host, encode_manifest(Manifest(entries)))


@ensure
@pytest.mark.parametrize("kept", [False, True])
async def test_files_lie_in_the_working_directory_which_goes_away(host, kept):
    job = host.job("cat sub/hello; pwd", files=tree_of(host), keep_files=kept)
    result = await job.done
    assert result.outcome.exit_code == 0
    folder = host.workspaces.folder / job.uuid / "files"
    assert job.output.stdout.decode() == f"hello\n{folder}\n"
    assert folder.exists() is kept
    host.workspaces.remove_leftovers(frozenset())
    assert folder.exists() is kept


@ensure
async def test_a_relative_directory_is_relative_to_the_files(host):
    _, output = await host.run("cat hello", files=tree_of(host), cwd="sub")
    assert output.stdout == b"hello\n"


@ensure
async def test_files_that_can_not_be_had_start_nothing(host):
    outcome, _ = await host.run("true", files=BlobRef("ab" * 32, 10))
    assert outcome.state is State.NOT_STARTED
    assert "files can't be put in place" in outcome.reason


def test_what_a_killed_agent_left_is_removed(host):
    left = host.workspaces.folder / "01992f3e-0000-7000-8000-000000000000" / "files"
    left.mkdir(parents=True)
    unpack(Manifest((Entry(b"x", EntryKind.FOLDER, 0o500),)), left, lambda _: left)
    host.workspaces.remove_leftovers(frozenset())
    assert not any(host.workspaces.folder.iterdir())


# -- stdin


class Answers(list):
    def __call__(self, answer) -> None:
        self.append(answer)


@ensure
async def test_stdin_is_taken_once_however_often_it_is_sent(host):
    answers = Answers()
    job = host.job("cat", stdin=True)
    for piece in (
        Stdin(1, job.uuid, 0, b"abc"),
        Stdin(2, job.uuid, 0, b"abcdef"),
        Stdin(3, job.uuid, 7, b"gap"),
        Stdin(4, job.uuid, 6, b"\0end", end=True),
    ):
        job.runner.stdin(piece, answers)
    result = await job.done
    assert result.outcome.exit_code == 0
    assert job.output.stdout == b"abcdef\0end"
    assert isinstance(answers[0], Failed)
    assert (answers[0].request, answers[0].type) == (3, "bad-request")
    assert [answer.request for answer in answers[1:]] == [1, 2, 4]
    assert answers[-1].offset == 10


@ensure
async def test_stdin_is_answered_when_the_process_took_it(host):
    answers = Answers()
    job = host.job("echo ready; read go < /dev/null; sleep 0.3; cat > /dev/null", stdin=True)
    await job.output.shows(b"ready")
    data = bytes(1 << 20)
    job.runner.stdin(Stdin(1, job.uuid, 0, data, end=True), answers)
    await deferLater(reactor, 0.1)
    assert not answers  # the pipe takes 64 KiB, and nobody reads
    await job.done
    assert answers == [StdinTaken(1, len(data), closed=True)]


@ensure
async def test_a_process_that_takes_no_more_stdin_says_so(host):
    answers = Answers()
    job = host.job("exec <&-; echo closed; sleep 60", stdin=True)
    await job.output.shows(b"closed")
    while not any(isinstance(answer, StdinTaken) and answer.closed for answer in answers):
        job.runner.stdin(Stdin(1, job.uuid, 0, b"x" * 100), answers)
        await deferLater(reactor, 0.02)
    job.runner.end(CANCELLED)
    await job.done


@ensure
async def test_a_process_that_ends_with_stdin_unread(host):
    answers = Answers()
    job = host.job("sleep 60 & exit 4", stdin=True)
    job.runner.stdin(Stdin(1, job.uuid, 0, bytes(1 << 20)), answers)
    result = await job.done
    assert result.outcome.exit_code == 4
    assert answers[-1].closed


@ensure
async def test_a_job_without_stdin_takes_none(host):
    answers = Answers()
    job = host.job("sleep 0.1")
    job.runner.stdin(Stdin(1, job.uuid, 0, b"x"), answers)
    await job.done
    assert answers == [StdinTaken(1, 0, closed=True)]


@ensure
async def test_the_process_is_told_to_the_store(host):
    job = host.job("echo $$; sleep 0.2")
    await job.done
    (mark,) = job.marks
    assert mark.pid == int(job.output.stdout)
    assert mark.boot_id
    await gone(mark.pid)


@ensure
async def test_a_command_whose_output_can_be_kept_no_more_ends_with_that_reason(host):
    job = host.job(STUBBORN + " & wait")
    await job.output.shows(b"ready")
    job.output.cut("disk full on the machine")
    outcome = (await job.done).outcome
    assert outcome == Outcome(State.FAILED, reason="disk full on the machine")
    await gone(job.uuid)


@ensure
async def test_back_pressure_stops_a_writer_and_lets_it_go_on(host):
    job = host.job("echo ready; head -c 3000000 /dev/zero; sleep 0")
    await job.output.shows(b"ready")
    job.output.pressure(True)
    taken = len(job.output.stdout)
    await deferLater(reactor, 0.2)
    assert len(job.output.stdout) == taken < 3_000_000
    assert not job.done.called
    job.output.pressure(False)
    await job.done
    assert len(job.output.stdout) == 3_000_006


def test_the_files_of_a_job_that_may_live_on_are_removed_after_it(host):
    one, other = "01992f3e-0000-7000-8000-000000000000", "01992f3e-0000-7000-8000-000000000001"
    for uuid in (one, other):
        (host.workspaces.folder / uuid).mkdir(parents=True)
    host.workspaces.remove_leftovers(frozenset([one]))
    assert [path.name for path in host.workspaces.folder.iterdir()] == [one]
    host.workspaces.remove_leftover(one)
    assert not any(host.workspaces.folder.iterdir())
