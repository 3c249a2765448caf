"""``clustersh check`` against a coordinator in memory."""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from typing import Any

import pytest
import pytest_twisted
from hypothesis import given
from hypothesis import strategies as st

from clustersh.frontend.check_results import Health, exit_status, judge
from clustersh.wire.fleet import LeftOut
from clustersh.wire.jobs import State
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Cancelled, Ends, Job, Run, RunRequest, text_or_base64

from .conftest import Caller
from .coordinator_double import UUID, Double

ENDS = f"GET /v1/runs/{UUID}/ends"
OFFLINE = "is offline (last seen 2h ago)"


def job(machine: str, answer: Any = None, **fields: Any) -> Job:
    """The end of a probe on *machine*: its *answer* as (ok, said) pairs, or as the text that came."""
    text = answer
    if isinstance(answer, Sequence) and not isinstance(answer, str):
        text = json.dumps({"checks": [{"ok": ok, "said": said} for ok, said in answer]}) + "\n"
        passed = all(ok for ok, _ in answer)
        fields = {"status": State.COMPLETED if passed else State.FAILED, "exit_code": 0 if passed else 1} | fields
    status = fields.pop("status", State.FAILED)
    return Job(
        UUID, machine, "me@test", "clusteragent probe", "", status, "2026-11-20T10:31:07Z", stdout=text or "", **fields
    )


def asleep(machine: str) -> Job:
    return job(machine, status=State.NOT_STARTED, reason=f"{machine} {OFFLINE}")


class Fleet:
    """The double's answers for one run on many machines, which end in *steps*, but none beyond *held* jobs."""

    def __init__(self, double: Double, *steps: Sequence[Job], unconfirmed: tuple[str, ...] = ()) -> None:
        self.double = double
        self.jobs = [each for step in steps for each in step]
        self.silent = unconfirmed
        self.held: int | None = None
        self.about: dict[str, Any] = {}
        self._steps = steps
        double.answers[ENDS] = self.ends
        double.as_run = self.run  # type: ignore[method-assign]

    def run(self, limit: int = 0) -> Run:
        names = [each.machine for each in self.jobs] + list(self.silent)
        jobs = tuple(Job(UUID, name, "me@test", "x", "", State.REQUESTED, "2026-11-20T10:31:07Z") for name in names)
        return Run(UUID, "me@test", "@web", "clusteragent probe", "2026-11-20T10:31:07Z", jobs, raw=False, **self.about)

    def ends(self, query: dict[str, str]) -> Ends:
        after, begin = int(query["after"]), 0
        for step in self._steps:
            if begin == after and begin != self.held:
                ended = after + len(step) == len(self.jobs) and not self.silent
                return Ends(tuple(step), after + len(step), ended, self.silent)
            begin += len(step)
        return Ends((), after, False, self.silent)

    @property
    def asked(self) -> RunRequest:
        (request,) = self.double.keys.values()
        return request


@pytest.fixture(autouse=True)
def many(double: Double) -> None:
    double.end(status=State.COMPLETED)


@pytest_twisted.ensureDeferred
async def test_each_machine_is_one_line_in_the_order_in_which_they_end(caller: Caller, double: Double) -> None:
    good = [(True, "200 in 12 ms"), (True, "41.0% used, 80.0 GB free")]
    bad = [(False, "503 in 3 ms"), (True, "1.0% used, 9.0 GB free")]
    fleet = Fleet(double, [asleep("db1")], [job("web02", bad)], [job("web01", good), job("web03", good)])
    words = ("check", "@web,db1", "-x", "web09", "--http", "http://localhost:8080/", "--disk", "/ < 90%")
    assert await caller(*words) == 1
    assert caller.out.decode().splitlines() == [
        "db1: offline, last seen 2h ago",
        "web02: FAILED: http http://localhost:8080/: 503 in 3 ms",
        "web01: ok (200 in 12 ms; 41.0% used, 80.0 GB free)",
        "web03: ok (200 in 12 ms; 41.0% used, 80.0 GB free)",
    ]
    assert caller.err == "2 ok, 1 failed (web02), 1 offline (db1)\n"
    asked = fleet.asked
    assert (asked.target, asked.exclude, asked.timeout_s) == ("@web,db1", "web09", 20.0)
    assert asked.command.text == "clusteragent probe --http http://localhost:8080/ --disk '/ < 90%'"
    assert [query["after"] for query in double.queries if "after" in query] == ["0", "1", "2"]


@pytest_twisted.ensureDeferred
async def test_new_machines_that_are_left_out_are_told_also_beside_one_alone(caller: Caller, double: Double) -> None:
    fleet = Fleet(double, [job("ws1", [])])
    fleet.about = {"left_out": LeftOut(1, ("newbox",))}
    assert await caller("check", "all") == 0
    assert caller.out == b"ws1: ok\n"
    assert caller.err.startswith("1 ok, 1 new, left out (newbox)\nhint: newbox is used once ")
    assert await caller("check", "all", "--json") == 0
    assert json.loads(caller.out.splitlines()[-1])["left_out"] == {"count": 1, "machines": ["newbox"]}


