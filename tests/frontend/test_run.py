from __future__ import annotations

import json
import os
import signal

import msgspec
import pytest
import pytest_twisted
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred

from clustersh.frontend import attend
from clustersh.wire.jobs import Command, State
from clustersh.wire.problems import Kind, ProblemError
from clustersh.wire.rest import Run

from .conftest import Caller
from .coordinator_double import UUID, Double


@pytest_twisted.ensureDeferred
async def test_output_and_status_are_the_commands_own(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"\x00\xffhello"), (2, b"oops")]
    double.job = _job(double, status=State.FAILED, exit_code=7)
    assert await caller("run", "ws1", "ls", "-la", "--json") == 7
    assert (caller.out, caller.err) == (b"\x00\xffhello", "oops")
    assert [request.command for request in double.keys.values()] == [Command(shell="ls -la --json")]


@pytest_twisted.ensureDeferred
async def test_signals_and_windows_codes(caller: Caller, double: Double) -> None:
    double.job = _job(double, status=State.FAILED, exit_code=None, signal=9)
    assert await caller("run", "ws1", "x") == 137
    double.job = _job(double, status=State.FAILED, exit_code=3221225786, signal=None)
    assert await caller("run", "ws1", "x") == 1


@pytest_twisted.ensureDeferred
async def test_cut_output(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"x" * 200_000)]
    double.job = _job(double, duration_s=3.0)
    assert await caller("run", "ws1", "x") == 123
    assert caller.out == b"x" * (128 << 10)
    assert caller.err == (
        f"ERROR: output length exceeded limit, use clustersh cat ws1 {UUID} to read output.\n"
        f"hint: 200.0 kB, exit 0 after 3s; its end: clustersh cat ws1 {UUID} --tail 100\n"
    )
    double.job = _job(double, status=State.FAILED, exit_code=2)
    assert await caller("run", "ws1", "x") == 2


@pytest_twisted.ensureDeferred
async def test_a_larger_limit_fetches_what_did_not_come_along(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"a" * 100_000), (2, b"b" * 100_000)]
    # This coordinator caps the heads below the limit that was asked for.
    full = double.as_run
    double.as_run = lambda limit=0: full(1000)  # type: ignore[method-assign]
    assert await caller("run", "--limit", "150000", "ws1", "x") == 123
    assert (len(caller.out), caller.err.count("b" * 50_000), "output length" in caller.err) == (100_000, 1, True)


@pytest_twisted.ensureDeferred
async def test_output_that_cannot_be_read_is_not_called_a_limit(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"abc")]
    full = double.as_run
    double.as_run = lambda limit=0: full(0)  # type: ignore[method-assign]

    def away(query: object) -> None:
        raise ProblemError(Kind.OUTPUT_UNAVAILABLE, "ws1 is offline", started=True)

    double.answers[f"GET /v1/jobs/ws1/{UUID}/output"] = away
    assert await caller("wait", UUID) == 123
    assert caller.err.startswith("ERROR: the command's output can't be read now: ws1 is offline\n")


@pytest_twisted.ensureDeferred
async def test_heads_that_end_on_whole_characters_need_no_second_request(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"x" * 200_000)]
    full = double.as_run
    double.as_run = lambda limit=0: full((128 << 10) - 2)  # type: ignore[method-assign]
    assert await caller("run", "ws1", "x") == 123
    assert double.calls == ["POST /v1/runs"]


@pytest_twisted.ensureDeferred
async def test_full_has_no_limit(caller: Caller, double: Double) -> None:
    double.pieces = [(1, os.urandom(300_000)), (2, b"end")]
    assert await caller("run", "--full", "ws1", "x") == 0
    assert (caller.out, caller.err) == (double.pieces[0][1], "end")


