"""Which processes a job's tree has, decided on made-up process tables, and how a tree is ended."""

from __future__ import annotations

import errno
import os
import subprocess
import time

import pytest
import pytest_twisted
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock

from clustersh.agent.tree import Found, Tree, TreeEnder, age, created, members, take_snapshot

from .jobs_support import gone

ensure = pytest_twisted.ensureDeferred
JOB, MACHINE = "uuid-1", "ws1"


def table(*processes: Found) -> dict[int, Found]:
    own = Found(os.getpid(), 1, os.getsid(0), 1.0, "", "")
    return {process.pid: process for process in (own, *processes)}


def found(pid, parent=1, session=0, began=5.0, job="", machine="") -> Found:
    return Found(pid, parent, session, began, job, machine)


def pids(tree: Tree, *processes: Found) -> list[int]:
    return [process.pid for process in members(tree, table(*processes))]


def test_the_session_the_mark_and_the_descendants_belong_to_it():
    tree = Tree(JOB, MACHINE, 100, 5.0)
    assert pids(
        tree,
        found(100, session=100),
        found(101, parent=100, session=100),
        found(102, session=102, job=JOB, machine=MACHINE),
        found(103, parent=102, session=103),
        found(104, parent=103, session=103),
        found(200, session=200),
        found(201, session=201, job=JOB, machine="other"),
        found(202, session=202, job="another", machine=MACHINE),
    ) == [100, 101, 102, 103, 104]


def test_a_session_outlives_its_leader():
    assert pids(Tree(JOB, MACHINE, 100, 5.0), found(101, session=100)) == [101]


def test_a_pid_that_is_anothers_now_is_left_alone():
    reused = found(100, session=100, began=9.0)
    assert pids(Tree(JOB, MACHINE, 100, 5.0), reused, found(101, session=100, parent=100)) == []


def test_the_agent_itself_and_what_it_was_started_by_are_never_of_it():
    own = os.getpid()
    processes = {own: Found(own, 7, 7, 1.0, JOB, MACHINE), 7: Found(7, 1, 7, 1.0, JOB, MACHINE)}
    assert members(Tree(JOB, MACHINE), processes) == []


def test_the_real_table_has_this_process_with_its_session_and_parent():
    mine = take_snapshot()[os.getpid()]
    assert (mine.parent, mine.session) == (os.getppid(), os.getsid(0))
    assert mine.created == created(os.getpid())


def test_a_process_that_is_gone_began_never():
    assert created(2**22 + 1) is None


def test_how_long_a_process_has_run():
    began = time.monotonic()
    with subprocess.Popen(["sleep", "300"]) as process:
        try:
            time.sleep(0.2)
            at = created(process.pid)
            assert at is not None
            # A start is known to a hundredth of a second.
            assert 0.19 <= age(at) <= time.monotonic() - began + 0.01
        finally:
            process.kill()


@ensure
async def test_trees_that_are_ended_together_share_their_looks():
    looks: list[Deferred] = []

    def in_thread(function):
        looks.append(Deferred())
        return looks[-1]

    clock = Clock()
    ender = TreeEnder(clock, in_thread, 1.0)
    ended = [Deferred.fromCoroutine(ender.end(Tree(str(number), MACHINE))) for number in range(50)]
    assert len(looks) == 1
    looks[0].callback(table())
    # The 49 that came after the first look had begun wait for one more, which they share.
    looks[1].callback(table())
    assert len(looks) == 2
    assert all(one.called for one in ended)


@ensure
async def test_what_can_not_be_ended_is_given_up_at_last():
    clock = Clock()
    # A process of which nothing is left to signal, but which each look shows again.
    stuck = found(2**22 + 1, job=JOB, machine=MACHINE)
    ender = TreeEnder(clock, lambda function: succeed(table(stuck)), 1.0)
    ended = Deferred.fromCoroutine(ender.end(Tree(JOB, MACHINE)))
    clock.pump([0.1] * 200)
    assert await ended is False


@ensure
async def test_a_leftover_of_a_killed_agent_is_found_by_its_mark(host):
    job = host.job("setsid sleep 60 & echo $!")
    await job.done
    (left,) = [int(line) for line in job.output.stdout.split()]
    assert await host.ender.end(Tree(job.uuid, host.machinery.machine))
    await gone(left)


@ensure
async def test_a_look_that_fails_is_taken_again_and_nothing_counts_as_gone_meanwhile(monkeypatch):
    clock = Clock()
    stuck = found(2**22 + 1, job=JOB, machine=MACHINE)
    looks = [OSError(errno.EMFILE, "Too many open files"), table(stuck), table()]

    def look(function):
        result = looks.pop(0)
        return fail(result) if isinstance(result, OSError) else succeed(result)

    ender = TreeEnder(clock, look, 5.0)
    ended = Deferred.fromCoroutine(ender.end(Tree(JOB, MACHINE)))
    assert not ended.called and len(looks) == 2
    clock.pump([1.0, 0.5])
    assert await ended is True
    assert looks == []


def test_a_shortage_of_descriptors_is_no_dead_process(monkeypatch):
    def fail_to_read(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("clustersh.agent.tree.FileIO", fail_to_read)
    with pytest.raises(OSError, match="Too many"):
        take_snapshot()
    assert created(os.getpid()) is None
