"""Joining by a token, under another name, and leaving: the real programs, whose coordinator lets in by tokens only."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from clustersh.trust.authority import Authority
from clustersh.trust.identity import certificate_sha256

from .programs import Home, Result, end, eventually, log_in, make_home


@dataclass
class Site:
    """A coordinator with `policy = "token"`, its admin's terminal, and room for machines."""

    folder: Path
    coordinator: Home
    address: str

    def admin(self, *words: str) -> Result:
        done = self.coordinator.run("clusterd", *words)
        assert done.status == 0, done
        return done

    def token(self, *words: str) -> str:
        """Make a token, as a script does."""
        return str(self.admin("token", "create", "--json", *words).json["token"])

    def machine(self, name: str) -> Home:
        return make_home(self.folder, name)

    def names(self) -> list[str]:
        return [each["name"] for each in self.admin("machines", "--json").json["machines"]]

    def used(self, token: str) -> tuple[str, int]:
        id_ = token.partition("-")[0]
        listed = self.admin("token", "list", "--json").json["tokens"]
        return next((each["status"], each["used"]) for each in listed if each["id"] == id_)

    def records(self, kind: str) -> list[dict[str, object]]:
        return [each for each in self.admin("audit", "--json").json["records"] if each["is"] == kind]

    def kept(self) -> bytes:
        """Everything that the coordinator has written anywhere, its keys left out."""
        files = [path for path in self.coordinator.path.rglob("*") if path.is_file() and path.suffix != ".key"]
        return b"".join(path.read_bytes() for path in [*files, self.coordinator.log])


def enroll(site: Site, machine: Home, name: str, token: str = "", *words: str) -> Result:
    environ = {"CLUSTERSH_TOKEN": token} if token else {}
    return machine.run("clusteragent", "enroll", site.address, "--name", name, *words, environ=environ)


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and ") Z " not in stat.read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    coordinator = make_home(folder, "coordinator")
    coordinator.path.mkdir(mode=0o700)
    (coordinator.path / "config.toml").write_text('[enrollment]\npolicy = "token"\n')
    coordinator.start("clusterd", "--listen", "127.0.0.1:0")
    try:
        yield Site(folder, coordinator, coordinator.address())
    finally:
        coordinator.stop()


@pytest.fixture
def machine(site: Site, request: pytest.FixtureRequest) -> Iterator[Home]:
    home = site.machine(request.node.name)
    yield home
    home.stop()


def test_a_token_lets_a_machine_in_and_its_secret_is_nowhere(site: Site, machine: Home) -> None:
    created = site.admin("token", "create", "--ttl", "1h")
    token = created.out.strip()
    assert "lets 1 machine in until " in created.err and "policy" not in created.err
    assert enroll(site, machine, "secret1", token).status == 0
    assert site.used(token) == ("used-up", 1)
    refused = enroll(site, site.machine("secret2"), "secret2", token)
    assert refused.status == 125, refused
    assert refused.err == (
        f"ERROR: the join token {token[:12]} is used up: it was for 1 machine\n"
        "hint: get another, on the coordinator: clusterd token create\n"
    )
    (record,) = [each for each in site.records("enrolled") if each["name"] == "secret1"]
    assert (record["approved_by"], record["token"]) == ("token", token[:12])
    listed = site.admin("token", "list").out + site.admin("audit").out
    assert token[:12] in listed
    secret = token[13:].encode()
    assert secret not in site.kept() + listed.encode() and bytes.fromhex(token[13:]) not in site.kept()
    assert all(secret not in path.read_bytes() for path in machine.path.rglob("*") if path.is_file())


def test_without_a_token_it_is_refused_and_may_be_approved(site: Site, machine: Home) -> None:
    refused = enroll(site, machine, "approved")
    assert refused.status == 125 and refused.seconds < 20, refused
    assert refused.err.startswith(f"ERROR: the coordinator at {site.address} lets machines in by a join token")
    assert "clusterd token create" in refused.err
    site.admin("approve", refused.err.partition("clusterd approve ")[2].split()[0])
    assert enroll(site, machine, "approved").status == 0
    assert "approved" in site.names()


