"""Targets, groups, labels and facts with real machines: what users type, and what comes of it."""

from __future__ import annotations

import platform
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from .examples import check_example, examples_of
from .many import Fleet, make_fleet
from .programs import Result, end

pytestmark = pytest.mark.real
NAMES = ("web01", "web02", "web03", "db1")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    made = make_fleet(tmp_path_factory.mktemp("fleet"), NAMES)
    yield made
    made.stop()


def ok(result: Result) -> Result:
    assert result.status == 0, (result.out, result.err)
    return result


def meant(fleet: Fleet, target: str, exclude: str = "") -> list[str]:
    """What a target means, asked over REST: that is quick."""
    status, view = fleet.call("GET", f"/v1/targets?{urlencode({'target': target, 'exclude': exclude})}")
    assert status == 200, view
    return list(view["machines"])


def left_out(fleet: Fleet, names: str, number: int, hint: str) -> str:
    """Check that everything tells of the *number* new machines that ``all`` does not mean; return a run's uuid."""
    told = f"{number} new, left out ({names})\n{hint}"
    for words in (("targets", "all"), ("check", "all"), ("run", "all", "true"), ("run", "--json", "all", "true")):
        done = ok(fleet.sh(*words))
        assert told in done.err and done.err.count("hint:") == 1, done.err
    planned = ok(fleet.sh("run", "--dry-run", "all", "true"))
    assert f"leaves out: {names}: new\n" in planned.out and planned.err.startswith(hint), planned
    plain = ok(fleet.sh("run", "db1", "true"))
    assert plain.err == "", "a plain name means one machine"
    return str(done.json["uuid"])


def crash(fleet: Fleet) -> None:
    """kill -9 the coordinator and start it without its index."""
    end(next(each for each in fleet.coordinator.services if each.poll() is None), signal.SIGKILL)
    for path in (fleet.coordinator.path / "coordinator").glob("index.sqlite*"):
        path.unlink()
    fleet.restart_coordinator()
    fleet.until("online", fleet.agents)


def test_the_history_of_a_target(fleet: Fleet) -> None:
    ok(fleet.sh("run", "web01,web02,db1", "echo first"))
    ok(fleet.sh("run", "db1", "echo second"))
    rows = ok(fleet.sh("history", "web*")).out.splitlines()[2:]
    assert re.search(r" \| echo first +\| 2 completed +\| web\[01-02\]$", rows[0]), rows
    assert not any("second" in row for row in rows)
    jobs = ok(fleet.sh("history", "db1,web02", "--limit", "2", "--json")).json["jobs"]
    assert [(job["machine"], job["command"]) for job in jobs] == [
        ("db1", "echo second"),
        ("db1", "echo first"),
        ("web02", "echo first"),
    ]
    wrong = fleet.sh("history", "@wbe")
    assert (wrong.status, wrong.err.splitlines()[0]) == (125, "ERROR: no group is called @wbe")


