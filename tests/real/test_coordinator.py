"""The coordinator alone, as a real program."""

from __future__ import annotations

from pathlib import Path

from .programs import Cluster, end, eventually, make_home


def test_a_damaged_ledger_ends_the_coordinator_with_one_line(tmp_path: Path) -> None:
    home = make_home(tmp_path, "coordinator")
    process = home.start("clusterd", "--listen", "127.0.0.1:0")
    home.address()
    end(process)
    [file] = (home.path / "coordinator" / "ledger").glob("*.jsonl")
    whole = file.read_bytes()
    file.write_bytes(b"x" + whole + whole)
    answer = home.run("clusterd", "--listen", "127.0.0.1:0", seconds=20)
    assert answer.status == 1
    assert "ERROR: " in answer.err and file.name in answer.err and "Traceback" not in answer.err


def test_an_admin_certificate_that_is_made_again_ends_the_old_one(tmp_path: Path) -> None:
    home = make_home(tmp_path, "coordinator")
    process = home.start("clusterd", "--listen", "127.0.0.1:0")
    home.address()
    end(process)
    admin = home.path / "coordinator" / "admin"
    stolen = {path.name: path.read_bytes() for path in admin.iterdir()}
    for path in admin.iterdir():
        path.unlink()
    home.start("clusterd", "--listen", "127.0.0.1:0")
    home.address()
    assert home.run("clusterd", "pending").status == 0
    for name, content in stolen.items():
        (admin / name).write_bytes(content)
    refused = home.run("clusterd", "pending")
    assert refused.status != 0 and "revoked" in refused.err, refused
    home.stop()


def test_a_coordinator_that_stops_lets_agents_take_in_what_it_said_last(own_cluster: Cluster) -> None:
    journal = own_cluster.agent.path / "agent" / "journal"
    for count in range(1, 6):
        assert own_cluster.sh("run", "ws1", "true").status == 0
        end(own_cluster.coordinator_process)
        told = 'acknowledged","uuid'
        eventually(lambda: journal.read_text().count(told) == count, 5, "the last end acknowledged")  # noqa: B023
        own_cluster.restart_coordinator()
        own_cluster.until_status("ws1", "online")
