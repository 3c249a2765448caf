"""Executors that others wrote: finding them, and what they may do wrong."""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import Clock, deferLater
from twisted.internet.threads import deferToThread
from zope.interface import implementer
from zope.interface.verify import verifyObject

from clustersh.agent.executors import ExecutorError, IElsewhere, IExecutor, Task
from clustersh.agent.executors.bash import Bash
from clustersh.agent.executors.choice import choose, find_plugin
from clustersh.agent.executors.chosen import ELSEWHERE_S, MAX_LATE, WRITE_S, Chosen, Everywhere
from clustersh.agent.executors.powershell import PowerShell
from clustersh.agent.lone_thread import in_lone_thread
from clustersh.agent.tree import Tree
from clustersh.wire.jobs import Command, State

from .jobs_support import Host

ensure = pytest_twisted.ensureDeferred
TASK = Task(Command(shell="true"), Path("/"), Path("/nowhere"))


@implementer(IExecutor)
class Plain:
    """Answers, or raises, *answer*."""

    def __init__(self, answer: Any = (), name: Any = "plain") -> None:
        self.answer = answer
        self.name = name

    def writes(self, task: Task) -> bool:
        return False

    def argv(self, task: Task) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


@implementer(IElsewhere)
class Far(Plain):
    """Waits in `prepare` and `end` for what the test fires."""

    def __init__(self, answer: Any = (), name: Any = "far") -> None:
        super().__init__(answer, name)
        self.preparing: Deferred[None] = Deferred()
        self.ending: Deferred[None] = Deferred()
        self.ended: list[str] = []

    async def prepare(self, task: Task) -> None:
        await self.preparing

    async def end(self, uuid: str) -> None:
        self.ended.append(uuid)
        await self.ending


class Here:
    """Ends what is here."""

    def __init__(self) -> None:
        self.ended: list[Tree] = []

    async def end(self, tree: Tree) -> bool:
        self.ended.append(tree)
        return True


class Slow(Plain):
    """Answers in its thread once the test lets it."""

    def __init__(self) -> None:
        super().__init__([b"/bin/true"], "slow")
        self.going_on = threading.Event()
        self.left = threading.Semaphore(0)

    def writes(self, task: Task) -> bool:
        return True

    def argv(self, task: Task) -> Any:
        try:
            self.going_on.wait(60)
            return super().argv(task)
        finally:
            self.left.release()


@implementer(IElsewhere)
class Stubborn(Far):
    """Won't be cancelled."""

    async def prepare(self, task: Task) -> None:
        await self._hold()

    async def end(self, uuid: str) -> None:
        await self._hold()

    async def _hold(self) -> None:
        with contextlib.suppress(CancelledError):
            await Deferred()
        await Deferred()


def chosen(executor: Any, clock: Clock | None = None) -> Chosen:
    return Chosen(clock or Clock(), lambda function, *words: Deferred(), executor)


@pytest.mark.parametrize(("executor", "interface"), [(Bash("/bin/sh"), IExecutor), (PowerShell("pwsh"), IExecutor)])
def test_the_built_in_ones_keep_the_interface(executor: Any, interface: Any) -> None:
    assert verifyObject(interface, executor)


def test_the_one_that_is_asked_for() -> None:
    assert choose("bash", os.environ).name == choose(None, os.environ).name == "bash"
    with pytest.raises(ExecutorError, match="no pwsh"):
        choose("powershell", {"PATH": "/nowhere"})
    second = Plain(name="second")
    assert find_plugin("second", [Plain(), second, Plain(name="second")]) is second


@pytest.mark.parametrize("name", ["Upper", "", None, "a b", "x" * 65, "bash", "ssh"])
def test_a_plugin_without_a_name_of_its_own_is_left_out(name: Any) -> None:
    missing = find_plugin("bash-2", [Plain(name=name), Plain(name="good")])
    with pytest.raises(ExecutorError, match=r"no executor 'bash-2'.*there are: bash, good, powershell "):
        missing.argv(TASK)