def test_of_machines_that_race_for_one_use_exactly_one_gets_in(site: Site) -> None:
    token = site.token("--uses", "1")
    homes = [site.machine(f"racer{number}") for number in range(4)]
    for home in homes:
        home.environ["CLUSTERSH_TOKEN"] = token
    racing = [home.open("clusteragent", "enroll", site.address, "--name", home.path.parent.name) for home in homes]
    ended = [(process.communicate(timeout=60), process.returncode) for process in racing]
    assert sorted(status for _, status in ended) == [0, 125, 125, 125], ended
    assert sum(b"is used up" in err for (_, err), _ in ended) == 3
    assert len([name for name in site.names() if name.startswith("racer")]) == 1
    assert len([each for each in site.records("enrolled") if each.get("token") == token[:12]]) == 1
    assert site.used(token) == ("used-up", 1)


def test_a_token_ends_by_the_coordinators_clock_or_is_revoked(site: Site, machine: Home) -> None:
    short, revoked = site.token("--ttl", "1s"), site.token()
    assert site.admin("token", "revoke", revoked).out == f"Revoked the token {revoked[:12]}.\n"
    late = enroll(site, machine, "late", revoked)
    assert (late.status, f"the join token {revoked[:12]} was revoked" in late.err) == (125, True), late
    eventually(lambda: site.used(short)[0] == "expired")
    late = enroll(site, machine, "late", short)
    assert (late.status, "by the coordinator's clock" in late.err) == (125, True), late
    assert "late" not in site.names()
    again = site.coordinator.run("clusterd", "token", "revoke", revoked[:12])
    assert (again.status, "was revoked already" in again.err) == (125, True)


def test_a_name_that_is_taken_comes_with_a_free_one(site: Site, machine: Home) -> None:
    token = site.token("--uses", "2")
    assert enroll(site, site.machine("first"), "taken", token).status == 0
    refused = enroll(site, machine, "taken", token)
    assert refused.err == (
        "ERROR: the name taken belongs to another key\n"
        "hint: this one is free: --name taken-2\n"
        "hint: or take taken over: on the coordinator, clusterd forget taken\n"
    )
    assert enroll(site, machine, "taken-2", token).status == 0
    assert site.used(token) == ("used-up", 2)


def test_a_pinned_ca_is_the_only_one_that_is_trusted(site: Site, machine: Home) -> None:
    pin = certificate_sha256(Authority.load(site.coordinator.path / "coordinator").certificate)
    token = site.token()
    refused = enroll(site, machine, "pinned", token, "--ca", "0" * 64)
    assert refused.status == 125 and "is not the coordinator that --ca names" in refused.err, refused
    machine.path.mkdir(exist_ok=True)
    (machine.path / "config.toml").write_text(f'[join]\ncoordinator = "{site.address}"\nca = "{pin}"\n')
    done = machine.run("clusteragent", "enroll", "--name", "pinned", environ={"CLUSTERSH_TOKEN": token})
    assert done.out == f"Enrolled as pinned, with the coordinator at {site.address}.\n", done


