"""Executors that speak with the processes they start: what a job hears of those is what its executor makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock, deferLater
from zope.interface import implementer
from zope.interface.verify import verifyObject

from clustersh.agent.executors import ExecutorError, IConversation, IElsewhere, ISpeaking, Task
from clustersh.agent.executors.chosen import ELSEWHERE_S, Chosen
from clustersh.agent.executors.session import Session
from clustersh.agent.executors.ssh import Ssh
from clustersh.agent.process import ProcessListener
from clustersh.agent.runner import CANCELLED
from clustersh.agent.ssh.conversation import Conversation
from clustersh.wire.jobs import Command, Outcome, State
from clustersh.wire.link import Stdin
from clustersh.wire.output import Stream

from .jobs_support import Host, gone

ensure = pytest_twisted.ensureDeferred
TASK = Task(Command(shell="true"), Path("/"), Path("/nowhere"))
SHELL = 'read -r line; echo "pid $$"; (eval "$line"); echo "over $?"; exec sleep 300'
LOST = Outcome(State.INTERRUPTED, reason="nobody heard how it ended")


@implementer(IConversation)
class Talk:
    """Says the command first; hears lines, of which two kinds are not the command's."""

    def __init__(self, first: Any, wrong: dict[str, Any]) -> None:
        self.first = first
        self.pid = 0
        self.closed = 0
        self.gone: tuple[int | None, int | None] | None = None
        self._ended: Outcome | None = None
        self._held = b""
        self._wrong = wrong

    def heard(self, stream: Stream, data: bytes) -> Any:
        if stream is Stream.STDERR:
            return data
        lines = (self._held + data).splitlines(keepends=True)
        self._held = lines.pop() if data and lines and not lines[-1].endswith(b"\n") else b""
        own = []
        for line in lines:
            word, _, number = line.partition(b" ")
            if word == b"over":
                self._ended = Outcome.exited(int(number))
            elif word == b"pid":
                self.pid = int(number)
            else:
                own.append(line)
        return self._answer("heard", b"".join(own))

    @property
    def ended(self) -> Any:
        return self._answer("ended", self._ended)

    def outcome(self, code: int | None, number: int | None) -> Any:
        self.gone = (code, number)
        return self._answer("outcome", succeed(LOST))

    def close(self) -> None:
        self.closed += 1
        self._answer("close", None)

    def _answer(self, what: str, right: Any) -> Any:
        """Return what is right, but what is *wrong* once the process told its pid."""
        wrong = self._wrong.get(what, right) if self.pid else right
        if isinstance(wrong, BaseException):
            raise wrong
        return wrong


@implementer(ISpeaking)
class Speaking:
    """Runs the commands of a shell that is told them; answers to *wrong* are those there."""

    name = "speaking"

    def __init__(self, argv: list[bytes] | None = None, **wrong: Any) -> None:
        self.talks: list[Talk] = []
        self._argv = argv or [b"/bin/sh", b"-c", SHELL.encode()]
        self._wrong = wrong

    def writes(self, task: Task) -> bool:
        return False

    def argv(self, task: Task) -> list[bytes]:
        return self._argv

    def conversation(self, task: Task) -> Talk:
        first = self._wrong.get("first", f"{task.command.shell}\n".encode())
        if isinstance(first, BaseException):
            raise first
        self.talks.append(Talk(first, self._wrong))
        return self.talks[-1]


@implementer(IElsewhere)
class Far(Speaking):
    """Prepares for as long as the test wants."""

    def __init__(self, argv: list[bytes] | None = None, **wrong: Any) -> None:
        super().__init__(argv, **wrong)
        self.preparing: Deferred[None] = Deferred()
        self.ended: list[str] = []

    def prepare(self, task: Task) -> Deferred[None]:
        return self.preparing

    def end(self, uuid: str) -> None:
        self.ended.append(uuid)


async def until_closed(talk: Talk) -> None:
    """Wait until the agent knows that the process is gone; the test's own time limit ends it else."""
    while not talk.closed:
        await deferLater(cast(Any, reactor), 0.01)


def test_the_built_in_one_keeps_the_interfaces() -> None:
    nothing: Any = None
    ssh = Ssh(nothing, nothing, "nas")
    assert verifyObject(IElsewhere, ssh) and verifyObject(ISpeaking, ssh)
    assert verifyObject(IConversation, Conversation(nothing, b"mark", b"line", "home", nothing))


@pytest.mark.real
@ensure
async def test_the_job_hears_what_is_the_commands(tmp_path: Path) -> None:
    speaking = Speaking()
    outcome, output = await Host(tmp_path, executor=speaking).run("echo own; cat; exit 7")
    assert (outcome, output.stdout) == (Outcome.exited(7), b"own\n")
    (talk,) = speaking.talks
    await gone(talk.pid)  # it went on, and is ended
    await until_closed(talk)
    assert (talk.closed, talk.gone) == (1, None)


@pytest.mark.real
@ensure
async def test_the_jobs_own_stdin_follows_what_is_said_first(tmp_path: Path) -> None:
    job = Host(tmp_path, executor=Speaking()).job("cat", stdin=True)
    answers: list[Any] = []
    job.runner.stdin(Stdin(1, job.uuid, 0, b"a\n"), answers.append)
    await job.output.shows(b"a\n")
    job.runner.stdin(Stdin(2, job.uuid, 2, b"b\n", end=True), answers.append)
    result = await job.done
    assert (result.outcome, job.output.stdout, len(answers)) == (Outcome.exited(0), b"a\nb\n", 2)


