"""The main job, through real programs: a command on another machine, its output and its exit code."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from .programs import Cluster, end, eventually

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"


def detach(cluster: Cluster, *words: str) -> str:
    """Start a run and return its uuid."""
    answer = cluster.sh("run", "--detach", *words)
    assert answer.status == 0, answer
    return answer.out.strip()


def processes_of(uuid: str) -> list[int]:
    """Return the pids that carry the job's mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("CLUSTERSH_JOB") == uuid:
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


def test_output_and_exit_code_come_back(cluster: Cluster) -> None:
    answer = cluster.sh("run", "ws1", "echo out; echo err >&2; exit 7")
    assert (answer.status, answer.out, answer.err) == (7, "out\n", "err\n")
    assert cluster.sh("run", "ws1", "true").status == 0
    assert cluster.sh("run", "ws1", "kill -9 $$").status == 137


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["echo 'a  b'"], "a  b\n"),
        (["echo", "a", "b"], "a b\n"),
        (["echo", "$HOME", "|", "wc", "-l"], "1\n"),
        (["--", "echo", "a  b", "$HOME", "|"], "a  b $HOME |\n"),
        (["--timeout", "10s", "echo", "--timeout"], "--timeout\n"),
    ],
)
def test_what_the_words_after_the_machine_mean(cluster: Cluster, words: list[str], out: str) -> None:
    answer = cluster.sh("run", "ws1", *words)
    assert (answer.status, answer.out) == (0, out)


def test_commands_run_at_home_with_the_jobs_names_and_without_a_terminal(cluster: Cluster) -> None:
    answer = cluster.sh("run", "ws1", 'pwd; echo "$CLUSTERSH_MACHINE $CLUSTERSH_JOB"; cat; true < /dev/tty')
    home, names = answer.out.splitlines()
    assert home == str(cluster.agent.path.parent)
    assert names.split()[0] == "ws1"
    assert cluster.job(names.split()[1])["machine"] == "ws1"
    assert answer.status == 1
    assert "/dev/tty" in answer.err


def test_environment_and_working_directory(cluster: Cluster, tmp_path: Path) -> None:
    answer = cluster.sh(
        "run",
        "ws1",
        "--cwd",
        str(tmp_path),
        "--env",
        "A=1 2",
        "--env",
        "SECRET",
        'pwd; echo "$A $SECRET"',
        environ={"SECRET": "hunter2"},
    )
    assert answer.out == f"{tmp_path}\n1 2 hunter2\n"
    missing = cluster.sh("run", "ws1", "--cwd", "/no/such/directory", "true")
    assert missing.status == 125
    assert missing.err.startswith("ERROR: ") and "/no/such/directory" in missing.err


def test_an_unknown_machine_names_the_close_matches(cluster: Cluster) -> None:
    answer = cluster.sh("run", "sw1", "true")
    assert answer.status == 125
    assert answer.err.startswith("ERROR: no machine is called 'sw1'")
    assert "ws1" in answer.err.partition("hint: ")[2]


def test_every_byte_comes_back(cluster: Cluster) -> None:
    script = (
        "import sys; sys.stdout.buffer.write(bytes(range(256)) * 3 + b'no newline'); sys.stderr.buffer.write(b'\\0')"
    )
    expected = bytes(range(256)) * 3 + b"no newline"
    answer = cluster.sh("run", "ws1", "--", "python3", "-c", script)
    assert (answer.stdout, answer.stderr) == (expected, b"\0")
    uuid = cluster.sh("history", "ws1", "--json", "--limit", "1").json["jobs"][0]["uuid"]
    again = cluster.sh("cat", "ws1", uuid[-8:])
    assert (again.stdout, again.stderr) == (expected, b"\0")
    only = cluster.sh("cat", "ws1", uuid, "--stderr")
    assert (only.stdout, only.stderr) == (b"\0", b""), "a stream asked for alone is what the caller wants to pipe"
    assert cluster.sh("cat", "ws1", uuid, "--stdout", "--offset", "768", "--length", "2").stdout == b"no"


