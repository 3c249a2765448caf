"""The package index: names are chosen from a list, and every file comes whole, in part, or not at all."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
import pytest_twisted

from clustersh.coordinator.own_wheel import OwnWheel, OwnWheelError
from clustersh.coordinator.package_index import HTML, JSON, index_of
from clustersh.coordinator.packages import Packages
from clustersh.coordinator.rest_packages import PIECE, PackageCalls
from clustersh.coordinator.wheelhouse import Contents, Fill, HeldWheel, Wheelhouse
from clustersh.home import private_folder
from clustersh.trust.identity import Role

from .conftest import Front, Opener

CONTENT = bytes(range(256)) * (3 * PIECE // 256 + 1)
OWN = OwnWheel("clustersh-1.2.3-py3-none-any.whl", "1.2.3", b"own wheel", "0a" * 32, (), ">=3.11")


def held(name: str, content: bytes = CONTENT) -> HeldWheel:
    return HeldWheel(name, hashlib.sha256(content).hexdigest(), len(content), ">=3.9, <4")


def fill(*wheels: HeldWheel, system: str = "linux", machine: str = "x86_64", python: str = "3.11") -> Fill:
    return Fill(f"{system}-{machine}", python, system, machine, "2026-11-20T10:00:00.000Z", wheels)


@pytest.fixture
def wheelhouse(tmp_path: Path) -> Wheelhouse:
    """Holds zope.interface, and something that calls itself clustersh."""
    made = Wheelhouse(private_folder(tmp_path / "state"))
    wheels = (held("zope_interface-7.2-cp311-cp311-manylinux_2_28_x86_64.whl"), held("clustersh-9.9-py3-none-any.whl"))
    private_folder(made.folder)
    for wheel in wheels:
        made.path(wheel).write_bytes(CONTENT)
    made.replace(Contents((fill(*wheels),)))
    return made


@pytest.fixture
def calls(front: Front, wheelhouse: Wheelhouse) -> Front:
    PackageCalls(Packages(wheelhouse, lambda: OWN)).add_to(front.api)
    return front


ZOPE = "zope_interface-7.2-cp311-cp311-manylinux_2_28_x86_64.whl"


def test_no_wheel_but_the_coordinators_own_is_under_its_name(wheelhouse: Wheelhouse) -> None:
    index = index_of(OWN, wheelhouse, wheelhouse.read())
    assert [each["filename"] for each in json.loads(index.files_json("clustersh"))["files"]] == [OWN.name]
    assert index.find("clustersh-9.9-py3-none-any.whl") is None


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("plain", [True, False])
async def test_projects_and_files_are_listed_as_html_and_as_json(calls: Front, plain: bool) -> None:
    projects = await calls.call("GET", "/simple/", plain=plain)
    assert projects.headers["content-type"] == HTML
    assert re.findall(r'href="([^"]+)"', projects.content.decode()) == ["clustersh/", "zope-interface/"]
    files = await calls.call("GET", "/simple/zope-interface/", plain=plain)
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert f'href="../../packages/{ZOPE}#sha256={digest}"' in files.content.decode()
    assert 'data-requires-python="&gt;=3.9, &lt;4"' in files.content.decode()
    asked = await calls.call("GET", "/simple/zope-interface/", plain=plain, headers={"Accept": f"{JSON}, {HTML};q=0.1"})
    assert asked.headers["content-type"] == JSON
    assert asked.json["files"][0]["hashes"] == {"sha256": digest}
    assert (await calls.call("GET", "/simple/", headers={"Accept": JSON})).json["projects"] == [
        {"name": "clustersh"},
        {"name": "zope-interface"},
    ]


@pytest_twisted.ensureDeferred
async def test_files_come_whole_in_pieces_and_in_ranges(calls: Front) -> None:
    whole = await calls.call("GET", f"/packages/{ZOPE}")
    assert (whole.status, whole.content, whole.headers["accept-ranges"]) == (200, CONTENT, "bytes")
    assert (await calls.call("GET", f"/packages/{OWN.name}", plain=True)).content == OWN.content
    for name, content in ((ZOPE, CONTENT), (OWN.name, OWN.content)):
        part = await calls.call("GET", f"/packages/{name}", headers={"Range": "bytes=3-7"})
        assert (part.status, part.content) == (206, content[3:8])
        assert part.headers["content-range"] == f"bytes 3-7/{len(content)}"
        tail = await calls.call("GET", f"/packages/{name}", headers={"Range": f"bytes={len(content) - 2}-"})
        assert tail.content == content[-2:]
        beyond = await calls.call("GET", f"/packages/{name}", headers={"Range": f"bytes={len(content)}-"})
        assert (beyond.status, beyond.headers["content-range"]) == (416, f"bytes */{len(content)}")
        head = await calls.call("HEAD", f"/packages/{name}")
        assert (head.status, head.headers["content-length"], head.content) == (200, str(len(content)), b"")


HOSTILE = [
    "/packages/../x",
    "/packages/..",
    "/packages/%2e%2e",
    "/packages/%2e%2e%2fwheelhouse.json",
    "/packages/..%5cx",
    "/packages/%2fetc%2fpasswd",
    "/packages//etc/passwd",
    "/packages/wheelhouse.json",
    f"/packages/{hashlib.sha256(CONTENT).hexdigest()}.whl",
    f"/packages/{ZOPE}%00",
    f"/packages/{ZOPE.upper()}",
    f"/packages/{ZOPE}/",
    f"/packages/./{ZOPE}",
    "/packages/",
    "/packages/" + "a" * 5000,
    "/simple/../",
    "/simple/%2e%2e/",
    "/simple/Zope.Interface/",
    "/simple/zope-interface/../clustersh/",
    "/simple/nosuch/",
    "/simple",
]


@pytest_twisted.ensureDeferred
@pytest.mark.parametrize("path", HOSTILE, ids=range(len(HOSTILE)))
async def test_what_is_not_in_the_list_is_not_there(calls: Front, path: str) -> None:
    wire = await calls.raw()
    wire.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    await wire.closed
    status = wire.received.split(b" ", 2)[1]
    assert status in (b"403", b"404"), wire.received
    assert b"/etc" not in wire.received.partition(b"\r\n\r\n")[2]


@pytest_twisted.ensureDeferred
async def test_a_wheel_that_is_gone_is_not_there(calls: Front, wheelhouse: Wheelhouse) -> None:
    for path in wheelhouse.folder.glob("*.whl"):
        path.unlink()
    assert (await calls.call("GET", f"/packages/{ZOPE}")).problem == "not-found"


@pytest_twisted.ensureDeferred
async def test_strangers_from_far_away_get_nothing(
    open_front: Opener, wheelhouse: Wheelhouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = open_front()
    PackageCalls(Packages(wheelhouse, lambda: OWN)).add_to(front.api)
    monkeypatch.setattr("clustersh.coordinator.callers.is_near", lambda address, allowed: False)
    for path in ("/simple/", "/simple/clustersh/", f"/packages/{OWN.name}"):
        assert (await front.call("GET", path)).problem == "address-not-allowed"


@pytest_twisted.ensureDeferred
async def test_a_new_fill_shows_at_once(calls: Front, wheelhouse: Wheelhouse) -> None:
    assert "zope-interface" in (await calls.call("GET", "/simple/")).content.decode()
    new = held("attrs-1.0-py3-none-any.whl", b"new")
    wheelhouse.path(new).write_bytes(b"new")
    # As another process does it.
    Wheelhouse(wheelhouse.folder.parent).replace(Contents((fill(new),)))
    assert "zope-interface" not in (await calls.call("GET", "/simple/")).content.decode()
    assert (await calls.call("GET", f"/packages/{new.name}")).content == b"new"


@pytest_twisted.ensureDeferred
async def test_the_own_wheel_is_made_once(front: Front, wheelhouse: Wheelhouse) -> None:
    made: list[OwnWheel] = []

    def pack() -> OwnWheel:
        made.append(OWN)
        return OWN

    packages = Packages(wheelhouse, pack)
    await packages.prepare()
    PackageCalls(packages).add_to(front.api)
    for _ in range(3):
        assert (await front.call("GET", f"/packages/{OWN.name}", Role.FRONTEND)).content == OWN.content
    assert made == [OWN]


@pytest_twisted.ensureDeferred
async def test_what_can_t_be_packed_or_read_is_said(front: Front, wheelhouse: Wheelhouse) -> None:
    def pack() -> OwnWheel:
        raise OwnWheelError("it runs without being installed")

    packages = Packages(wheelhouse, pack)
    await packages.prepare()
    PackageCalls(packages).add_to(front.api)
    answer = await front.call("GET", "/simple/")
    assert (answer.status, answer.json["detail"]) == (503, "it runs without being installed")
    (wheelhouse.folder / "wheelhouse.json").write_text("{")
    PackageCalls(Packages(wheelhouse, lambda: OWN)).add_to(front.api)
    assert "can't be read" in (await front.call("GET", "/simple/")).json["detail"]