@pytest_twisted.ensureDeferred
async def test_without_checks_it_is_whether_they_answer(caller: Caller, double: Double) -> None:
    fleet = Fleet(double, [job("ws1", [])])
    assert await caller("check", "ws1") == 0
    assert (caller.out, caller.err) == (b"ws1: ok\n", "")
    assert fleet.asked.command.argv == ("clusteragent", "probe")


@pytest_twisted.ensureDeferred
async def test_the_document(caller: Caller, double: Double) -> None:
    Fleet(double, [job("b", [(False, "x\x1b")], duration_s=0.5), asleep("a")])
    assert await caller("check", "all", "--tcp", "22", "--json") == 1
    assert json.loads(caller.out) == {
        "uuid": UUID,
        "target": "@web",
        "ok": False,
        "machines": [
            {"machine": "a", "status": "offline", "reason": "last seen 2h ago", "duration_s": None, "checks": []},
            {
                "machine": "b",
                "status": "failed",
                "reason": None,
                "duration_s": 0.5,
                "checks": [{"check": "tcp", "subject": "22", "ok": False, "said": "x\x1b"}],
            },
        ],
        "left_out": None,
    }


@pytest_twisted.ensureDeferred
async def test_nobody_could_be_asked(caller: Caller, double: Double) -> None:
    Fleet(double, [asleep("a"), asleep("b")])
    assert await caller("check", "all") == 125
    none = "ERROR: nothing was checked: the check did not start on any of a,b\n"
    hint = "hint: nothing ran, so repeating it is safe; clustersh machines shows what is online\n"
    assert caller.err == f"{none}{hint}2 offline (a,b)\n"


@pytest_twisted.ensureDeferred
async def test_a_start_that_is_not_confirmed_is_not_waited_for(caller: Caller, double: Double) -> None:
    Fleet(double, [job("a", [])], unconfirmed=("b",))
    assert await caller("check", "all") == 123
    assert caller.out.decode().splitlines() == ["a: ok", "b: unknown: it did not confirm the start"]
    assert caller.err == f"1 ok, 1 unknown (b)\nhint: what becomes of the rest: clustersh wait {UUID}\n"


@pytest_twisted.ensureDeferred
async def test_the_waiting_has_an_end(caller: Caller, double: Double) -> None:
    Fleet(double, [job("a", [])], [job("b", [])]).held = 1
    assert await caller("check", "all", "--wait", "300ms") == 123
    assert caller.out.decode().splitlines() == ["a: ok", "b: unknown: not heard of"]
    assert caller.err == f"1 ok, 1 unknown (b)\nhint: still running, clustersh wait {UUID}\n"


@pytest_twisted.ensureDeferred
async def test_an_interrupt_cancels(caller: Caller, double: Double) -> None:
    fleet = Fleet(double, [job("a", [])], [job("b", status=State.CANCELLED, reason="cancelled")])
    fleet.held = 1

    def cancel(query: dict[str, str]) -> Cancelled:
        fleet.held = None
        return Cancelled(UUID, ("b",))

    def interrupt_when_a_is_told(call: str) -> None:
        if call == ENDS and double.queries[-1]["after"] == "1" and double.calls.count(ENDS) == 2:
            caller.signals.deliver(signal.SIGINT)

    double.on_call = interrupt_when_a_is_told
    double.answers[f"POST /v1/runs/{UUID}/cancel"] = cancel
    assert await caller("check", "all") == 130
    assert caller.out.decode().splitlines() == ["a: ok", "b: cancelled: cancelled"]
    assert caller.err.startswith("Cancelling the command on 2 machines")


@pytest_twisted.ensureDeferred
async def test_lost_answers_are_asked_for_again(caller: Caller, double: Double) -> None:
    Fleet(double, [job("a", [])])
    double.lose = ["POST /v1/runs", ENDS]
    assert await caller("check", "all") == 0
    assert len(double.keys) == 1 and caller.out == b"a: ok\n"