def test_long_output_is_cut_with_the_way_to_the_rest(cluster: Cluster) -> None:
    answer = cluster.sh("run", "ws1", "seq 100000")
    uuid = cluster.sh("history", "ws1", "--json", "--limit", "1").json["jobs"][0]["uuid"]
    whole = "".join(f"{n}\n" for n in range(1, 100001)).encode()
    assert answer.status == 123
    assert answer.stdout == whole[: 128 << 10]
    assert f"ERROR: output length exceeded limit, use clustersh cat ws1 {uuid} to read output." in answer.err
    assert "--tail" in answer.err
    assert cluster.sh("cat", "ws1", uuid).stdout == whole
    assert cluster.sh("cat", "ws1", uuid, "--tail", "2").out == "99999\n100000\n"
    assert cluster.sh("run", "--full", "ws1", "seq 100000").stdout == whole
    failed = cluster.sh("run", "ws1", "seq 100000; exit 3")
    assert failed.status == 3
    json_form = cluster.sh("run", "--json", "--limit", "10", "ws1", "seq 100000").json
    assert json_form["truncated"] is True and json_form["stdout"] == "1\n2\n3\n4\n5\n"


def test_a_time_out_ends_the_whole_tree_and_keeps_the_output(cluster: Cluster) -> None:
    command = "echo before; trap '' TERM; (trap '' TERM; sleep 300) & setsid sleep 301 & sleep 302"
    answer = cluster.sh("run", "--timeout", "1s", "ws1", command)
    assert answer.status == 124
    assert answer.out == "before\n"
    assert "ERROR: command timed out after 1 second" in answer.err
    uuid = cluster.sh("history", "ws1", "--json", "--limit", "1").json["jobs"][0]["uuid"]
    assert processes_of(uuid) == []
    assert cluster.job(uuid)["status"] == "timed-out"


def test_cancel_ends_the_whole_tree(cluster: Cluster) -> None:
    uuid = detach(cluster, "ws1", "sleep 300 & setsid sleep 301 & sleep 302")
    eventually(lambda: len(processes_of(uuid)) >= 3)
    answer = cluster.sh("cancel", "ws1", uuid)
    assert (answer.status, answer.err or answer.out) == (0, "Command cancelled.\n")
    assert cluster.sh("wait", uuid).status == 130
    assert processes_of(uuid) == []


def test_a_background_child_that_holds_the_output_delays_nothing(cluster: Cluster) -> None:
    answer = cluster.sh("run", "ws1", "sleep 300 & echo done")
    assert (answer.status, answer.out) == (0, "done\n")
    assert answer.seconds < 20
    uuid = cluster.sh("history", "ws1", "--json", "--limit", "1").json["jobs"][0]["uuid"]
    [left] = processes_of(uuid)
    os.kill(left, signal.SIGKILL)


