from __future__ import annotations

import json
import os
import subprocess
import sys

import msgspec
import pytest
import pytest_twisted

from clustersh.wire.jobs import State
from clustersh.wire.rest import Job, JobPage, Machine, Machines

from .conftest import Caller
from .coordinator_double import UUID, Double


@pytest_twisted.ensureDeferred
async def test_machines(caller: Caller, double: Double) -> None:
    found = Machines(
        (
            Machine("joshua-ws1", "1", "linux/amd64", "online", new=True),
            Machine("joshua-mba", "2", "darwin/arm64", "offline", last_seen="2026-11-20T08:11:07Z"),
            Machine("odd", "3", "a\x1b[2Jb", "offline"),
        )
    )
    double.answers["GET /v1/machines"] = lambda query: found
    assert await caller("machines") == 0
    assert caller.out.decode().splitlines() == [
        "name       | platform     | status",
        "===========|==============|===========================",
        "joshua-ws1 | linux/amd64  | online (new)",
        "joshua-mba | darwin/arm64 | offline (last seen 2h ago)",
        "odd        | a\\x1b[2Jb    | offline (never seen)",
    ]
    before = len(caller.out)
    assert await caller("machines", "--json") == 0
    assert json.loads(caller.out[before:])["machines"][1]["last_seen"] == "2026-11-20T08:11:07Z"


@pytest_twisted.ensureDeferred
async def test_history(caller: Caller, double: Double) -> None:
    job = Job(UUID, "ws1", "me", "make\nall", "", State.COMPLETED, "2026-11-20T10:31:07Z", exit_code=0, duration_s=80)
    double.answers["GET /v1/jobs"] = lambda query: JobPage((job,))
    assert await caller("history", "ws1", "--status", "failed", "--since", "2h", "--client", "me@x") == 0
    query = double.queries[-1]
    assert (query["machine"], query["client"], query["since"]) == ("ws1", "me@x", "2026-11-20T08:31:07.000Z")
    header, rule, line = caller.out.decode().splitlines()
    assert header.split(" | ")[0] == "uuid    " and rule.startswith("=========|")
    assert line.startswith("c41f9a02 | 2026-11-20 ") and line.endswith(" | make\\nall | completed after 1m20s")


@pytest_twisted.ensureDeferred
async def test_failed_includes_interrupted(caller: Caller, double: Double) -> None:
    asked: list[str] = []
    double.answers["GET /v1/jobs"] = lambda query: JobPage(())
    double.on_call = asked.append
    assert await caller("history", "--status", "failed", "--json") == 0
    assert json.loads(caller.out) == {"jobs": [], "next": None}
    assert double.queries[-1]["status"] == "interrupted"  # the last of the two


@pytest_twisted.ensureDeferred
async def test_history_reads_page_after_page(caller: Caller, double: Double) -> None:
    def page(query: dict[str, str]) -> JobPage:
        number = int(query.get("before", "3")) - 1
        job = Job(f"{number}", "ws1", "me", "x", "", State.LOST, "2026-11-20T10:31:07Z")
        return JobPage((job,), str(number) if number else None)

    double.answers["GET /v1/jobs"] = page
    assert await caller("history", "--json") == 0
    assert [job["uuid"] for job in json.loads(caller.out)["jobs"]] == ["2", "1", "0"]


@pytest_twisted.ensureDeferred
async def test_cat_is_byte_for_byte(caller: Caller, double: Double) -> None:
    data = os.urandom(100_000)
    double.pieces = [(1, data), (2, b"\x00no newline")]
    double.cut_after = [50_000]
    assert await caller("cat", "ws1", UUID) == 0
    assert (caller.out, caller.err) == (data, "\x00no newline")


@pytest_twisted.ensureDeferred
async def test_cat_parts(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"one\ntwo\n"), (2, b"err"), (1, b"three\n")]
    assert await caller("cat", "ws1", UUID, "--stdout", "--tail", "2") == 0
    assert (caller.out, caller.err) == (b"two\nthree\n", "")
    assert await caller("cat", "ws1", UUID, "--offset", "6", "--length", "4") == 0
    assert (caller.out, caller.err) == (b"two\nthree\no\n", "er")
    assert await caller("cat", "ws1", UUID, "--stderr") == 0
    assert (caller.out, caller.err) == (b"two\nthree\no\nerr", "er")
    assert await caller("cat", "ws1", UUID, "--stderr", "--json") == 0
    assert json.loads(caller.out.removeprefix(b"two\nthree\no\nerr"))["stderr"] == "err"


@pytest_twisted.ensureDeferred
async def test_no_lines_of_a_tail_are_none(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"one\ntwo\n")]
    assert await caller("cat", "ws1", UUID, "--tail", "0") == 0
    assert (caller.out, caller.err) == (b"", "")


@pytest.mark.parametrize("words", [("ws1", UUID[-8:]), (UUID[-8:],)])
@pytest_twisted.ensureDeferred
async def test_the_document_of_cat_has_the_whole_uuid(caller: Caller, double: Double, words: tuple[str, ...]) -> None:
    assert await caller("cat", *words, "--json") == 0
    assert json.loads(caller.out)["uuid"] == UUID


