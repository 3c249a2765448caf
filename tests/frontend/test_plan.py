"""``clustersh run --dry-run``, against a coordinator that answers with plans of the tests'."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import pytest_twisted

from clustersh.frontend.plan import SHOWN_FILES
from clustersh.wire.fleet import LeftOut, Plan, PlannedMachine
from clustersh.wire.jobs import BlobRef, Command
from clustersh.wire.policy import MachinesVerdict, PolicyTest
from clustersh.wire.problems import Kind, ProblemError

from .conftest import Caller
from .coordinator_double import Double

ONE = Plan(True, "ws1", Command(shell="true"), machines=(PlannedMachine("ws1", "online"),))


def answer(double: Double, plan: Plan = ONE, **changes: object) -> None:
    double.answers["POST /v1/plans"] = lambda query: msgspec.structs.replace(plan, **changes)


@pytest_twisted.ensureDeferred
async def test_nothing_but_the_question_is_sent(caller: Caller, double: Double, tree: Callable[..., Path]) -> None:
    tree("data/a", b"12345")
    answer(double)
    assert await caller("run", "--dry-run", "--file", "data", "--detach", "ws1", "true") == 0
    assert double.calls == ["POST /v1/plans"]
    assert double.blobs == {}


@pytest.mark.parametrize("command", [("run", "--dry-run"), ("policy", "test")])
@pytest.mark.parametrize("script", ["script.sh", "-"])
@pytest_twisted.ensureDeferred
async def test_a_script_alone_is_sent_for_the_policy_to_judge_it(
    caller: Caller, double: Double, tree: Callable[..., Path], command: tuple[str, ...], script: str
) -> None:
    text = b"#!/bin/sh\necho hello\n"
    os.close(caller.stdin)
    caller.stdin = os.open(tree("script.sh", text), os.O_RDONLY)
    tree("data/a", b"12345")
    answer(double)
    double.answers["POST /v1/policy/test"] = lambda query: PolicyTest(True, ())
    assert await caller(*command, "--script", script, "--file", "data", "ws1") == 0
    assert [*double.blobs.values()] == [text]
    assert double.calls[-1] in ("POST /v1/plans", "POST /v1/policy/test")


@pytest_twisted.ensureDeferred
async def test_files_are_named_up_to_some_and_counted_beyond(
    caller: Caller, double: Double, tree: Callable[..., Path]
) -> None:
    for number in range(SHOWN_FILES + 2):
        tree(f"data/{number:02}", b"12345")
    answer(double, files=BlobRef("0" * 64, 1))
    assert await caller("run", "--dry-run", "--file", "data", "ws1", "true") == 0
    assert b"data/19 (5 B), and 2 more (10 B)" in caller.out
    assert b"data/20" not in caller.out


@pytest_twisted.ensureDeferred
async def test_what_would_run_is_told_as_it_is_and_can_steer_no_terminal(caller: Caller, double: Double) -> None:
    answer(double, command=Command(shell="one\ntwo \x1b[31m"), cwd="sub\x07", env=("A", "B"), stdin=True, timeout_s=0.0)
    assert await caller("run", "--dry-run", "ws1", "x") == 0
    assert caller.out.decode().splitlines()[3:] == [
        "shell line: one",
        "  two \\x1b[31m",
        "in: sub\\x07 of the agent user's home",
        "with the variables: A, B",
        "with: standard input",
        "ends after: no time-out",
        "dry run: nothing was done",
    ]


@pytest_twisted.ensureDeferred
async def test_a_program_and_a_script_are_told_as_such(caller: Caller, double: Double) -> None:
    answer(double, command=Command(argv=("printf", "a b")), cwd="/srv")
    assert await caller("run", "--dry-run", "ws1", "x") == 0
    assert b"program and arguments: printf 'a b'\nin: /srv\n" in caller.out
    answer(double, command=Command(script=BlobRef("0" * 64, 7, "setup.sh")), cwd=r"C:\build")
    assert await caller("run", "--dry-run", "ws1", "x") == 0
    assert b"script: (script setup.sh)\nin: C:\\build\n" in caller.out


@pytest_twisted.ensureDeferred
async def test_it_is_said_why_and_who_would_not_start(caller: Caller, double: Double) -> None:
    machines = (PlannedMachine("web1", "online"), PlannedMachine("web2", "offline"), PlannedMachine("web3", "offline"))
    answer(double, would_start=False, machines=machines, selected=("Selected web1: \x1b[31mscore",), skipped=("web9",))
    assert await caller("run", "--dry-run", "--pick", "3", "web[1-3]", "x") == 125
    lines = caller.out.decode().splitlines()
    assert lines[2:4] == ["web1         | online", "web[2-3] (2) | offline (never seen)"]
    assert "leaves out: web9: offline" in lines
    assert caller.err.splitlines() == [
        "Selected web1: \\x1b[31mscore",
        "ERROR: it would not start on web[2-3] (2): offline",
        "hint: clustersh machines shows what is online; --skip-offline leaves such machines out",
    ]


@pytest_twisted.ensureDeferred
async def test_what_is_unreachable_is_told_apart(caller: Caller, double: Double) -> None:
    machines = (PlannedMachine("nas", "unreachable", unreached="ssh nas: no"), PlannedMachine("web1", "offline"))
    answer(double, would_start=False, machines=machines)
    assert await caller("run", "--dry-run", "nas,web1", "x") == 125
    assert "nas      | unreachable (ssh nas: no)" in caller.out.decode().splitlines()
    assert caller.err.splitlines()[0] == "ERROR: it would not start on web1: offline; nas: unreachable"


@pytest_twisted.ensureDeferred
async def test_new_machines_that_are_left_out_are_told(caller: Caller, double: Double) -> None:
    answer(double, left_out=LeftOut(30, ("new1", "new2")))
    assert await caller("run", "--dry-run", "all", "x") == 0
    assert "leaves out: new[1-2] and 28 more: new" in caller.out.decode().splitlines()
    assert caller.err.startswith("hint: new machines (clustersh targets @new) are used once a run, ")


@pytest_twisted.ensureDeferred
async def test_what_it_would_be_refused_for_is_the_error_and_a_policys_is_126(caller: Caller, double: Double) -> None:
    for kind, status in ((Kind.EMPTY_TARGET, 125), (Kind.POLICY, 126)):
        problem = ProblemError(kind, "not this", hint="but that").problem
        answer(double, would_start=False, machines=(), problem=problem)
        assert await caller("run", "--dry-run", "ws1", "x") == status
        assert caller.err.endswith("ERROR: not this\nhint: but that\n")
    assert caller.out == b"", "the target is no machine: there is nothing to show"


PASSES = MachinesVerdict(("ws1",), "linux", "pass")
BLOCKED = MachinesVerdict(("ws1",), "linux", "block", "power", "it restarts the machine", "reboot \x1b[31m")
DENIED = msgspec.structs.replace(BLOCKED, machines=("db1", "db2"), verdict="deny", where="")


@pytest.mark.parametrize(
    ("verdicts", "force", "kind", "said"),
    [
        ((PASSES,), "", None, ["policy: passes"]),
        ((PASSES, PASSES), "", None, ["policy: passes"]),
        ((PASSES,), "", Kind.RATE_LIMITED, ["policy: passes"]),
        ((BLOCKED,), "self", None, ["policy: power blocks it: {why} ({where})", "force: --force passes it"]),
        ((BLOCKED,), "self", Kind.POLICY, ["policy: power blocks it: {why} ({where})", "force: --force would pass it"]),
        (
            (BLOCKED,),
            "approve",
            None,
            ["policy: power blocks it: {why} ({where})", "force: --force passes it: an admin has allowed it, once"],
        ),
        (
            (BLOCKED,),
            "approve",
            Kind.POLICY,
            ["policy: power blocks it: {why} ({where})", "force: --force passes it once an admin has allowed it"],
        ),
        ((BLOCKED,), "never", Kind.POLICY, ["policy: power blocks it: {why} ({where})", "force: you may not pass it"]),
        (
            (PASSES, BLOCKED, DENIED),
            "never",
            Kind.POLICY,
            [
                "policy: power blocks it on ws1: {why} ({where})",
                "policy: power denies it on db[1-2] (2): {why}",
                "force: nothing passes it",
            ],
        ),
        ((), "never", Kind.POLICY, ["policy: allows this client no such run"]),
        ((), "", Kind.RATE_LIMITED, []),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_the_policy_says_is_told_with_the_plan(
    caller: Caller,
    double: Double,
    verdicts: tuple[MachinesVerdict, ...],
    force: str,
    kind: Kind | None,
    said: list[str],
) -> None:
    problem = ProblemError(kind, "not this", hint="but that\nor that").problem if kind else None
    answer(double, would_start=problem is None, verdicts=verdicts, force=force, problem=problem)
    status = {None: 0, Kind.POLICY: 126, Kind.RATE_LIMITED: 125}[kind]
    assert await caller("run", "--dry-run", "ws1", "x") == status
    words = {"why": "it restarts the machine", "where": "reboot \\x1b[31m"}
    lines = caller.out.decode().splitlines()
    assert lines[2] == "ws1      | online"
    assert lines[6:] == [*(line.format(**words) for line in said), "dry run: nothing was done"]
    assert caller.err == ("ERROR: not this\nhint: but that\nhint: or that\n" if kind else "")


@pytest_twisted.ensureDeferred
async def test_a_script_that_nobody_saw_passes_nothing(
    caller: Caller, double: Double, tree: Callable[..., Path]
) -> None:
    tree("script.sh", b"true")
    problem = ProblemError(Kind.UNKNOWN_BLOB, "no script").problem
    answer(double, would_start=False, unjudged=True, verdicts=(PASSES,), problem=problem)
    assert await caller("run", "--dry-run", "--script", "script.sh", "ws1") == 125
    assert b"policy: has not seen the script\n" in caller.out and b"passes" not in caller.out
    assert caller.err == "ERROR: no script\n"


@pytest_twisted.ensureDeferred
async def test_the_document_has_the_verdicts_and_the_problem_and_is_the_only_one(
    caller: Caller, double: Double
) -> None:
    problem = ProblemError(Kind.POLICY, "not this", hint="but that").problem
    answer(double, would_start=False, verdicts=(BLOCKED,), force="self", problem=problem)
    assert await caller("run", "--dry-run", "--json", "ws1", "x") == 126
    document = json.loads(caller.out)
    assert (document["force"], document["problem"]["detail"]) == ("self", "not this")
    assert msgspec.convert(document["verdicts"], tuple[MachinesVerdict, ...]) == (BLOCKED,)
    assert [machine["name"] for machine in document["machines"]] == ["ws1"]
    assert caller.err == "ERROR: not this\nhint: but that\n"


@pytest_twisted.ensureDeferred
async def test_the_document_has_the_plan_and_the_files(
    caller: Caller, double: Double, tree: Callable[..., Path]
) -> None:
    tree("data/a", b"12345")
    answer(double, files=BlobRef("0" * 64, 1))
    assert await caller("run", "--dry-run", "--json", "--file", "data", "ws1", "true") == 0
    document = json.loads(caller.out)
    assert document["files"] == [{"path": "data/a", "size": 5}]
    assert document["machines"] == [
        {"name": "ws1", "status": "online", "batch": 1, "last_seen": None, "unreached": None}
    ]
    assert set(document) == set(Plan.__struct_fields__)