def test_another_name_in_the_configuration_renames_once_it_is_allowed(site: Site, machine: Home) -> None:
    client = site.machine("renaming-client")
    assert enroll(site, machine, "oldname", site.token()).status == 0
    log_in(site.coordinator, client, site.address, "ann@box")
    machine.path.joinpath("config.toml").write_text('[agent]\nname = "newname"\nenvironment = "service"\n')
    machine.start("clusteragent")
    said = eventually(lambda: machine.log.read_text() if "clusterd approve " in machine.log.read_text() else "")
    assert "[agent] name is newname, and this machine goes on as oldname: to allow newname" in said
    assert machine.run("clusteragent", "status", "--wait", "60s").status == 0
    assert client.sh("run", "oldname", "echo before").out == "before\n"
    client.sh("groups", "add", "mine", "oldname")
    uuid = client.sh("run", "--detach", "oldname", "echo begun; sleep 600").out.strip()
    site.admin("approve", said.partition("clusterd approve ")[2].split()[0])
    assert client.sh("run", "newname", "echo after").out == "after\n", "its link stays"
    assert client.sh("run", "oldname", "true").status == 125
    assert client.sh("history", "oldname").out.count("echo before") == 1, "its history stays"
    for target, header in (("newname", ""), ("oldname", ""), ("@mine", "oldname")):
        found = eventually(lambda target=target: client.sh("cat", target, uuid).out, what=target)
        assert found.startswith(header) and found.endswith("begun\n")
    assert client.sh("cancel", "--dry-run", "@mine", uuid).status == 0
    assert client.sh("cancel", "newname", uuid).out == "Command cancelled.\n"
    (renamed,) = site.records("renamed")
    assert (renamed["before"], renamed["name"], renamed["approved_by"]) == ("oldname", "newname", "admin")
    assert renamed["id"] == next(each["id"] for each in site.records("enrolled") if each["name"] == "oldname")
    assert "renamed" in site.admin("audit", "--machine", "oldname").out
    eventually(lambda: '"newname"' in (machine.path / "agent" / "agent.json").read_text())
    stray = site.folder / "stray"
    command = f"(setsid sh -c 'echo $$ >{stray}.new; mv {stray}.new {stray}; exec sleep 600' &); sleep 600"
    assert client.sh("run", "--detach", "newname", command).status == 0
    pid = int(eventually(lambda: stray.exists() and stray.read_text()))
    machine.services[-1].send_signal(signal.SIGKILL)
    machine.services[-1].wait()
    machine.start("clusteragent")
    eventually(lambda: not alive(pid), what="what was started under its old name is ended, too")
    assert machine.run("clusteragent", "status", "--wait", "60s").status == 0
    assert client.sh("run", "newname", "echo $CLUSTERSH_MACHINE").out == "newname\n"
    assert len(site.records("renamed")) == 1


def test_a_machine_that_leaves_frees_its_name_and_its_key_is_gone(site: Site, machine: Home) -> None:
    token = site.token("--uses", "2")
    assert enroll(site, machine, "leaver", token).status == 0
    process = machine.start("clusteragent")
    assert machine.run("clusteragent", "status", "--wait", "60s").status == 0
    (row,) = [line for line in site.admin("machines").out.splitlines() if line.startswith("leaver")]
    columns = [column.strip() for column in row.split("|")]
    assert columns[2:5] == ["online", "now", "0.1.0"] and len(columns[-1]) == 64, row
    busy = machine.run("clusteragent", "leave")
    assert busy.status == 125 and f"in use by process {process.pid}" in busy.err and "stop the agent first" in busy.err
    end(process)
    left = machine.run("clusteragent", "leave")
    assert (left.status, left.out) == (0, "leaver has left; its key is deleted.\n"), left
    assert "leaver" not in site.names()
    assert [each["by"] for each in site.records("forgotten") if each["name"] == "leaver"] == ["itself"]
    assert list((machine.path / "agent").glob("*.pem")) == []
    assert machine.run("clusteragent", "leave", "--purge").status == 0
    assert not (machine.path / "agent").exists()
    assert enroll(site, machine, "leaver", token).status == 0


def test_who_logs_out_is_trusted_no_more(site: Site, machine: Home) -> None:
    log_in(site.coordinator, machine, site.address, "bob@box")
    done = machine.sh("logout")
    assert (done.status, done.out, done.err) == (0, "Logged out; the key is deleted.\n", "")
    (client,) = [each for each in site.admin("clients", "--json").json["clients"] if each["name"] == "bob@box"]
    assert client["revoked"] is not None
    log_in(site.coordinator, machine, site.address, "bob@box")


def test_uses_are_counted_over_a_kill_and_a_restart(site: Site, machine: Home) -> None:
    """Last, since the coordinator gets another address."""
    token = site.token("--uses", "2")
    assert enroll(site, site.machine("before"), "before", token).status == 0
    site.coordinator.services[-1].send_signal(signal.SIGKILL)
    site.coordinator.services[-1].wait()
    began = time.monotonic()
    site.coordinator.start("clusterd", "--listen", site.address)
    eventually(lambda: site.coordinator.running("coordinator").get("pid") == site.coordinator.services[-1].pid)
    assert time.monotonic() - began < 30
    assert site.used(token) == ("usable", 1)
    assert enroll(site, machine, "after", token).status == 0
    assert site.used(token) == ("used-up", 2)