@pytest.mark.real
@pytest.mark.parametrize(("how", "told"), [("kill -KILL $$", (None, 9)), ("trap 'exit 3' TERM; kill $$", (3, None))])
@ensure
async def test_a_process_that_ends_before_the_end_was_heard_is_asked_about(how: str, told: Any, tmp_path: Path) -> None:
    speaking = Speaking([b"/bin/sh", b"-c", b'read -r line; echo "pid $$"; eval "$line"'])
    outcome, output = await Host(tmp_path, executor=speaking).run(f"printf unfinished; {how}")
    (talk,) = speaking.talks
    assert (outcome, output.stdout) == (LOST, b"unfinished")
    assert (talk.gone, talk.closed) == (told, 1)


@pytest.mark.real
@ensure
async def test_an_end_that_is_heard_last_of_all_counts(tmp_path: Path) -> None:
    speaking = Speaking([b"/bin/sh", b"-c", b'read -r line; printf "pid $$\nover 5"'])
    outcome, output = await Host(tmp_path, executor=speaking).run("true")
    assert (outcome, output.stdout, speaking.talks[0].gone) == (Outcome.exited(5), b"", None)


@pytest.mark.real
@pytest.mark.parametrize("what", ["heard", "ended"])
@pytest.mark.parametrize(("wrong", "why"), [(ValueError("no"), "ValueError: no"), ("text", "TypeError: ")])
@ensure
async def test_one_that_does_not_understand_any_more_has_the_job_ended(
    what: str, wrong: Any, why: str, tmp_path: Path
) -> None:
    speaking = Speaking(**{what: wrong})
    outcome, _ = await Host(tmp_path, executor=speaking).run("trap '' TERM; echo begun; sleep 300")
    (talk,) = speaking.talks
    await gone(talk.pid)
    assert outcome.state is State.INTERRUPTED
    assert str(outcome.reason).startswith(f"the executor 'speaking' failed: {why}")
    assert talk.closed == 1


@pytest.mark.real
@pytest.mark.parametrize(("wrong", "why"), [(SystemExit(3), "SystemExit: 3"), (None, "TypeError: it does not say")])
@ensure
async def test_one_that_does_not_know_what_became_of_it_is_named(wrong: Any, why: str, tmp_path: Path) -> None:
    host = Host(tmp_path, executor=Speaking([b"/bin/sh", b"-c", b"read -r line; echo pid $$"], outcome=wrong))
    outcome, _ = await host.run("true")
    assert outcome.state is State.INTERRUPTED
    assert str(outcome.reason).startswith(f"the executor 'speaking' failed: {why}")


def test_it_has_a_time_to_find_out() -> None:
    clock, outcomes = Clock(), []

    class Listener(ProcessListener):
        def gone(self, outcome: Outcome) -> None:
            outcomes.append(outcome)

    talk = Talk(b"", {"outcome": Deferred()})
    talk.pid = 1
    executor = Chosen(clock, lambda function, *words: Deferred(), Speaking())
    Session(executor, talk, Listener(), stdin=False).exited(1, None)
    assert outcomes == []
    clock.advance(ELSEWHERE_S)
    assert outcomes == [
        Outcome(State.INTERRUPTED, reason="the executor 'speaking' failed: it took over 30 seconds"),
    ]


@pytest.mark.real
@ensure
async def test_what_it_fails_to_close_hurts_nobody(tmp_path: Path) -> None:
    host = Host(tmp_path, executor=Speaking([b"/bin/sh", b"-c", b"read -r line; echo pid $$"], close=OSError("no")))
    assert (await host.run("true"))[0] == LOST


@pytest.mark.parametrize(
    ("first", "why"),
    [
        (ExecutorError("not on Sundays"), "not on Sundays"),
        (ValueError("x"), "the executor 'speaking' failed: ValueError: x"),
        ("text", "the executor 'speaking' failed: TypeError: what it says first is no bytes"),
    ],
)
@ensure
async def test_one_that_has_nothing_to_say_starts_nothing(first: Any, why: str, tmp_path: Path) -> None:
    outcome, _ = await Host(tmp_path, executor=Speaking(first=first)).run("true")
    assert (outcome.state, outcome.reason) == (State.NOT_STARTED, why)


@ensure
async def test_it_is_told_where_no_process_comes_to_be(tmp_path: Path) -> None:
    speaking = Speaking([b"/no/such"])
    outcome, _ = await Host(tmp_path, executor=speaking).run("true")
    assert outcome.state is State.NOT_STARTED and str(outcome.reason).startswith("can't run /no/such")
    assert [talk.closed for talk in speaking.talks] == [1]


@ensure
async def test_it_is_told_where_the_job_is_not_wanted_any_more(tmp_path: Path) -> None:
    far = Far()
    job = Host(tmp_path, executor=far).job("true")
    job.runner.end(CANCELLED)
    assert far.talks == []
    far.preparing.callback(None)
    assert (await job.done).outcome == CANCELLED
    assert ([talk.closed for talk in far.talks], far.ended) == ([1], [])


@pytest.mark.real
@ensure
async def test_one_elsewhere_is_asked_to_end_the_job_and_hears_no_more(tmp_path: Path) -> None:
    far = Far()
    far.preparing.callback(None)
    job = Host(tmp_path, executor=far).job("echo begun; sleep 300")
    await job.output.shows(b"begun")
    job.runner.end(CANCELLED)
    assert (await job.done).outcome == CANCELLED
    assert (far.ended, far.talks[0].closed) == ([job.uuid], 1)