@pytest.mark.parametrize("answer", [None, [], "ls", ["ls"], [b"ls", "-l"], (b"ls",)])
@ensure
async def test_an_answer_that_can_not_be(answer: Any) -> None:
    with pytest.raises(ExecutorError, match="the executor 'plain' failed: it answered"):
        await chosen(Plain(answer)).argv(TASK)


@pytest.mark.parametrize("error", [ZeroDivisionError("x"), OSError("y"), SystemExit(3)])
@ensure
async def test_whatever_it_raises_is_told_with_its_name(error: BaseException) -> None:
    with pytest.raises(ExecutorError, match=f"the executor 'plain' failed: {type(error).__name__}: "):
        await chosen(Plain(error)).argv(TASK)


@ensure
async def test_its_own_refusal_is_told_as_it_is(tmp_path: Path) -> None:
    host = Host(tmp_path, executor=Plain(ExecutorError("not on Sundays")))
    outcome, _ = await host.run("true")
    assert (outcome.state, outcome.reason) == (State.NOT_STARTED, "not on Sundays")


def test_one_that_runs_elsewhere_prepares_before_it_is_asked() -> None:
    far = Far([b"/bin/true"])
    asked = Deferred.fromCoroutine(chosen(far).argv(TASK))
    assert not asked.called
    far.preparing.callback(None)
    assert asked.result == [b"/bin/true"]


@ensure
async def test_it_has_a_time_to_prepare() -> None:
    clock = Clock()
    asked = Deferred.fromCoroutine(chosen(Far([b"/bin/true"]), clock).argv(TASK))
    clock.advance(ELSEWHERE_S)
    with pytest.raises(ExecutorError, match="the executor 'far' failed: it took over 30 seconds"):
        await asked


def test_one_with_bounds_of_its_own_has_its_time() -> None:
    clock, far = Clock(), Far([b"/bin/true"])
    patient = Chosen(clock, lambda function, *words: Deferred(), far, patience=None)
    asked = Deferred.fromCoroutine(patient.argv(TASK))
    ending = Deferred.fromCoroutine(patient.end(Tree("some-uuid", "ws1")))
    clock.advance(100 * ELSEWHERE_S)
    assert not asked.called and not ending.called
    far.preparing.callback(None)
    far.ending.errback(ExecutorError("not now"))
    assert (asked.result, ending.result) == ([b"/bin/true"], False)


def test_that_of_adopted_machines_is_nobodys_choice() -> None:
    found = choose("ssh", os.environ)
    assert found.name == "ssh" and not found.writes(TASK)
    with pytest.raises(ExecutorError, match=r"\[agent\] executor can't be 'ssh'.* adopt\), .*those run by bash$"):
        found.argv(TASK)


@ensure
async def test_one_that_will_not_be_cancelled_is_given_up_all_the_same() -> None:
    clock, here, stubborn = Clock(), Here(), Stubborn([b"/bin/true"])
    asked = Deferred.fromCoroutine(chosen(stubborn, clock).argv(TASK))
    clock.advance(ELSEWHERE_S)
    with pytest.raises(ExecutorError, match="it took over 30 seconds"):
        await asked
    ending = Deferred.fromCoroutine(Everywhere(chosen(stubborn, clock), here).end(Tree("some-uuid", "ws1")))
    assert here.ended == []
    clock.advance(ELSEWHERE_S)
    assert await ending is True and here.ended == [Tree("some-uuid", "ws1")]


@ensure
async def test_one_that_hangs_in_its_thread_is_given_up_and_asked_no_more_after_some_times() -> None:
    clock, slow = Clock(), Slow()
    patient = Chosen(clock, partial(in_lone_thread, reactor), slow)
    try:
        for _ in range(MAX_LATE):
            asked = Deferred.fromCoroutine(patient.argv(TASK))
            clock.advance(WRITE_S)
            with pytest.raises(ExecutorError, match="the executor 'slow' failed: it took over 120 seconds"):
                await asked
        with pytest.raises(ExecutorError, match="the executor 'slow' hangs: it still has not answered for 16 commands"):
            await patient.argv(TASK)
    finally:
        slow.going_on.set()
    for _ in range(MAX_LATE):
        assert await deferToThread(slow.left.acquire, timeout=60)
    while True:  # what it has answered by now is forgotten a moment after that
        try:
            assert await patient.argv(TASK) == [b"/bin/true"]
            break
        except ExecutorError:
            await deferLater(reactor, 0.01)  # type: ignore[arg-type]