@pytest_twisted.ensureDeferred
async def test_streams_in_order_where_both_go_to_one_place(caller: Caller, double: Double) -> None:
    caller.merge()
    double.pieces = [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")]
    assert await caller("run", "ws1", "x") == 0
    assert caller.out == b"one\ntwo\nthree\n"


@pytest_twisted.ensureDeferred
async def test_combined_is_all_on_stdout(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"one\n"), (2, b"two\n"), (1, b"three\n")]
    assert await caller("run", "--combined", "ws1", "x") == 0
    assert (caller.out, caller.err) == (b"one\ntwo\nthree\n", "")
    assert await caller("run", "--combined", "--json", "ws1", "x") == 0
    document = json.loads(caller.out.removeprefix(b"one\ntwo\nthree\n"))
    assert document["output"] == "one\ntwo\nthree\n" and "stdout" not in document


@pytest_twisted.ensureDeferred
async def test_timed_out(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"so far")]
    double.job = _job(double, status=State.TIMED_OUT, exit_code=None, signal=15, timeout_s=300.0, duration_s=300.2)
    assert await caller("run", "ws1", "sleep 360") == 124
    assert (caller.out, caller.err) == (b"so far", "ERROR: command timed out after 5 minutes\n")


@pytest_twisted.ensureDeferred
async def test_other_ends(caller: Caller, double: Double) -> None:
    ends = {
        State.CANCELLED: 130,
        State.INTERRUPTED: 123,
        State.LOST: 123,
        State.NOT_STARTED: 125,
        State.REFUSED: 126,
    }
    for state, status in ends.items():
        double.job = _job(double, status=state, exit_code=None, reason="a\x1breason")
        assert await caller("run", "ws1", "x") == status, state
    assert caller.err.count("ERROR: ") == 5
    assert "\x1b" not in caller.err and "\\x1breason" in caller.err


@pytest_twisted.ensureDeferred
async def test_problems(caller: Caller, double: Double) -> None:
    double.refuse = ProblemError(Kind.NOT_RUNNING, "ws1 is offline", hint="last seen 2h ago", uuid=UUID)
    assert await caller("run", "ws1", "x") == 125
    assert caller.err == "ERROR: ws1 is offline\nhint: last seen 2h ago\n"
    double.refuse = ProblemError(Kind.POLICY, "not here")
    assert await caller("run", "ws1", "x") == 126
    double.refuse = ProblemError(Kind.UNCONFIRMED, "who knows", started=None)
    assert await caller("run", "ws1", "x") == 123


@pytest_twisted.ensureDeferred
async def test_json_of_a_job_and_of_a_problem(caller: Caller, double: Double) -> None:
    double.pieces = [(1, "é".encode()), (2, b"\xff")]
    assert await caller("run", "--json", "ws1", "x") == 0
    document = json.loads(caller.out)
    assert document["uuid"] == UUID and document["status"] == "completed" and document["truncated"] is False
    assert (document["stdout"], document["stderr"]) == ("é", {"base64": "/w=="})
    contract = "uuid machine client command cwd started finished exit_code signal status output_bytes duration_s"
    assert set(contract.split()) <= set(document)
    before = len(caller.out)
    double.refuse = ProblemError(Kind.NOT_RUNNING, "ws1 is offline", uuid=UUID)
    assert await caller("run", "--json", "ws1", "x") == 125
    assert json.loads(caller.out[before:]) == {
        "error": {"type": "not-running", "message": "ws1 is offline", "hint": None, "uuid": UUID, "started": False}
    }


@pytest_twisted.ensureDeferred
async def test_json_after_the_first_word_is_the_commands(caller: Caller, double: Double) -> None:
    double.refuse = ProblemError(Kind.NOT_RUNNING, "off")
    assert await caller("run", "ws1", "x", "--json") == 125
    assert caller.out == b""


@pytest_twisted.ensureDeferred
async def test_a_lost_answer_is_asked_for_again_with_the_same_key(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"once")]
    double.lose = ["POST /v1/runs", "POST /v1/runs"]
    assert await caller("run", "ws1", "x") == 0
    assert caller.out == b"once"
    assert double.calls.count("POST /v1/runs") == 3 and len(double.keys) == 1


