"""The coordinator alone, as a real program."""

from __future__ import annotations

from pathlib import Path

from .programs import end, make_home


def test_a_damaged_ledger_ends_the_coordinator_with_one_line(tmp_path: Path) -> None:
    home = make_home(tmp_path, "coordinator")
    process = home.start("clusterd", "--listen", "127.0.0.1:0")
    home.address()
    end(process)
    [file] = (home.path / "coordinator" / "ledger").iterdir()
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