@pytest.mark.parametrize(
    "words",
    [("history", "\udcff"), ("history", "--client", "\udcff"), ("cat", "\udcff", UUID), ("cancel", "\udcff", UUID)],
)
@pytest_twisted.ensureDeferred
async def test_arguments_that_are_no_text(caller: Caller, double: Double, words: tuple[str, ...]) -> None:
    assert await caller(*words) == 125
    assert "is not UTF-8" in caller.err and "bug" not in caller.err
    assert not double.calls


@pytest_twisted.ensureDeferred
async def test_a_cut_tail_goes_on_where_it_was(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"first\n" + b"x" * 10_000 + b"\nlast\n")]
    double.cut_after = [4000]
    assert await caller("cat", UUID, "--tail", "2", "--stdout") == 0
    assert caller.out == b"x" * 10_000 + b"\nlast\n"
    assert double.queries[-1]["offset"] == str(6 + 4000)


@pytest_twisted.ensureDeferred
async def test_wait_shows_what_run_would_have(caller: Caller, double: Double) -> None:
    double.pieces = [(1, b"out")]
    double.end(status=State.FAILED, exit_code=4)
    assert await caller("wait", "…c41f9a02") == 4
    assert caller.out == b"out"
    assert await caller("wait", "1234") == 125
    assert "is no run" in caller.err


@pytest_twisted.ensureDeferred
async def test_cancel(caller: Caller, double: Double) -> None:
    double.end(status=State.RUNNING, exit_code=None)
    assert await caller("cancel", "ws1", "c41f9a02") == 0
    assert caller.out == b"Command cancelled.\n"
    assert double.calls[-1] == "POST /v1/jobs/ws1/c41f9a02/cancel"
    assert await caller("cancel", UUID) == 125
    assert double.calls[-1] == f"POST /v1/runs/{UUID}/cancel"
    assert "nothing to cancel" in caller.err


@pytest_twisted.ensureDeferred
async def test_mistyped_command(caller: Caller) -> None:
    assert await caller("histroy") == 125
    assert caller.err.startswith("ERROR: clustersh has no command 'histroy'\nhint: did you mean clustersh history")


@pytest.mark.parametrize("command", ["run", "machines", "cat", "history", "wait", "cancel"])
@pytest_twisted.ensureDeferred
async def test_help_of_each_command(caller: Caller, command: str) -> None:
    assert await caller(command, "--help") == 0
    assert b"examples:\n  clustersh " + command.encode() in caller.out
    assert await caller(command, "--no-such") == 125


@pytest.mark.real
def test_help_imports_no_twisted() -> None:
    code = (
        "import os, sys; os._exit = lambda status: print('twisted' in sys.modules, status) or sys.exit(0)\n"
        "sys.argv = ['clustersh', '--help']\nfrom clustersh.frontend.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "commands:" in done.stdout and done.stdout.endswith("False 0\n")


def test_job_documents_have_no_more_and_no_less_than_jobs() -> None:
    from clustersh.frontend.show import job_document

    job = Job(UUID, "ws1", "me", "x", "", State.LOST, "2026-11-20T10:31:07Z")
    document = job_document(job, {"stdout": "", "stderr": ""}, truncated=False)
    assert document.keys() == msgspec.to_builtins(job).keys()


@pytest.mark.parametrize(
    ("words", "said", "hint"),
    [
        (("run", "ws1"), "what shall ws1 run?", "clustersh run ws1"),
        (("run", "--full", "--limit", "1k", "ws1", "x"), "--full is without a limit", "clustersh run --help"),
        (("run", "--detach", "--follow", "ws1", "x"), "--detach doesn't stay for --follow", "clustersh run --help"),
        (("run", "--file", "", "ws1", "x"), "need a path", "clustersh run --help"),
        (("run", "--least-loaded", "--placement", "p", "@w", "x"), "is a placement too", "clustersh run --help"),
        (("cat", UUID, "--tail", "1", "--offset", "2"), "--tail counts from the end", "clustersh cat --help"),
        (("cat", "-x", "@wéb", UUID), "'@wéb' is no target", "clustersh cat --help"),
        (("cancel", "nonsense"), "nonsense", "clustersh history lists them"),
        (("history", "--since", "soon"), "--since soon: write it like", "clustersh history --help"),
        (("wait", UUID, "--full", "--limit", "1k"), "--full is without a limit", "clustersh wait --help"),
        (("check", "ws1", "--timeout", "0"), "a check takes some time", "clustersh check --help"),
        (("label", "ws1", "gpu"), "'gpu' is no change", "clustersh label --help"),
        (("login", "--verify", "--no-wait", "ws1"), "can't go with --no-wait", "clustersh login --help"),
        (("adopt", "--all", "--name", "x"), "--name is for one machine", "clustersh adopt --help"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_each_mistake_says_what_to_do(
    caller: Caller, double: Double, words: tuple[str, ...], said: str, hint: str
) -> None:
    assert await caller(*words) == 125
    error, *hints = caller.err.splitlines()
    assert error.startswith("ERROR: ") and said in error
    assert any(each.startswith("hint: ") and hint in each for each in hints), hints
    assert not double.calls