@pytest_twisted.ensureDeferred
async def test_what_the_coordinator_refuses_is_told(caller: Caller, double: Double) -> None:
    double.refuse = ProblemError(Kind.UNKNOWN_MACHINE, "no machine is called 'wbe'", hint="did you mean web?")
    assert await caller("check", "wbe") == 125
    assert caller.err == "ERROR: no machine is called 'wbe'\nhint: did you mean web?\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "TARGET"),
        ((" ",), "the target is empty"),
        (("ws1", "--http", "localhost"), "argument --http: that is no URL"),
        (("ws1", "--tcp", "http"), "argument --tcp: 'http' is no port"),
        (("ws1", "--disk", "/ < 90"), "argument --disk: "),
        (("ws1", "--service", "a/b"), "argument --service: "),
        (("ws1", "--command", ""), "argument --command: the command to check is empty"),
        (("ws1", "--timeout", "0"), "takes some time"),
        (("ws1", *["--tcp", "22"] * 65), "at most 64 checks"),
        (("ws1", "ws2"), "too many arguments: ws2"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_makes_no_sense_is_said_before_anything_is_sent(
    caller: Caller, double: Double, words: tuple[str, ...], said: str
) -> None:
    assert await caller("check", *words) == 125
    assert said in caller.err and caller.err.startswith("ERROR: ")
    assert double.calls == []


@pytest_twisted.ensureDeferred
async def test_a_password_in_a_url_is_neither_sent_nor_repeated(caller: Caller, double: Double) -> None:
    assert await caller("check", "ws1", "--http", "http://anna:s3cr3t@web1/") == 125
    assert "s3cr3t" not in caller.err and "recorded" in caller.err and "--command" in caller.err
    assert double.calls == []


# -- what a machine says


ASKED = (("tcp", "22"), ("disk", "/ < 90%"))
GOOD = [(True, "x"), (True, "y")]


@pytest.mark.parametrize(
    ("ended", "line"),
    [
        (job("m", [(False, "\x1b[2Jx"), (False, "y\n")]), "m: FAILED: tcp 22: \\x1b[2Jx; disk / < 90%: y\\n"),
        (job("m", GOOD, status=State.FAILED, exit_code=1), "m: FAILED: its probe says that all is well, and"),
        (job("m", [(False, "no"), (True, "y")], status=State.COMPLETED, exit_code=0), "m: FAILED: tcp 22: no"),
        (job("m", GOOD[:1]), "m: FAILED: no answer of its probe (exit 0, "),
        (job("m", "", exit_code=127, stderr="bash: x: not found\n"), "m: FAILED: no answer of its probe (exit 127, b"),
        (job("m", '{"checks": [', exit_code=1, truncated=True), "m: FAILED: its answer is too long: clustersh cat m 0"),
        (job("m", [(True, "x" * 201), (True, "y")]), "m: FAILED: no answer of its probe (exit 0, "),
        (job("m", "", exit_code=2), "m: FAILED: no answer of its probe (exit 2)"),
        (job("m", "", signal=9), "m: FAILED: signal 9"),
        (job("m", status=State.TIMED_OUT, reason="timed out after 20 seconds"), "m: FAILED: its probe took too long"),
        (job("m", status=State.NOT_STARTED, reason="the disk is full"), "m: not started: the disk is full"),
        (job("m", status=State.REFUSED, reason="not here"), "m: refused: not here"),
        (job("m", status=State.INTERRUPTED, reason="the agent restarted"), "m: unknown: the agent restarted"),
        (job("m", status=State.LOST, reason="its store is new"), "m: unknown: its store is new"),
    ],
)  # fmt: skip
def test_how_a_machine_is_told_of(ended: Job, line: str) -> None:
    told = judge(ended, ASKED).line
    assert told.startswith(line) and told.isprintable()


@pytest.mark.parametrize(
    ("healths", "status"),
    [
        ([Health.OK, Health.OK], 0),
        ([Health.OK, Health.FAILED], 1),
        ([Health.FAILED], 1),
        ([Health.OK, Health.OFFLINE], 1),
        ([Health.OK, Health.REFUSED], 1),
        ([Health.OFFLINE, Health.NOT_STARTED], 125),
        ([Health.OFFLINE, Health.REFUSED], 126),
        ([Health.OK, Health.UNKNOWN, Health.FAILED], 123),
        ([Health.OK, Health.CANCELLED], 130),
    ],
)
def test_exit_statuses(healths: list[Health], status: int) -> None:
    ends = {
        Health.OK: job("m", GOOD),
        Health.FAILED: job("m", [(True, "x"), (False, "y")]),
        Health.OFFLINE: asleep("m"),
        Health.NOT_STARTED: job("m", status=State.NOT_STARTED, reason="no"),
        Health.REFUSED: job("m", status=State.REFUSED, reason="no"),
        Health.CANCELLED: job("m", status=State.CANCELLED, reason="cancelled"),
        Health.UNKNOWN: job("m", status=State.LOST, reason="gone"),
    }
    found = [judge(ends[health], ASKED) for health in healths]
    assert [one.status for one in found] == healths
    assert exit_status(found) == status


@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: json.dumps({"checks": text}).encode()))
def test_whatever_a_machine_says_is_one_printable_line(said: bytes) -> None:
    ended = job("m", status=State.COMPLETED, exit_code=0)
    ended = Job(**{name: getattr(ended, name) for name in ended.__struct_fields__} | {"stdout": text_or_base64(said)})
    told = judge(ended, ASKED)
    assert told.status is Health.FAILED and told.line.isprintable() and len(told.line) < 600
