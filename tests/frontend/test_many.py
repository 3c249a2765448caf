"""``clustersh run`` and ``wait`` on many machines, against a coordinator that does as it is told."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred

from clustersh.frontend.many import follow
from clustersh.frontend.many.names import node_set
from clustersh.wire.fleet import LeftOut, Pace, Placement
from clustersh.wire.jobs import State
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import JobPage

from .conftest import Caller, calling
from .coordinator_double import UUID
from .fleet_double import FleetDouble

FAILED = {"status": State.FAILED, "exit_code": 127}
OFFLINE = {"status": State.NOT_STARTED, "reason": "web11 is offline (last seen 2h ago)"}
LIMIT = 128 << 10


@pytest.fixture
def fleet() -> Iterator[FleetDouble]:
    yield FleetDouble(reactor)


@pytest.fixture
def caller(tmp_path: Path, fleet: FleetDouble, monkeypatch: pytest.MonkeyPatch) -> Iterator[Caller]:
    yield from calling(tmp_path, fleet, monkeypatch)


def webs(fleet: FleetDouble, count: int, output: bytes = b"nginx version: nginx/1.24.0\n") -> None:
    for number in range(1, count + 1):
        fleet.add(f"web{number:02}", output)


async def until(condition: object) -> None:
    """Wait until *condition* is true; the tests' time-out bounds it."""
    while not condition():  # type: ignore[operator]
        await task.deferLater(reactor, 0.01)  # type: ignore[arg-type]


@pytest_twisted.ensureDeferred
async def test_the_contract(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 9)
    fleet.add("web10", b"", b"bash: line 1: nginx: command not found\n", **FAILED)
    fleet.add("web11", **OFFLINE)
    assert await caller("run", "web[01-11]", "nginx -v") == 1
    assert caller.out.decode() == (
        "web[01-09] (9)\nnginx version: nginx/1.24.0\nweb10: exit 127\nbash: line 1: nginx: command not found\n"
    )
    assert caller.err == "9 completed, 1 failed (web10: exit 127), 1 offline (web11, last seen 2h ago)\n"
    [request] = fleet.keys.values()
    assert (request.target, request.exclude, request.pace) == ("web[01-11]", "", None)