@pytest_twisted.ensureDeferred
async def test_gives_up_naming_what_to_do(caller: Caller, double: Double) -> None:
    (caller.folder / "home" / "config.toml").write_text('[client]\nretry_for = "0s"\n')
    double.lose = ["POST /v1/runs"]
    assert await caller("run", "ws1", "--key", "mykey", "x") == 123
    assert "ERROR: no answer from the coordinator" in caller.err and "--key mykey" in caller.err
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.lose = ["GET /v1/runs"] * 3  # Twisted asks once more by itself
    double.on_call = lambda call: double.end(status=State.COMPLETED, exit_code=0) if call.startswith("GET") else None
    assert await caller("run", "--follow", "ws1", "x") == 123
    assert f"clustersh wait {UUID}" in caller.err


@pytest_twisted.ensureDeferred
async def test_nothing_listening_fails_at_once(caller: Caller) -> None:
    (caller.folder / "home" / "client" / "login.json").write_text('{"coordinator": "127.0.0.1:1"}')
    started = reactor.seconds()  # type: ignore[attr-defined]
    assert await caller("run", "ws1", "x") == 125
    assert reactor.seconds() - started < 5  # type: ignore[attr-defined]
    assert "127.0.0.1:1" in caller.err and caller.err.startswith("ERROR: ")


@pytest_twisted.ensureDeferred
async def test_not_logged_in(caller: Caller) -> None:
    (caller.folder / "home" / "client" / "login.json").unlink()
    assert await caller("run", "ws1", "x") == 125
    assert caller.err.startswith("ERROR: not logged in\nhint: clustersh login ")


@pytest_twisted.ensureDeferred
async def test_unconfirmed(caller: Caller, double: Double) -> None:
    double.job = _job(double, status=State.REQUESTED, exit_code=None)
    double.unconfirmed = ("ws1",)
    double.answers["POST /v1/runs"] = lambda query: double.as_run()
    assert await caller("run", "ws1", "x") == 123
    assert "did not confirm the start" in caller.err and f"clustersh wait {UUID}" in caller.err


@pytest_twisted.ensureDeferred
async def test_detach(caller: Caller, double: Double) -> None:
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    assert await caller("run", "--detach", "ws1", "x") == 0
    assert caller.out.decode() == UUID + "\n"


@pytest.mark.parametrize("how", ["option", "environment"])
@pytest_twisted.ensureDeferred
async def test_wait_gives_up_the_waiting(caller: Caller, double: Double, how: str) -> None:
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.pieces = [(1, b"so far")]
    options = ("--wait", "200ms") if how == "option" else ()
    caller.environ.update({"CLUSTERSH_WAIT": "200ms"} if how == "environment" else {})
    assert await caller("run", *options, "ws1", "x") == 123
    assert (caller.out, caller.err) == (b"so far", f"hint: still running, clustersh wait {UUID}\n")


@pytest_twisted.ensureDeferred
async def test_interrupt_cancels(caller: Caller, double: Double) -> None:
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.on_call = lambda call: caller.signals.deliver(signal.SIGINT) if call == f"GET /v1/runs/{UUID}" else None
    double.answers["POST /v1/runs"] = lambda query: double.as_run()
    assert await caller("run", "ws1", "x") == 130
    assert f"POST /v1/runs/{UUID}/cancel" in double.calls
    assert caller.err.startswith("Cancelling the command") and "ERROR: command cancelled after 4s\n" in caller.err


@pytest_twisted.ensureDeferred
async def test_interrupt_before_the_uuid_is_known(caller: Caller, double: Double) -> None:
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.on_call = lambda call: caller.signals.deliver(signal.SIGINT) if len(double.calls) == 1 else None
    assert await caller("run", "ws1", "x") == 130
    # The first request is answered late: the uuid is asked for anew, with the same key, and what it names is cancelled.
    assert double.calls[:3] == ["POST /v1/runs", "POST /v1/runs", f"POST /v1/runs/{UUID}/cancel"]
    assert len(double.keys) == 1


