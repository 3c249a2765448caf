"""Escape sequences in names, commands and reasons don't reach a person's terminal; a run's output is its user's own."""

from __future__ import annotations

import os
import time

import pytest

from clustersh.wire import link
from clustersh.wire.jobs import Outcome, State
from tests.hostile.attackers import Mallory, RawLink, ask_for_run, call, start_job
from tests.real.programs import Cluster

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\r\n\u202eevil\x00"
RAW = (b"\x1b", b"\x07", b"\x9b", b"\r", "\u202e".encode(), b"\xc2\x9b")
COMMAND = "echo a; : '\x1b]0;owned\x07\x1b[2J\u202e\r'"


def clean(*shown: bytes) -> None:
    for text in shown:
        assert not [raw for raw in RAW if raw in text], text


def test_commands_with_escape_sequences_are_shown_without_them(cluster: Cluster) -> None:
    assert cluster.sh("run", "ws1", COMMAND).status == 0
    for done in (
        cluster.sh("history"),
        cluster.sh(),
        cluster.coordinator.run("clusterd", "audit"),
        cluster.agent.run("clusteragent", "status"),
    ):
        assert done.status == 0, done
        assert done.stdout
        clean(done.stdout, done.stderr)
    assert b"\x1b" not in cluster.sh("history", "--json").stdout
    clean(cluster.coordinator.log.read_bytes(), cluster.agent.log.read_bytes())


def test_errors_that_repeat_what_was_typed_are_clean(cluster: Cluster) -> None:
    typed = "\x1b[2J\u202ews1"
    for words in (
        ("run", typed, "true"),
        ("run", "ws1", "--cwd", typed, "true"),
        ("history", typed),
        ("cat", "ws1", typed),
        ("login", f"http://{typed}"),
        ("run", "ws1", "--timeout", typed, "true"),
        ("run", "--file", typed, "ws1", "true"),
        (typed,),
    ):
        done = cluster.sh(*words)
        assert done.status != 0, (words, done)
        clean(done.stderr, done.stdout)


def test_an_output_is_the_users_own(cluster: Cluster) -> None:
    assert cluster.sh("run", "ws1", r"printf '\033[31mred\033[0m\a'").stdout == b"\x1b[31mred\x1b[0m\a"


def _lies(mallory: Mallory) -> RawLink:
    """Return a link whose agent says nothing but escapes of itself."""
    linked = mallory.link()
    facts = link.Facts(*[ESCAPES] * 5)
    linked.send(link.Hello(ESCAPES, ESCAPES, ESCAPES, time.clock_gettime(time.CLOCK_BOOTTIME), facts))
    assert isinstance(linked.next(), link.Welcome)
    return linked


def test_what_a_lying_agent_says_of_itself_and_its_jobs_is_shown_clean(cluster: Cluster, mallory: Mallory) -> None:
    linked = _lies(mallory)
    job = start_job(cluster, linked)
    linked.send(link.Ended(job.uuid, Outcome(State.NOT_STARTED, reason=ESCAPES)))
    cluster.until_job(job.uuid, "not-started")
    for done in (
        cluster.sh("machines"),
        cluster.sh("history", "mallory"),
        cluster.sh("wait", job.uuid),
        cluster.sh(),
        cluster.coordinator.run("clusterd", "audit"),
    ):
        clean(done.stdout, done.stderr)
    reader = cluster.client.open("clustersh", "cat", "mallory", job.uuid)
    reader.communicate(timeout=30)
    linked.close()
    linked = _lies(mallory)  # nobody answered the coordinator's pings meanwhile
    second = start_job(cluster, linked)
    reader = cluster.client.open("clustersh", "cat", "mallory", second.uuid)
    for _ in ("the quick way", "the full way"):
        while not isinstance(asked := linked.next(), link.Read):
            pass
        linked.send(link.Failed(asked.request, ESCAPES, ESCAPES))
    out, err = reader.communicate(timeout=30)
    assert reader.returncode != 0 and b"owned" in err
    clean(out, err)
    linked.send(link.Ended(second.uuid, Outcome.exited(0)))
    cluster.until_job(second.uuid, "completed")
    linked.close()
    clean(cluster.coordinator.log.read_bytes())


@pytest.mark.parametrize("name", ["\x1b[2J", "ws1\n", "a\u202eb", "..", "all", "a" * 65, "a/b", ""])
def test_a_name_that_steers_is_refused_at_enrollment_and_login(cluster: Cluster, name: str) -> None:
    enrolled = cluster.coordinator.run("clusteragent", "enroll", f"http://{cluster.address}", "--name", name)
    assert enrolled.status == 125 or name == "ws1\n", enrolled
    clean(enrolled.stderr, enrolled.stdout)


def test_targets_keys_and_environments_with_escapes_are_clean_in_audit_and_log(cluster: Cluster) -> None:
    folder = cluster.client.path / "client"
    refused = ask_for_run(cluster, folder, target=ESCAPES, command={"argv": ["echo", "\x1b[2J"]})
    assert (refused.status, refused.problem) == (400, "bad-request")
    done = ask_for_run(
        cluster, folder, target="ws1", command={"argv": ["true", "\x1b[2J"]}, env={"A\x1b[2J": "1"}, cwd="/"
    )
    assert done.status in (200, 400), done
    headers = {"Idempotency-Key": "\x1b[2J" + os.urandom(4).hex(), "Content-Type": "application/json"}
    body = b'{"target":"ws1","command":{"shell":"true"}}'
    assert call(cluster, folder, "POST", "/v1/runs", body, headers).problem == "bad-request"
    audit = cluster.coordinator.run("clusterd", "audit")
    clean(audit.stdout, audit.stderr, cluster.coordinator.log.read_bytes(), cluster.agent.log.read_bytes())
