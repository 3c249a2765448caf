"""File lists made by a hostile client: refused before anything is put anywhere."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.hostile.attackers import Answer, ask_for_run, call, still_serves, watched
from tests.real.programs import Cluster

CONTENT = b"content"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = {"kind": "file", "sha256": SHA256, "size": len(CONTENT)}
FOLDER = {"kind": "folder", "mode": 0o700}


def upload(cluster: Cluster, content: bytes) -> str:
    name = hashlib.sha256(content).hexdigest()
    answer = call(cluster, cluster.client.path / "client", "PUT", f"/v1/blobs/{name}", content)
    assert answer.status == 204, answer
    return name


def run_with(cluster: Cluster, entries: list[dict[str, Any]], command: str = "ls -lR", **asked: Any) -> Answer:
    """Upload a manifest of *entries* and ask for a run with it."""
    upload(cluster, CONTENT)
    manifest = msgspec.msgpack.encode({"entries": entries})
    name = upload(cluster, manifest)
    files = {"sha256": name, "size": len(manifest)}
    folder = cluster.client.path / "client"
    return ask_for_run(cluster, folder, target="ws1", command={"shell": command}, files=files, **asked)


def link_to(target: bytes) -> dict[str, Any]:
    return {"path": b"link", "kind": "symlink", "target": target}


HOSTILE = {
    "up": [{"path": b"../evil", **FILE}],
    "up in the middle": [{"path": b"a", **FOLDER}, {"path": b"a/../../evil", **FILE}],
    "absolute": [{"path": b"/tmp/evil", **FILE}],
    "empty": [{"path": b"", **FILE}],
    "a dot": [{"path": b"./evil", **FILE}],
    "two slashes": [{"path": b"a", **FOLDER}, {"path": b"a//b", **FILE}],
    "a NUL": [{"path": b"evil\0", **FILE}],
    "twice": [{"path": b"a", **FILE}, {"path": b"a", **FILE}],
    "under a file": [{"path": b"a", **FILE}, {"path": b"a/b", **FILE}],
    "a symlink up": [link_to(b"../../..")],
    "an absolute symlink": [link_to(b"/etc")],
    "a symlink up through a name": [{"path": b"a", **FOLDER}, link_to(b"a/../../x")],
    "under a symlink": [{"path": b"a", **FOLDER}, link_to(b"a"), {"path": b"link/b", **FILE}],
    "a file over a symlink": [link_to(b"a"), {"path": b"link", **FILE}],
    "a device": [{"path": b"null", "kind": "device"}],
    "a fifo": [{"path": b"fifo", "kind": "fifo"}],
    "a hard link": [{"path": b"hard", "kind": "hardlink", "target": b"/etc/passwd"}],
    "no content": [{"path": b"a", "kind": "file"}],
    "a name for its content that leads out": [{"path": b"a", **FILE, "sha256": "../../agent/key.pem"}],
    "a negative size": [{"path": b"a", **FILE, "size": -1}],
    "an odd mode": [{"path": b"a", **FILE, "mode": 0o170777}],
    "too many": [{"path": b"%d" % number, **FOLDER} for number in range(100_001)],
    "a missing folder": [{"path": b"a/b", **FILE}],
    "an unknown field": [{"path": b"a", **FILE, "owner": 0}],
}


@pytest.mark.parametrize("entries", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_list_that_leads_out_is_refused_by_the_coordinator(cluster: Cluster, entries: list[dict[str, Any]]) -> None:
    answer = run_with(cluster, entries)
    assert (answer.status, answer.problem) == (400, "bad-request"), answer
    assert not Path("/tmp/evil").exists()


def test_a_list_that_is_none_or_names_what_is_not_there_is_refused(cluster: Cluster) -> None:
    folder = cluster.client.path / "client"
    for content in (b"", b"\xc1", os.urandom(100), b"\x91" * 100_000):
        files = {"sha256": upload(cluster, content), "size": len(content)}
        answer = ask_for_run(cluster, folder, target="ws1", command={"shell": "ls"}, files=files)
        assert (answer.status, answer.problem) == (400, "bad-request"), answer
    missing = run_with(cluster, [{"path": b"a", **FILE, "sha256": "0" * 64}])
    assert (missing.status, missing.problem) == (404, "unknown-blob"), missing


def test_a_size_that_is_a_lie_starts_nothing(cluster: Cluster) -> None:
    answer = run_with(cluster, [{"path": b"a", **FILE, "size": 5}], "echo ran")
    (job,) = msgspec.json.decode(answer.content)["jobs"]
    assert job["status"] == "not-started", job
    assert "stdout" not in job or job["stdout"] == ""


def test_names_that_are_not_utf8_and_odd_modes_arrive_as_they_are(cluster: Cluster) -> None:
    """All legal: bytes as names, a name with a newline, escapes; setuid is dropped; links inside are kept."""
    entries = [
        {"path": b"\xff\xfe", **FILE, "mode": 0o4755},
        {"path": b"new\nline", **FILE},
        {"path": b"\x1b[2J", **FOLDER},
        {"path": b"\x1b[2J/deep", "kind": "symlink", "target": b"../\xff\xfe"},
    ]
    command = "cat $'\\xff\\xfe' $'new\\nline' $'\\x1b[2J/deep'; stat -c %a $'\\xff\\xfe'; ls -b"
    answer = run_with(cluster, entries, command)
    assert answer.status == 200, answer
    (job,) = msgspec.json.decode(answer.content)["jobs"]
    assert job["stdout"].startswith("content" * 3 + "755\n"), job
    assert "\\377\\376" in job["stdout"], job


def _pipe(top: Path) -> Path:
    os.mkfifo(top / "pipe")
    return top


def _socket(top: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(top / "socket"))
    return top


def _device(top: Path) -> Path:
    return Path("/dev/null")


def _device_behind_a_link(top: Path) -> Path:
    (top / "link").symlink_to("/dev/zero")
    return top / "link"


def _link_up(top: Path) -> Path:
    (top / "link").symlink_to("../../etc")
    return top


def _link_to_a_key(top: Path) -> Path:
    (top / "link").symlink_to(top.parent / "client" / "key.pem")
    return top


def _closed(top: Path) -> Path:
    (top / "closed").touch(mode=0)
    return top


CANT_BE_SENT = {
    _pipe: "is a named pipe",
    _socket: "is a socket",
    _device: "is a device",
    _device_behind_a_link: "is a device",
    _link_up: "leads out",
    _link_to_a_key: "leads out",
    _closed: "Permission denied",
}


@pytest.mark.parametrize("made", CANT_BE_SENT)
def test_what_a_client_cant_send_starts_nothing(cluster: Cluster, tmp_path: Path, made: Callable[[Path], Path]) -> None:
    top = tmp_path / "top"
    top.mkdir()
    refused = cluster.sh("run", "--file", str(made(top)), "ws1", "echo ran")
    assert (refused.status, refused.out) == (125, ""), refused
    assert refused.err.startswith("ERROR: ") and CANT_BE_SENT[made] in refused.err, refused


def test_a_huge_but_allowed_count_of_folders_costs_bounded_memory(cluster: Cluster) -> None:
    entries = [{"path": b"%d" % number, **FOLDER} for number in range(4_000)]
    with watched(cluster, "4,000 entries") as seen:
        answer = run_with(cluster, entries, "ls | wc -l")
    (job,) = msgspec.json.decode(answer.content)["jobs"]
    assert job["stdout"] == "4000\n", job
    assert seen.grown_mib < 96
    assert seen.slowest_s < 5
    still_serves(cluster)