@pytest_twisted.ensureDeferred
async def test_a_document_of_a_running_job_counts_what_it_holds(caller: Caller, double: Double) -> None:
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.pieces = [(1, b"so far"), (2, b"err")]
    double.answers["POST /v1/runs"] = lambda query: _unread(double)
    double.answers[f"GET /v1/runs/{UUID}"] = lambda query: _unread(double)
    assert await caller("run", "--json", "--wait", "100ms", "ws1", "x") == 123
    document = json.loads(caller.out)
    assert (document["status"], document["stdout"], document["stderr"]) == ("running", "so far", "err")
    assert [document[f"{name}_bytes"] for name in ("output", "stdout", "stderr")] == [9, 6, 3]


def _unread(double: Double) -> Run:
    """The run as a coordinator tells it while its job runs: nothing is known of the output."""
    run = double.as_run()
    job = msgspec.structs.replace(run.jobs[0], output_bytes=0, stdout_bytes=0, stderr_bytes=0)
    return msgspec.structs.replace(run, jobs=(job,))


@pytest_twisted.ensureDeferred
async def test_a_second_interrupt_leaves_at_once(caller: Caller, double: Double) -> None:
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.answers["POST /v1/runs"] = lambda query: double.as_run()
    double.answers[f"POST /v1/runs/{UUID}/cancel"] = lambda query: None  # never answered

    def interrupt(call: str) -> None:
        if call == f"GET /v1/runs/{UUID}":
            caller.signals.deliver(signal.SIGINT)
            caller.signals.deliver(signal.SIGINT)

    double.on_call = interrupt
    assert await caller("run", "ws1", "x") == 123
    assert f"clustersh wait {UUID}" in caller.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("when", ["POST /v1/runs", f"GET /v1/runs/{UUID}"])
@pytest_twisted.ensureDeferred
async def test_other_signals_leave_it_running(caller: Caller, double: Double, number: int, when: str) -> None:
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    calls = []

    def deliver(call: str) -> None:
        calls.append(call)
        if call == when and calls.count(when) == 1:
            caller.signals.deliver(number)

    double.on_call = deliver
    if when.startswith("GET"):
        double.answers["POST /v1/runs"] = lambda query: double.as_run()
    assert await caller("run", "ws1", "x") == 123
    assert caller.err == f"hint: still running, clustersh wait {UUID}\n"
    assert not any("cancel" in call for call in double.calls) and len(double.keys) <= 1


@pytest_twisted.ensureDeferred
async def test_reminds_without_a_terminal(caller: Caller, double: Double, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attend, "REMIND_AFTER_S", 0.2)
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.answers["POST /v1/runs"] = lambda query: double.as_run()

    async def end_when_reminded() -> None:
        while not caller.err:
            await task.deferLater(reactor, 0.01)
        double.end(status=State.COMPLETED, exit_code=0)

    ending = Deferred.fromCoroutine(end_when_reminded())
    assert await caller("run", "ws1", "x") == 0
    await ending
    assert caller.err == f"hint: still running, clustersh wait {UUID}\n"


@pytest_twisted.ensureDeferred
async def test_follow_resumes_a_cut_stream_byte_for_byte(caller: Caller, double: Double) -> None:
    double.pieces = [(1, os.urandom(50_000)), (2, b"e" * 1000), (1, os.urandom(50_000))]
    double.cut_after = [3, 20_000, 30_003, 700]
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.on_call = lambda call: double.end(status=State.COMPLETED, exit_code=0) if _resumed(double) else None
    assert await caller("run", "--full", "ws1", "x") == 0
    assert caller.out == double.pieces[0][1] + double.pieces[2][1]
    assert caller.err == "e" * 1000


def _resumed(double: Double) -> bool:
    return not double.cut_after