@ensure
async def test_many_that_write_at_once_are_no_hanging_ones() -> None:
    slow = Slow()
    patient = Chosen(Clock(), partial(in_lone_thread, reactor), slow)
    asked = [Deferred.fromCoroutine(patient.argv(TASK)) for _ in range(3 * MAX_LATE)]
    slow.going_on.set()
    assert await gatherResults(asked) == [[b"/bin/true"]] * len(asked)


class Moody(Plain):
    """Has its name only when it is asked for the first times."""

    def __init__(self, answer: Any) -> None:
        super().__init__(answer)
        self.asked = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        self.asked += 1
        if self.asked > 2:
            raise ValueError("no name today")
        return "moody"

    @name.setter
    def name(self, name: str) -> None:
        pass


@ensure
async def test_its_name_is_asked_for_no_more_than_needed() -> None:
    found = find_plugin("moody", [Moody(ZeroDivisionError("x"))])
    with pytest.raises(ExecutorError, match="the executor 'moody' failed: ZeroDivisionError: x"):
        await chosen(found).argv(TASK)


@pytest.mark.parametrize("answer", [[b""], [b"no/such"], [b"/bin/x\0y"], [b"/"], [b"/bin/echo", b"x" * 10_000_000]])
@ensure
async def test_words_that_can_not_be_run_start_nothing(tmp_path: Path, answer: list[bytes]) -> None:
    outcome, _ = await Host(tmp_path, executor=Plain(answer)).run("true")
    assert outcome.state is State.NOT_STARTED and str(outcome.reason).startswith("can't run ")


@pytest.mark.parametrize(
    ("error", "said"), [(OSError("no room here"), "no room here"), (OSError(28, "No space left"), "No space left")]
)
@ensure
async def test_what_keeps_it_from_writing_its_files_is_told(tmp_path: Path, error: OSError, said: str) -> None:
    slow = Slow()
    slow.answer = error
    slow.going_on.set()
    outcome, _ = await Host(tmp_path, executor=slow).run("true")
    assert (outcome.state, outcome.reason) == (State.NOT_STARTED, f"its command can't be written to a file: {said}")


@ensure
async def test_a_refusal_without_words_has_some() -> None:
    with pytest.raises(ExecutorError, match="the executor 'plain' refused, and said nothing"):
        await chosen(Plain(ExecutorError())).argv(TASK)


@pytest.mark.parametrize("how", ["ends", "fails", "hangs"])
@ensure
async def test_it_is_ended_there_and_then_here(how: str) -> None:
    clock, far, here = Clock(), Far(), Here()
    ending = Deferred.fromCoroutine(Everywhere(chosen(far, clock), here).end(Tree("some-uuid", "ws1")))
    assert far.ended == ["some-uuid"] and here.ended == []
    if how == "hangs":
        clock.advance(ELSEWHERE_S)
    elif how == "fails":
        far.ending.errback(ValueError("no"))
    else:
        far.ending.callback(None)
    assert await ending is True
    assert here.ended == [Tree("some-uuid", "ws1")]


@ensure
async def test_of_one_elsewhere_the_directory_is_its_own_to_look_for(tmp_path: Path) -> None:
    far = Far()
    far.preparing.callback(None)
    tasks: list[Task] = []
    far.argv = lambda task: tasks.append(task) or [b"/bin/true"]  # type: ignore[func-returns-value, method-assign]
    host = Host(tmp_path, executor=far)
    outcome, _ = await host.run("true", cwd="/not/here", env={"A": "b"})
    assert outcome.exit_code == 0
    (task,) = tasks
    assert (task.asked_cwd, task.files, dict(task.env), len(task.uuid)) == ("/not/here", None, {"A": "b"}, 36)