def test_the_same_key_runs_once(cluster: Cluster, tmp_path: Path) -> None:
    count = tmp_path / "count"
    command = f"echo x >> {count}; sleep 1; echo done"
    both = [cluster.client.open("clustersh", "run", "--key", "k1", "ws1", command) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == [b"done\n"] * 2
    assert cluster.sh("run", "--key", "k1", "ws1", command).out == "done\n"
    assert count.read_text() == "x\n"
    other = cluster.sh("run", "--key", "k1", "ws1", "true")
    assert other.status == 125 and "key" in other.err


def test_many_commands_at_once(cluster: Cluster) -> None:
    uuids = [detach(cluster, "ws1", f"echo {n}; sleep 1") for n in range(12)]
    for n, uuid in enumerate(uuids):
        assert cluster.sh("wait", uuid).out == f"{n}\n"


def test_stdin_is_streamed_and_closed(cluster: Cluster) -> None:
    data = bytes(range(256)) * 4000
    answer = cluster.sh("run", "--stdin", "--full", "ws1", "cat", stdin=data, seconds=60)
    assert answer.status == 0
    assert answer.stdout == data
    early = cluster.sh("run", "--stdin", "ws1", "head -c 3", stdin=data)
    assert (early.status, early.out) == (0, "\0\x01\x02")


def test_scripts_of_any_length_honour_their_shebang(cluster: Cluster, tmp_path: Path) -> None:
    script = tmp_path / "tool.py"
    script.write_text("#!/usr/bin/env python3\nimport sys\nprint('python', len(sys.argv))\n" + "# filler\n" * 40000)
    answer = cluster.sh("run", "--script", str(script), "ws1")
    assert (answer.status, answer.out) == (0, "python 1\n"), answer.err
    piped = cluster.sh("run", "--script", "-", "ws1", stdin=b"echo from bash; exit 4\n")
    assert (piped.status, piped.out) == (4, "from bash\n")
    long_line = "echo " + "x" * 110_000
    assert cluster.sh("run", "--limit", "1M", "ws1", long_line).out == "x" * 110_000 + "\n"


def test_files_travel_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "empty").mkdir(parents=True)
    (tree / "run.sh").write_text("#!/bin/sh\necho ran\n")
    (tree / "run.sh").chmod(0o750)
    (tree / "link").symlink_to("run.sh")
    Path(os.fsdecode(os.fsencode(tree) + b"/odd \xff name")).mkdir()
    (tmp_path / "hello").write_text("hello\n")
    command = "cat hello; tree/link; stat -c %a tree/run.sh; readlink tree/link; ls -b tree; pwd"
    answer = cluster.sh("run", "--file", str(tree), "--file", str(tmp_path / "hello"), "ws1", command)
    assert answer.status == 0, answer.err
    *lines, where = answer.out.splitlines()
    assert lines == ["hello", "ran", "750", "run.sh", "empty", "link", "odd\\ \\377\\ name", "run.sh"]
    assert not Path(where).exists()
    kept = cluster.sh("run", "--keep-files", "--file", str(tmp_path / "hello"), "ws1", "pwd").out.strip()
    assert (Path(kept) / "hello").read_text() == "hello\n"


def test_files_that_would_escape_are_refused(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "out").symlink_to("/etc/passwd")
    answer = cluster.sh("run", "--file", str(tmp_path / "tree"), "ws1", "true")
    assert answer.status == 125 and "out" in answer.err
    (tmp_path / "a").mkdir()
    for folder in (tmp_path, tmp_path / "a"):
        (folder / "same").write_text("x")
    twice = cluster.sh("run", "--file", str(tmp_path / "same"), "--file", str(tmp_path / "a" / "same"), "ws1", "true")
    assert twice.status == 125 and "same" in twice.err
    assert cluster.sh("run", "--file", str(tmp_path / "missing"), "ws1", "true").status == 125


def test_history_tells_how_everything_ended(cluster: Cluster) -> None:
    cluster.sh("run", "ws1", "echo in history; exit 2")
    table = cluster.sh("history", "ws1")
    header, rule, first, *_ = table.out.splitlines()
    assert [part.strip() for part in header.split("|")] == ["uuid", "time", "command", "status"]
    assert set(rule) == {"=", "|"}
    assert "echo in history; exit 2" in first and "failed (exit 2) after" in first
    newest = cluster.sh("history", "--status", "failed", "--limit", "1", "--json").json["jobs"][0]
    assert newest["exit_code"] == 2 and newest["client"] == "joshua@mba"
    assert first.split("|")[0].strip() == newest["uuid"][-8:]


def test_waiting_may_be_given_up_and_taken_up_again(cluster: Cluster) -> None:
    answer = cluster.sh("run", "--wait", "1s", "ws1", "echo first; sleep 3; echo second")
    assert answer.status == 123
    assert answer.out == "first\n"
    uuid = answer.err.split("clustersh wait ")[1].split()[0]
    rest = cluster.sh("wait", uuid)
    assert (rest.status, rest.out) == (0, "first\nsecond\n")