@pytest_twisted.ensureDeferred
async def test_stdin_is_taken_in_pieces_and_never_twice(caller: Caller, double: Double, tmp_path: object) -> None:
    data = os.urandom(200_000)
    (caller.folder / "input").write_bytes(data)
    os.dup2(os.open(caller.folder / "input", os.O_RDONLY), caller.stdin)
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    double.take_at_once = 30_000
    path = f"PUT /v1/jobs/ws1/{UUID}/stdin"
    double.lose = [path, path]
    looks = task.LoopingCall(lambda: double.stdin_ended and double.end(status=State.COMPLETED, exit_code=0))
    looks.start(0.05)
    try:
        assert await caller("run", "--stdin", "ws1", "cat") == 0
    finally:
        looks.stop()
    assert bytes(double.stdin) == data
    assert [request.stdin for request in double.keys.values()] == [True]


@pytest_twisted.ensureDeferred
async def test_stdin_is_sent_again_once_the_job_has_started_and_the_coordinator_has_time(
    caller: Caller, double: Double
) -> None:
    (caller.folder / "input").write_bytes(b"whole")
    os.dup2(os.open(caller.folder / "input", os.O_RDONLY), caller.stdin)
    double.job = _job(double, status=State.RUNNING, exit_code=None)

    def refuse_once(call: str, kind: Kind) -> None:
        def answer(_query: dict[str, str]) -> None:
            del double.answers[call]
            raise ProblemError(kind, "not now")

        double.answers[call] = answer

    refuse_once(f"PUT /v1/jobs/ws1/{UUID}/stdin", Kind.NOT_RUNNING)
    refuse_once(f"GET /v1/jobs/ws1/{UUID}", Kind.UNAVAILABLE)
    looks = task.LoopingCall(lambda: double.stdin_ended and double.end(status=State.COMPLETED, exit_code=0))
    looks.start(0.05)
    try:
        assert await caller("run", "--stdin", "ws1", "cat") == 0
    finally:
        looks.stop()
    assert (bytes(double.stdin), double.answers) == (b"whole", {})


@pytest_twisted.ensureDeferred
async def test_unreadable_stdin_cancels(caller: Caller, double: Double) -> None:
    os.dup2(os.open(caller.folder, os.O_RDONLY), caller.stdin)
    double.job = _job(double, status=State.RUNNING, exit_code=None)
    assert await caller("run", "--stdin", "ws1", "cat") in (125, 130)
    assert f"POST /v1/runs/{UUID}/cancel" in double.calls


@pytest_twisted.ensureDeferred
async def test_script_files_and_environment(caller: Caller, double: Double) -> None:
    (caller.folder / "s.sh").write_bytes(b"#!/bin/sh\necho hi\n")
    (caller.folder / "data").mkdir()
    (caller.folder / "data" / "a").write_bytes(b"a" * 600_000)
    caller.environ["TOKEN"] = "secret"
    words = ("--script", "s.sh", "--file", "data", "--env", "TOKEN", "--env", "A=b=c", "--cwd", "/tmp", "ws1")
    assert await caller("run", *words) == 0
    (request,) = double.keys.values()
    assert request.command.script is not None and request.command.script.name == "s.sh"
    assert double.blobs[request.command.script.sha256] == b"#!/bin/sh\necho hi\n"
    assert request.files is not None and request.files.sha256 in double.blobs
    assert b"a" * 600_000 in double.blobs.values()
    assert (request.env, request.cwd) == ({"TOKEN": "secret", "A": "b=c"}, "/tmp")
    puts = sum(call.startswith("PUT ") for call in double.calls)
    assert await caller("run", *words) == 0
    assert sum(call.startswith("PUT ") for call in double.calls) == puts


@pytest_twisted.ensureDeferred
async def test_an_unforeseen_exception_is_one_line(caller: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("clustersh.frontend.submission.connect", broken)
    assert await caller("run", "ws1", "x") == 125
    assert caller.err.startswith("ERROR: internal error (KeyError)") and "Traceback" not in caller.err


def _job(double: Double, **changes: object) -> object:
    import msgspec

    return msgspec.structs.replace(double.job, **changes)