def test_machines_are_new_until_they_are_named_or_accepted_and_forgotten_ones_are_gone(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path, ("db1", "ws1", "ws2", "ws3"), new_machines="wait")
    try:
        nobody = fleet.sh("targets", "all")
        assert nobody.status == 125
        assert nobody.err.splitlines()[0] == "ERROR: 'all' is no machine now"
        assert "hint: 4 machines match, but nobody has named or accepted any yet: clustersh targets @new" in nobody.err
        assert meant(fleet, "@new") == ["db1", "ws1", "ws2", "ws3"]
        assert ok(fleet.coordinator.run("clusterd", "accept", "db1")).out == "Accepted db1.\n"
        assert meant(fleet, "all") == ["db1"]
        left_out(fleet, "ws[1-3]", 3, "hint: new machines (clustersh targets @new) are used once a run, ")
        ok(fleet.sh("groups", "add", "web", "ws1", "--dry-run"))
        assert meant(fleet, "all") == ["db1"], "a dry run touches nothing"
        ok(fleet.sh("groups", "add", "web", "ws1"))
        assert meant(fleet, "all") == ["db1", "ws1"]
        ok(fleet.sh("run", "ws2", "true"))
        assert meant(fleet, "all") == ["db1", "ws1", "ws2"]
        uuid = left_out(fleet, "ws3", 1, "hint: ws3 is used once a run, group or label names it, ")
        ok(fleet.sh("run", "ws1,ws3", "true"))
        assert meant(fleet, "all") == ["db1", "ws1", "ws2", "ws3"]
        audit = ok(fleet.coordinator.run("clusterd", "audit")).out
        assert re.search(r"accepted +\| admin +\| db1", audit), audit
        assert [re.search(rf"accepted +\| \S+@\S+ +\| {name}", audit) is not None for name in ("ws1", "ws3")] == [
            True
        ] * 2
        unknown = fleet.coordinator.run("clusterd", "accept", "db2")
        assert (unknown.status, unknown.err.splitlines()[0]) == (125, "ERROR: no machine is called 'db2'")

        ok(fleet.sh("groups", "add", "web", "ws2"))
        ok(fleet.sh("label", "ws2", "old=yes"))
        ok(fleet.coordinator.run("clusterd", "forget", "ws2"))
        fleet.agents.pop("ws2").stop()
        crash(fleet)
        assert meant(fleet, "all") == ["db1", "ws1", "ws3"], "the ledger has it"
        assert ok(fleet.sh("wait", uuid)).err.startswith("3 completed, 1 new, left out (ws3)\n"), "this too"
        assert meant(fleet, "@web") == ["ws1"]
        assert fleet.call("GET", "/v1/targets?target=@old:yes")[0] == 404
    finally:
        fleet.stop()


def test_the_documented_examples(fleet: Fleet, tmp_path: Path) -> None:
    """One after the other: the later ones are about what the earlier ones did."""
    ok(fleet.sh("run", ",".join(NAMES), "true"))  # who was named is no new machine
    for example in examples_of("targets.md"):
        check_example(fleet, example, tmp_path)
    ok(fleet.sh("groups", "delete", "web"))
    ok(fleet.sh("label", "all", "gpu-"))


def test_groups(fleet: Fleet) -> None:
    added = ok(fleet.sh("groups", "add", "Rack7", "web0[1-2],db*"))
    assert added.out == "Added to @rack7: db1, web01, web02.\n"
    assert ok(fleet.sh("groups", "add", "rack7", "db1")).out == "Nothing to change: db1 is in @rack7.\n"
    assert meant(fleet, "@rack7", "web*") == ["db1"]
    assert ok(fleet.sh("groups", "remove", "@rack7", "db1,web01")).out == "Removed from @rack7: db1, web01.\n"
    listed = ok(fleet.sh("groups"))
    assert re.search(r"^@rack7 +\| 1 +\| web02$", listed.out, re.MULTILINE), listed.out
    assert "Would delete @rack7, which had 1 machine." in ok(fleet.sh("groups", "delete", "rack7", "--dry-run")).out
    assert ok(fleet.sh("groups", "delete", "rack7", "--json")).json["changed"] == ["web02"]
    gone = fleet.sh("targets", "@rack7")
    assert (gone.status, gone.err.splitlines()[0]) == (125, "ERROR: no group is called @rack7")
    for words in (("add", "online", "web01"), ("add", "bad name", "web01"), ("add", "x"), ("delete", "nobody")):
        assert fleet.sh("groups", *words).status == 125, words