@pytest_twisted.ensureDeferred
async def test_an_expression_has_the_fleets_form_even_for_one_machine(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("web01", b"hello\n")
    assert await caller("run", "@web", "x") == 0
    assert (caller.out, caller.err) == (b"web01\nhello\n", "1 completed\n")


@pytest_twisted.ensureDeferred
async def test_nothing_glues_to_the_next_header(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"no newline", b"nor here")
    fleet.add("b", b"\xff\x00\x1b[31mraw", **FAILED)
    assert await caller("run", "all", "x") == 1
    assert caller.out == b"a\nno newline\nnor here\nb: exit 127\n\xff\x00\x1b[31mraw\n"


@pytest_twisted.ensureDeferred
async def test_silence_is_said(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 3, b"")
    fleet.add("web04", **FAILED)
    fleet.add("web05", b"something\n")
    assert await caller("run", "all", "x") == 1
    assert caller.out.decode() == "web[01-03] (3): no output\nweb05\nsomething\nweb04: exit 127, no output\n"


@pytest_twisted.ensureDeferred
async def test_one_output_with_two_results_is_shown_under_both(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"same\n")
    fleet.add("b", b"same\n", **FAILED)
    fleet.add("c", b"same\n", status=State.FAILED, signal=9)
    assert await caller("run", "all", "x") == 1
    assert caller.out.decode() == "a\nsame\nb: exit 127\nsame\nc: signal 9\nsame\n"
    assert caller.err == "1 completed, 2 failed (b: exit 127; c: signal 9)\n"


@pytest_twisted.ensureDeferred
async def test_each(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("web10", b"same\n")
    fleet.add("web9", b"same\n")
    fleet.add("web1", b"oops\n", **FAILED)
    assert await caller("run", "-o", "each", "all", "x") == 1
    assert caller.out.decode() == "web9\nsame\nweb10\nsame\nweb1: exit 127\noops\n"


@pytest_twisted.ensureDeferred
async def test_diff(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 3, b"one\ntwo\nthree\n")
    fleet.add("db1", b"one\nzwei\nthree\n", b"warning\n")
    fleet.add("db2", b"one\ntwo\nthree\n", **FAILED)
    assert await caller("run", "--output=diff", "all", "x") == 1
    assert caller.out.decode() == (
        "web[01-03] (3)\none\ntwo\nthree\n"
        "db1\n--- db2,web[01-03]\n+++ db1\n@@ -1,3 +1,3 @@\n one\n-two\n+zwei\n three\n"
        "--- db2,web[01-03] stderr\n+++ db1 stderr\n@@ -0,0 +1 @@\n+warning\n"
        "db2: exit 127, same output as db2,web[01-03]\n"
    )


@pytest_twisted.ensureDeferred
async def test_json_is_one_document_of_all_jobs(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2, b"same\n")
    fleet.add("web03", "é".encode(), b"\xff", **FAILED)
    fleet.about = {"skipped": ("web04",), "selected": ("why",)}
    assert await caller("run", "--json", "all", "x") == 1
    document = json.loads(caller.out)
    assert (document["uuid"], document["target"], document["skipped"]) == (UUID, "all", ["web04"])
    assert [(job["machine"], job["stdout"], job["exit_code"]) for job in document["jobs"]] == [
        ("web01", "same\n", 0),
        ("web02", "same\n", 0),
        ("web03", "é", 127),
    ]
    assert document["jobs"][2]["stderr"] == {"base64": "/w=="}
    assert caller.err == "why\n2 completed, 1 failed (web03: exit 127), 1 skipped (offline: web04)\n"


@pytest_twisted.ensureDeferred
async def test_new_machines_that_are_left_out_are_told(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2, b"same\n")
    fleet.about = {"left_out": LeftOut(1, ("newbox",))}
    how = "hint: newbox is used once a run, group or label names it, or on the coordinator: clusterd accept newbox\n"
    assert await caller("run", "all", "x") == 0
    assert caller.err == f"2 completed, 1 new, left out (newbox)\n{how}"
    assert await caller("run", "--json", "all", "x") == 0
    assert json.loads(caller.out.splitlines()[-1])["left_out"] == {"count": 1, "machines": ["newbox"]}


@pytest_twisted.ensureDeferred
async def test_jsonl_has_each_job_as_it_ends(caller: Caller, fleet: FleetDouble) -> None:
    for name in ("a", "b", "c"):
        fleet.add(name, name.encode(), running=True)
    seen: list[int] = []

    async def end_one_after_the_other() -> None:
        for name in ("b", "c", "a"):
            await until(lambda: len(caller.out.splitlines()) == len(seen))
            seen.append(1)
            fleet.finish(name)

    fleet.answers["POST /v1/runs"] = lambda query: fleet.run(LIMIT, fold=False)
    ending = Deferred.fromCoroutine(end_one_after_the_other())
    assert await caller("run", "-o", "jsonl", "all", "x") == 0
    await ending
    assert [json.loads(line)["stdout"] for line in caller.out.splitlines()] == ["b", "c", "a"]
    assert caller.err == "3 completed\n"


@pytest_twisted.ensureDeferred
async def test_failures_of_clustersh_are_documents(caller: Caller, fleet: FleetDouble) -> None:
    fleet.refuse = ProblemError(Kind.EMPTY_TARGET, "@web means no machine", hint="clustersh groups")
    assert await caller("run", "-o", "jsonl", "@web", "x") == 125
    assert json.loads(caller.out)["error"]["type"] == "empty-target"


# -- the limit


@pytest_twisted.ensureDeferred
async def test_what_is_cut_has_a_hint(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"x" * 200_000)
    fleet.add("b", b"short\n")
    assert await caller("run", "all", "x") == 123
    assert caller.out == b"a\n" + b"x" * (LIMIT - 6) + b"\nb\nshort\n"
    assert caller.err == (
        f"ERROR: output length exceeded limit, use clustersh cat a {UUID} to read output.\n"
        f"hint: 200.0 kB, exit 0 after 3s; its end: clustersh cat a {UUID} --tail 100\n2 completed\n"
    )


@pytest_twisted.ensureDeferred
async def test_many_that_are_cut_share_the_limit(caller: Caller, fleet: FleetDouble) -> None:
    for number in range(8):
        fleet.add(f"m{number}", bytes([65 + number]) * 100_000)
    fleet.add("n", b"small\n", **FAILED)
    assert await caller("run", "--limit", "8006", "all", "x") == 1
    assert caller.out == b"".join(b"m%d\n%c" % (n, 65 + n) + bytes([65 + n]) * 999 + b"\n" for n in range(8)) + (
        b"n: exit 127\nsmall\n"
    )
    assert caller.err.startswith("ERROR: output length exceeded limit, what m[0-7] printed was cut.\nhint: 100.0 kB: ")
    assert caller.err.count("hint: ") == 6
    assert caller.err.endswith(
        f"hint: all of it: clustersh cat {UUID} (8 outputs)\n8 completed, 1 failed (n: exit 127)\n"
    )


@pytest_twisted.ensureDeferred
async def test_equal_outputs_take_their_part_of_the_limit_once(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 50, b"y" * 3000)
    assert await caller("run", "--limit", "4000", "all", "x") == 0
    assert caller.out == b"web[01-50] (50)\n" + b"y" * 3000 + b"\n"
    assert await caller("run", "--limit", "4000", "-o", "each", "all", "x") == 123


@pytest_twisted.ensureDeferred
async def test_what_did_not_come_along_is_read_from_the_machine(caller: Caller, fleet: FleetDouble) -> None:
    fleet.head_limit = 1000
    fleet.add("a", os.urandom(50_000), b"e" * 2000)
    assert await caller("run", "all", "x") == 0
    assert caller.out == b"a\n" + fleet.outputs["a"][0][1] + b"\n" + b"e" * 2000 + b"\n"
    assert await caller("run", "-o", "json", "all", "x") == 0
    document = json.loads(caller.out.splitlines()[-1])
    assert (len(document["jobs"][0]["stderr"]), document["jobs"][0]["truncated"]) == (2000, False)


@pytest_twisted.ensureDeferred
async def test_full_has_no_limit(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"a" * 300_000 + b"\n")
    fleet.add("b", b"a" * 300_000 + b"\n")
    assert await caller("run", "--full", "all", "x") == 0
    assert caller.out == b"a,b (2)\n" + b"a" * 300_000 + b"\n"


@pytest_twisted.ensureDeferred
async def test_output_that_cannot_be_read_now_is_not_called_a_limit(caller: Caller, fleet: FleetDouble) -> None:
    fleet.head_limit = 3
    fleet.add("a", b"0123456789")
    fleet.away = {"a"}
    assert await caller("run", "all", "x") == 123
    assert caller.out == b"a\n012\n"
    assert caller.err.startswith("ERROR: the output of a can't be read now: a is offline; the output is kept there\n")


# -- how it ends


@pytest_twisted.ensureDeferred
async def test_statuses(caller: Caller, fleet: FleetDouble) -> None:
    ends: list[tuple[list[dict[str, object]], int]] = [
        ([{"status": State.TIMED_OUT, "signal": 15}], 1),
        ([{"status": State.CANCELLED, "signal": 15}], 1),
        ([{"status": State.INTERRUPTED, "reason": "the agent restarted"}], 123),
        ([{"status": State.LOST, "reason": "gone"}, FAILED], 123),
        ([OFFLINE], 125),
        ([OFFLINE, {"status": State.NOT_STARTED, "reason": "no such directory"}], 125),
        ([{"status": State.NOT_STARTED, "reason": "no such directory", "started": "2026-11-20T10:31:07Z"}], 125),
        ([{"status": State.NOT_STARTED, "reason": "x"}, {}], 1),
        ([{"status": State.REFUSED, "reason": "not here"}, OFFLINE], 126),
        ([{"status": State.REFUSED, "reason": "not here"}, {}], 1),
        ([{}, {}], 0),
    ]
    for hows, status in ends:
        fleet.jobs.clear()
        fleet.ended.clear()
        for number, how in enumerate(hows):
            fleet.add(f"m{number}", **how)
        assert await caller("run", "all", "x") == status, hows


@pytest_twisted.ensureDeferred
async def test_the_summary_has_every_kind(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2)
    fleet.add("a1", status=State.TIMED_OUT, signal=15)
    fleet.add("a2", status=State.CANCELLED, signal=15)
    fleet.add("a3", status=State.INTERRUPTED, reason="the agent restarted")
    fleet.add("a4", status=State.LOST, reason="its store is gone")
    fleet.add("a5", status=State.NOT_STARTED, reason="a5 is offline (never seen yet)")
    fleet.add("a6", status=State.NOT_STARTED, reason="a6 is offline (never seen yet)")
    fleet.add("a7", status=State.NOT_STARTED, reason="no such directory:\x1b /x")
    fleet.add("a8", status=State.REFUSED, reason="not here")
    assert await caller("run", "all", "x") == 123
    assert caller.err == (
        "2 completed, 1 timed out (a1), 1 cancelled (a2), 1 interrupted (a3: agent restarted), "
        "1 lost (a4: its store is gone), 2 offline (a[5-6], never seen yet), "
        "1 not started (a7: no such directory:\\x1b /x), 1 refused (a8: not here)\n"
    )
    assert b"a1: timed out after 5 minutes, no output\n" in caller.out
    assert b"a4" not in caller.out and b"a5" not in caller.out


@pytest_twisted.ensureDeferred
async def test_a_run_that_stopped_says_why_once(caller: Caller, fleet: FleetDouble) -> None:
    why = "stopped after 1 of 4 failed: a1"
    fleet.add("a1", **FAILED)
    for name in ("a2", "a3", "a4"):
        fleet.add(name, status=State.NOT_STARTED, reason=why)
    fleet.about = {"stopped": why}
    assert await caller("run", "--rolling", "1", "all", "x") == 1
    hint = f"hint: why those failed: clustersh cat {UUID}; nothing ran on those that did not start"
    assert caller.err == f"ERROR: {why}\n{hint}\n1 failed (a1: exit 127), 3 not started (a[2-4])\n"
    [request] = fleet.keys.values()
    assert request.pace == Pace(rolling="1")


_OFFLINE = "nothing ran, so repeating it is safe; clustersh machines shows what is online"


@pytest.mark.parametrize(
    ("reasons", "hints"),
    [
        ({"a1": "a1 is offline (last seen 2h ago)", "a2": "a2 is offline (never seen yet)"}, [_OFFLINE]),
        (
            {"a1": "no such directory: /x", "a2": "disk full on the machine", "a3": "no such directory: /x"},
            [
                "nothing ran; --cwd takes a directory that is on a[1,3] and that its agent's user may enter",
                "nothing ran; free space on a2, then repeat it",
            ],
        ),
        ({"a1": "a1 is offline (never seen yet)", "a2": "stopped after 1 of 1 failed: a1"}, [_OFFLINE]),
    ],
)
@pytest.mark.parametrize("layout", ["folded", "json", "jsonl"])
@pytest_twisted.ensureDeferred
async def test_where_nothing_started_an_error_says_what_to_do(
    caller: Caller, fleet: FleetDouble, reasons: dict[str, str], hints: list[str], layout: str
) -> None:
    for name, reason in reasons.items():
        fleet.add(name, status=State.NOT_STARTED, reason=reason)
    stopped = next((reason for reason in reasons.values() if reason.startswith("stopped")), None)
    fleet.about = {"stopped": stopped}
    assert await caller("run", "-o", layout, "all", "x") == 125
    *said, last = caller.err.splitlines()
    none = f"nothing ran: the command did not start on any of {node_set(list(reasons))}"
    assert said == [f"ERROR: {stopped or none}", *(f"hint: {hint}" for hint in hints)]
    assert ("offline" in last or "not started" in last) and b"ERROR" not in caller.out


@pytest_twisted.ensureDeferred
async def test_what_somebody_else_cancelled_was_not_interrupted(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2)
    fleet.add("a1", status=State.CANCELLED, signal=15)
    assert await caller("run", "all", "x") == 1


@pytest_twisted.ensureDeferred
async def test_who_does_not_confirm_is_not_waited_for(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"done\n")
    fleet.add("b", running=True)
    fleet.jobs["b"] = msgspec.structs.replace(fleet.jobs["b"], status=State.REQUESTED, started=None)
    fleet.unconfirmed = ("b",)
    fleet.answers["POST /v1/runs"] = lambda query: fleet.run(LIMIT, fold=True)
    assert await caller("run", "all", "x") == 123
    assert caller.out == b"a\ndone\n"
    assert caller.err == (
        "1 completed, 1 unconfirmed (b)\n"
        f"hint: clustersh wait {UUID} tells what became of it, once those machines are heard of again\n"
    )


# -- waiting, and leaving


@pytest_twisted.ensureDeferred
async def test_wait_shows_what_run_would_have(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2)
    assert await caller("wait", UUID) == 0
    assert (caller.out, caller.err) == (b"web[01-02] (2)\nnginx version: nginx/1.24.0\n", "2 completed\n")
    assert await caller("wait", UUID, "-o", "each") == 0
    assert caller.out.endswith(b"web02\nnginx version: nginx/1.24.0\n")


@pytest_twisted.ensureDeferred
async def test_detach(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", running=True)
    assert await caller("run", "--detach", "all", "x") == 0
    assert caller.out.decode() == UUID + "\n"
    assert await caller("run", "--detach", "--json", "all", "x") == 0
    assert json.loads(caller.out.splitlines()[-1])["jobs"][0]["status"] == "running"


@pytest_twisted.ensureDeferred
async def test_wait_over(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"ready\n")
    fleet.add("b", b"half", running=True)
    assert await caller("run", "--wait", "300ms", "all", "x") == 123
    assert caller.out == b"a\nready\nb: still running\nhalf\n"
    assert caller.err == f"1 completed, 1 still running (b)\nhint: still running, clustersh wait {UUID}\n"
    assert await caller("run", "--wait", "300ms", "-o", "jsonl", "all", "x") == 123
    lines = [json.loads(line) for line in caller.out.splitlines()[4:]]
    assert [(line["machine"], line["status"]) for line in lines] == [("a", "completed"), ("b", "running")]


@pytest_twisted.ensureDeferred
async def test_interrupt_cancels_everywhere(caller: Caller, fleet: FleetDouble) -> None:
    for name in ("a", "b", "c"):
        fleet.add(name, running=True)
    fleet.answers["POST /v1/runs"] = lambda query: fleet.run(LIMIT, fold=True)

    def interrupt(call: str) -> None:
        if call.endswith("/ends") and not fleet.cancelled:
            caller.signals.deliver(signal.SIGINT)

    fleet.on_call = interrupt
    assert await caller("run", "all", "x") == 130
    assert sorted(fleet.cancelled) == ["a", "b", "c"]
    assert caller.err.startswith("Cancelling the command on 3 machines; interrupt again to leave at once.\n")
    assert caller.err.endswith("3 cancelled (a,b,c)\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest_twisted.ensureDeferred
async def test_other_signals_leave_it_running(caller: Caller, fleet: FleetDouble, number: int) -> None:
    fleet.add("a", running=True)
    fleet.add("b", running=True)
    fleet.answers["POST /v1/runs"] = lambda query: fleet.run(LIMIT, fold=True)
    fleet.on_call = lambda call: caller.signals.deliver(number) if call.endswith("/ends") else None
    assert await caller("run", "all", "x") == 123
    assert caller.err == f"hint: still running, clustersh wait {UUID}\n"
    assert not fleet.cancelled


# -- following


@pytest_twisted.ensureDeferred
async def test_follow_prints_whole_lines_as_they_come(caller: Caller, fleet: FleetDouble) -> None:
    for name in ("a", "b"):
        fleet.add(name, running=True)
    fleet.answers["POST /v1/runs"] = lambda query: fleet.run(LIMIT, fold=True)

    async def talk() -> None:
        await until(lambda: len(fleet.reading) == 2)
        fleet.print("a", b"one\ntw")
        await until(lambda: b"a: one\n" in caller.out)
        fleet.print("b", b"uno\n")
        fleet.print("b", b"error\n", 2)
        await until(lambda: b"b: uno\n" in caller.out and "b: error\n" in caller.err)
        fleet.print("a", b"o\nno end")
        fleet.finish("b")
        fleet.finish("a", **FAILED)

    talking = Deferred.fromCoroutine(talk())
    assert await caller("run", "--follow", "all", "x") == 1
    await talking
    assert caller.out == b"a: one\nb: uno\na: two\na: no end\n"
    assert caller.err == "b: error\n1 completed, 1 failed (a: exit 127)\n"


@pytest_twisted.ensureDeferred
async def test_more_machines_than_connections_take_turns(
    caller: Caller, fleet: FleetDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "AT_ONCE", 3)
    monkeypatch.setattr(follow, "READERS", 2)
    monkeypatch.setattr(follow, "TURN_S", 0.05)
    names = [f"m{number}" for number in range(7)]
    for name in names:
        fleet.add(name, running=True)
    fleet.answers["POST /v1/runs"] = lambda query: fleet.run(LIMIT, fold=True)

    async def talk() -> None:
        for part in (b"first\n", b"second\n"):
            for name in names:
                fleet.print(name, part)
            await until(lambda: caller.out.count(part) == len(names))  # noqa: B023
        for name in names:
            fleet.finish(name)

    talking = Deferred.fromCoroutine(talk())
    assert await caller("run", "--follow", "all", "x") == 0
    await talking
    assert sorted(caller.out.splitlines()) == sorted(
        f"{name}: {part}".encode() for name in names for part in ("first", "second")
    )
    assert fleet.most_at_once <= 2


@pytest_twisted.ensureDeferred
async def test_a_line_without_an_end_is_not_held_for_ever(
    caller: Caller, fleet: FleetDouble, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "MAX_LINE", 10)
    fleet.add("a", running=True)
    fleet.answers["POST /v1/runs"] = lambda query: fleet.run(LIMIT, fold=True)

    async def talk() -> None:
        await until(lambda: fleet.reading)
        fleet.print("a", b"x" * 25)
        await until(lambda: caller.out.count(b"\n") == 2)
        fleet.finish("a")

    talking = Deferred.fromCoroutine(talk())
    assert await caller("run", "--follow", "@a", "x") == 0
    await talking
    assert caller.out == b"a: xxxxxxxxxx\na: xxxxxxxxxx\na: xxxxx\n"


@pytest_twisted.ensureDeferred
async def test_follow_obeys_the_limit_and_full_does_not(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"x" * 99 + b"\n" + b"y" * 5000)
    fleet.add("b", b"short\n")
    assert await caller("run", "--follow", "--limit", "400", "all", "x") == 123
    assert sorted(caller.out.splitlines()) == [b"a: " + b"x" * 99, b"a: " + b"y" * 100, b"b: short"]
    assert f"use clustersh cat a {UUID} to read output." in caller.err
    assert await caller("run", "--follow", "--full", "all", "x") == 0
    assert b"a: " + b"y" * 5000 + b"\n" in caller.out


# -- what was asked for


@pytest_twisted.ensureDeferred
async def test_options_reach_the_coordinator(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a")
    words = ("-x", "b", "--rolling", "25%", "--canary", "2", "--max-failures", "10%", "--skip-offline")
    assert await caller("run", *words, "all", "x", "-x", "--rolling") == 0
    assert await caller("run", "--pick", "3", "all", "x") == 0
    first, second = fleet.keys.values()
    assert (first.exclude, first.skip_offline, first.pace) == ("b", True, Pace("25%", 2, "10%"))
    assert first.command.shell == "x -x --rolling"
    assert second.placement == Placement(pick=3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rolling", "0", "all"), "a batch has at least one machine"),
        (("--rolling", "101%", "all"), "'101%' is no part of the machines"),
        (("--rolling", "-1", "all"), "'-1' is no part of the machines"),
        (("--canary", "0", "all"), "'0' is no number of machines"),
        (("--pick", "many", "all"), "'many' is no number of machines"),
        (("--max-failures", "1", "all"), "--max-failures says when batches stop"),
        (("-o", "xml", "all"), "there is no form 'xml'"),
        (("-o", "diff", "--json", "all"), "--json is -o json"),
        (("-o", "each", "ws1"), "-o each is for many machines"),
        (("--canary", "1", "ws1"), "--canary is for many machines, and ws1 is one"),
        (("--combined", "all"), "--combined is for one machine"),
        (("--follow", "-o", "each", "all"), "there is no -o each of that"),
        (("--full", "-o", "diff", "all"), "needs outputs as a whole"),
        (("--stdin", "all"), "--stdin is for one machine"),
        (("--output",), "expected one argument"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_what_makes_no_sense(caller: Caller, fleet: FleetDouble, words: tuple[str, ...], said: str) -> None:
    assert await caller("run", *words, *(() if words == ("--output",) else ("x",))) == 125
    assert caller.err.startswith("ERROR: ") and said in caller.err and "\nhint: " in caller.err
    assert not fleet.calls


# -- afterwards: cat, cancel, history


@pytest_twisted.ensureDeferred
async def test_cat_of_a_whole_run(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2, b"a" * 200_000 + b"\n")
    fleet.outputs["web01"] = fleet.outputs["web02"] = [(1, b"one "), (2, b"oops\n"), (1, b"two")]
    fleet.add("db1", b"other\n", **FAILED)
    fleet.add("db2", **OFFLINE)
    assert await caller("cat", UUID) == 0
    assert caller.out.decode() == "web[01-02] (2)\none oops\ntwo\ndb1: exit 127\nother\n"
    assert caller.err == "not there: 1 offline (db2, last seen 2h ago)\n"
    assert sum("/output" in call for call in fleet.calls) == 2
    assert await caller("cat", UUID, "-o", "each", "--stdout", "--tail", "1") == 0
    assert caller.out.decode().endswith("other\nweb01\none two\nweb02\none two\ndb1: exit 127\nother\n")


@pytest_twisted.ensureDeferred
async def test_cat_of_a_target(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2)
    fleet.add("db1", b"other\n")
    fleet.targets = {"@db": ("db1",), "@web": ("web01", "web02")}
    assert await caller("cat", "@db", UUID) == 0
    assert caller.out == b"db1\nother\n"
    assert await caller("cat", "@db", UUID, "--json") == 0
    assert json.loads(caller.out.splitlines()[-1]) == {
        "uuid": UUID,
        "jobs": [{"uuid": UUID, "machine": "db1", "offset": 0, "stdout": "other\n", "stderr": ""}],
    }


@pytest_twisted.ensureDeferred
async def test_cat_as_a_document_names_each_machine(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 2, b"alike\n")
    assert await caller("cat", UUID, "--json") == 0
    jobs = json.loads(caller.out)["jobs"]
    assert [(job["machine"], job["stdout"]) for job in jobs] == [("web01", "alike\n"), ("web02", "alike\n")]


@pytest.mark.parametrize("command", ["targets", "machines", "label", "history", "cat", "cancel"])
@pytest_twisted.ensureDeferred
async def test_a_target_that_can_not_be_asked_about(caller: Caller, fleet: FleetDouble, command: str) -> None:
    uuid = (UUID,) if command in ("cat", "cancel") else ()
    assert await caller(command, "@wéb", *uuid) == 125
    assert caller.err.startswith("ERROR: '@wéb' is no target: names are of a-z")
    assert await caller(command, ",".join(["web01"] * 400), *uuid) == 125
    assert "ERROR: that target has 2399 characters, and at most 2000 can be asked about\nhint: make a" in caller.err
    to_list = ("all",) if command in ("targets", "label") else ()
    for exclude, said in (
        ("@wéb", "'@wéb' is no target"),
        (",".join(["web01"] * 400), "that target has 2399 characters"),
    ):
        assert await caller(command, "-x", exclude, *to_list, *uuid) == 125
        assert caller.err.rpartition("ERROR: ")[2].startswith(said)
    assert not [call for call in fleet.calls if "target" in call]


@pytest_twisted.ensureDeferred
async def test_cat_hides_nobody_for_one_that_is_away(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("a", b"here\n")
    fleet.add("b", b"away\n")
    fleet.away = {"b"}
    assert await caller("cat", UUID) == 123
    assert caller.out == b"a\nhere\nb\n"
    assert caller.err.startswith("ERROR: the output of b can't be read now: b is offline")
    fleet.away = {"a", "b"}
    assert await caller("cat", UUID) == 125


@pytest_twisted.ensureDeferred
async def test_cancel_on_a_target_and_on_all(caller: Caller, fleet: FleetDouble) -> None:
    for name in ("a", "b", "c", "d"):
        fleet.add(name, running=True)
    fleet.targets = {"@x": ("a", "b")}
    assert await caller("cancel", "@x", UUID) == 0
    assert (sorted(fleet.cancelled), caller.out) == (["a", "b"], b"Command cancelled on a,b (2).\n")
    assert await caller("cancel", UUID) == 0
    assert caller.out.endswith(b"Command cancelled on c,d (2); it had ended on a,b (2).\n")
    assert await caller("cancel", "@x", UUID) == 125
    assert "nothing to cancel: the command had ended on a,b" in caller.err


@pytest_twisted.ensureDeferred
async def test_history_has_a_run_once(caller: Caller, fleet: FleetDouble) -> None:
    webs(fleet, 9)
    fleet.add("web10", **FAILED)
    fleet.answers["GET /v1/jobs"] = lambda query: JobPage(tuple(fleet.jobs.values()), UUID)
    assert await caller("history", "--limit", "1") == 0
    [row] = caller.out.decode().splitlines()[2:]
    assert row.split(" | ")[3:] == ["9 completed, 1 failed", "web[01-10]"]
    assert len(fleet.calls) == 1
    assert await caller("history", "--limit", "1", "--json") == 0
    assert len(json.loads(caller.out.splitlines()[-1])["jobs"]) == 10


@pytest_twisted.ensureDeferred
async def test_history_of_a_target_says_on_which_machines(caller: Caller, fleet: FleetDouble) -> None:
    fleet.add("web01")
    asked: list[Any] = []

    def page(query: Any) -> JobPage:
        asked.append(query)
        return JobPage(tuple(fleet.jobs.values()), None)

    fleet.answers["GET /v1/jobs"] = page
    assert await caller("history", "@web", "--limit", "7") == 0
    assert caller.out.decode().splitlines()[2].split(" | ")[-1] == "web01"
    assert asked == [{"target": "@web", "limit": "7"}]
    assert await caller("history", "web01") == 0
    assert "machine" not in caller.out.decode().splitlines()[-3] and asked[1]["machine"] == "web01"