def test_an_interrupt_cancels_and_a_termination_does_not(cluster: Cluster) -> None:
    for how, state in ((signal.SIGINT, "cancelled"), (signal.SIGTERM, "running")):
        before = {job["uuid"] for job in cluster.sh("history", "--json").json["jobs"]}
        process = cluster.client.open("clustersh", "run", "ws1", "echo started; sleep 300")
        fresh = lambda: [  # noqa: E731
            job
            for job in cluster.sh("history", "--json").json["jobs"]
            if job["uuid"] not in before  # noqa: B023
        ]
        eventually(lambda: [job for job in fresh() if job["status"] == "running"])  # noqa: B023
        uuid = fresh()[0]["uuid"]
        process.send_signal(how)
        _, err = process.communicate(timeout=30)
        assert cluster.until_job(uuid, state)
        if how == signal.SIGINT:
            assert process.returncode == 130 and b"cancelled" in err.lower()
        else:
            assert f"hint: still running, clustersh wait {uuid}".encode() in err
            assert cluster.sh("cancel", uuid).status == 0


def test_following_shows_output_as_it_comes(cluster: Cluster, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    process = cluster.client.open(
        "clustersh", "run", "--follow", "ws1", f"echo first; until [ -e {gate} ]; do sleep 0.05; done; echo second"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"first\n"
    gate.touch()
    assert process.stdout.read() == b"second\n"
    assert process.wait() == 0
    end(process)


def test_json_is_one_document_in_success_and_failure(cluster: Cluster) -> None:
    job = cluster.sh("run", "--json", "ws1", "printf '\\377'; echo err >&2; exit 3")
    assert job.status == 3
    expected = {"machine": "ws1", "exit_code": 3, "signal": None, "status": "failed", "stdout": {"base64": "/w=="}}
    assert expected.items() <= job.json.items()
    assert job.json["stderr"] == "err\n"
    for name in ["uuid", "client", "command", "cwd", "started", "finished", "truncated", "output_bytes", "duration_s"]:
        assert name in job.json
    unknown = cluster.sh("run", "--json", "sw1", "true")
    assert unknown.status == 125
    error = unknown.json["error"]
    assert (error["type"], error["started"]) == ("unknown-machine", False)
    assert {"message", "hint", "uuid"} <= set(error)


def test_the_bare_command_orients_in_under_a_kilobyte(cluster: Cluster) -> None:
    answer = cluster.sh()
    assert answer.status == 0, answer.err
    assert len(answer.stdout) < 1024
    assert "joshua@mba" in answer.out and cluster.address.rpartition(":")[2] in answer.out
    assert answer.out.count("clustersh ") >= 3


def test_the_ledger_says_who_ran_what_and_how_it_ended(cluster: Cluster) -> None:
    cluster.sh("run", "--env", "TOKEN=s3cret-value", "ws1", "echo audited; exit 5")
    lines = cluster.coordinator.run("clusterd", "audit", "--json", "--client", "joshua@mba").out
    records = json.loads(lines)["records"]
    run = next(record for record in records if record["is"] == "run" and "audited" in str(record["command"]))
    assert run["client"] == "joshua@mba" and run["env"] == ["TOKEN"]
    machine = cluster.coordinator.run("clusterd", "audit", "--json", "--machine", "ws1").out
    ended = next(
        record for record in json.loads(machine)["records"] if record["is"] == "ended" and record["uuid"] == run["uuid"]
    )
    assert ended["outcome"]["exit_code"] == 5
    assert "s3cret-value" not in lines + machine + cluster.logs()
    log = cluster.coordinator.log.read_text()
    assert f"{run['uuid']} joshua@mba on ws1: echo audited; exit 5" in log
    assert f"{run['uuid']} on ws1: failed (exit 5)" in log
    assert cluster.coordinator.run("clusterd", "audit", "verify").status == 0


def test_time_passes_in_the_right_order(cluster: Cluster) -> None:
    job = cluster.sh("run", "--json", "ws1", "sleep 0.2").json
    assert job["requested"] <= job["started"] <= job["finished"]
    assert 0.2 <= job["duration_s"] < 20