def test_labels_and_facts(fleet: Fleet) -> None:
    assert ok(fleet.sh("label", "web01", "gpu=Yes", "rack=7")).out == "Labelled gpu=yes rack=7: web01.\n"
    assert meant(fleet, "@gpu:yes") == ["web01"]
    assert "Would be labelled rack-: web01." in ok(fleet.sh("label", "@rack:7", "rack-", "--dry-run")).out
    assert meant(fleet, "@rack:7") == ["web01"]
    ok(fleet.sh("label", "@rack:7", "rack-"))
    assert fleet.sh("targets", "@rack:7").status == 125
    assert re.search(r"^web01 +\| gpu=yes$", ok(fleet.sh("label")).out, re.MULTILINE)
    refused = fleet.sh("label", "web01", "os=linux")
    assert refused.status == 125
    assert "'os' is what machines say of themselves" in refused.err
    python = ".".join(platform.python_version_tuple()[:2])
    assert meant(fleet, "@os:linux") == meant(fleet, f"@python:{python}") == sorted(NAMES)
    (machine, *_) = ok(fleet.sh("machines", "--json")).json["machines"]
    facts = machine["facts"]
    assert (facts["os"], facts["kernel"]) == ("linux", platform.release())
    assert facts["cpus"] > 0 and facts["memory"] > 1 << 20
    assert facts["distribution"].startswith(platform.freedesktop_os_release()["ID"])


def test_groups_and_labels_outlive_a_crash_and_the_index(fleet: Fleet) -> None:
    ok(fleet.sh("groups", "add", "kept", "web01,db1"))
    ok(fleet.sh("label", "db1", "tier=test"))
    crash(fleet)
    assert meant(fleet, "@kept") == ["db1", "web01"]
    assert meant(fleet, "@tier:test") == ["db1"]


def test_two_clients_at_once_lose_nothing(fleet: Fleet) -> None:
    names = [f"g{number}" for number in range(4)]
    started = [
        fleet.client.open("clustersh", "groups", "add", name, machine)
        for name in names
        for machine in ("web01", "web02")
    ]
    for process in started:
        assert process.wait(60) == 0
        end(process)
    groups = {each["name"]: each["machines"] for each in ok(fleet.sh("groups", "--json")).json["groups"]}
    assert {name: groups[name] for name in names} == {name: ["web01", "web02"] for name in names}


def test_typos_and_what_matches_nothing(fleet: Fleet) -> None:
    typo = fleet.sh("targets", "web*!wbe01")
    assert typo.status == 125
    assert typo.err.splitlines()[0] == "ERROR: no machine is called 'wbe01'"
    assert typo.err.splitlines()[1].startswith("hint: did you mean web01")
    assert fleet.sh("targets", "all", "-x", "wbe01", "--json").json["error"]["type"] == "unknown-machine"
    nothing = fleet.sh("targets", "web*", "-x", "all", "--json")
    assert (nothing.status, nothing.json["error"]["type"]) == (125, "empty-target")
    assert "3 machines match, but all are excluded" in nothing.json["error"]["hint"]


def test_online_and_offline(fleet: Fleet) -> None:
    fleet.stop_agent("db1")
    assert (meant(fleet, "@online"), meant(fleet, "@offline")) == (["web01", "web02", "web03"], ["db1"])
    shown = ok(fleet.sh("targets", "all"))
    assert re.search(r"^db1 +\| offline\b", shown.out, re.MULTILINE)
    assert shown.err == "db1,web[01-03]: 4 machines, 3 online\n"
    fleet.start_agents("db1")
    assert meant(fleet, "@online") == sorted(NAMES)


SSHSYNC = """
groups:
  web: [web01, WEB01, nobody]
  no: [db1]
  "Web Servers": [web01]
  empty: []
unrelated: {x: 1}
"""


@pytest.mark.parametrize("name", ["config.yml", "config.yaml"])
def test_the_groups_of_sshsync_are_imported_once(fleet: Fleet, name: str) -> None:
    folder = fleet.client.path.parent / ".config" / "sshsync"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(SSHSYNC)
    try:
        would = ok(fleet.sh("groups", "import-sshsync", "--dry-run"))
        assert "Would be added to @no: db1." in would.out
        done = ok(fleet.sh("groups", "import-sshsync"))
        assert "Added to @no: db1." in done.out
        assert "@web: no machine is called nobody" in done.err
        assert "Web Servers was left out: 'Web Servers' can't be a group's name" in done.err
        again = ok(fleet.sh("groups", "import-sshsync", "--json")).json
        assert [each["changed"] for each in again["groups"]] == [[], []]
        assert meant(fleet, "@no") == ["db1"]
        ok(fleet.sh("groups", "delete", "no"))
    finally:
        (folder / name).unlink()
