"""Manifests: whatever check_manifest lets through stays inside, as a real filesystem sees it."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clustersh.wire import files
from clustersh.wire.codec import WireError
from clustersh.wire.files import Entry, EntryKind, Manifest

DIGEST = "a" * 64


def file(path: bytes, **more: object) -> Entry:
    return Entry(path, EntryKind.FILE, sha256=DIGEST, **more)  # type: ignore[arg-type]


def folder(path: bytes) -> Entry:
    return Entry(path, EntryKind.FOLDER, mode=0o700)


def symlink(path: bytes, target: bytes) -> Entry:
    return Entry(path, EntryKind.SYMLINK, target=target)


names = st.sampled_from([b"a", b"b", b"c", b"..", b".", b"", b"\xff"])
paths = st.lists(names, min_size=1, max_size=4).map(b"/".join)
entries = st.one_of(st.builds(folder, paths), st.builds(symlink, paths, paths), st.builds(file, paths))


@settings(max_examples=400, deadline=None)
@given(st.lists(entries, max_size=8))
@example([symlink(b"a", b"a//a")])
def test_whatever_is_let_through_stays_inside_on_a_real_filesystem(listed: list[Entry]) -> None:
    kept: list[Entry] = []
    for entry in listed:  # keep what passes, so that the trees get deep
        with contextlib.suppress(WireError):
            files.check_manifest(Manifest((*kept, entry)))
            kept.append(entry)
    with tempfile.TemporaryDirectory() as outside:
        root = os.fsencode(Path(outside).resolve() / "root")
        os.mkdir(root)  # noqa: PTH102  (names are bytes here)
        for entry in kept:
            make(root, entry)
        assert os.listdir(outside) == ["root"]  # noqa: PTH208
        for entry in kept:
            path = os.path.join(root, entry.path)  # noqa: PTH118
            if goes_in_a_circle(path):
                continue
            resolved = os.path.realpath(path)
            assert resolved == root or resolved.startswith(root + b"/")


def goes_in_a_circle(path: bytes) -> bool:
    """Whether links there lead to themselves: nobody can open that, while `realpath` makes just anything of it."""
    try:
        os.stat(path)  # noqa: PTH116
    except OSError as error:
        return error.errno == errno.ELOOP
    return False


def make(root: bytes, entry: Entry) -> None:
    path = root + b"/" + entry.path
    if entry.kind is EntryKind.FOLDER:
        os.mkdir(path)  # noqa: PTH102
    elif entry.kind is EntryKind.SYMLINK:
        os.symlink(entry.target, path)  # noqa: PTH211
    else:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))


GOOD = Manifest(
    (
        folder(b"tree"),
        folder(b"tree/empty"),
        file(b"tree/odd \xff\nname", mode=0o755, size=3),
        symlink(b"tree/up", b"../tree/empty"),
        symlink(b"top", b"tree/up"),
    )
)


def test_a_manifest_round_trips() -> None:
    assert files.decode_manifest(files.encode_manifest(GOOD)) == GOOD


@pytest.mark.parametrize(
    "bad",
    [
        file(b"/etc/passwd"),
        file(b"../x"),
        file(b"tree/../x"),
        file(b"tree//x"),
        file(b"./x"),
        file(b""),
        file(b"x\0y"),
        file(b"missing/x"),
        file(b"top/x"),  # through a symlink
        file(b"tree"),  # a second time
        symlink(b"out", b"/etc"),
        symlink(b"out", b".."),
        symlink(b"out", b"tree/../.."),
        symlink(b"tree/out", b"../.."),
        symlink(b"tree/out", b"up/../../.."),
        symlink(b"out", b""),
        Entry(b"x", EntryKind.FILE, sha256="short"),
        Entry(b"x", EntryKind.FILE, sha256="../" * 21 + "x"),
        Entry(b"x", EntryKind.FILE, sha256=DIGEST, size=-1),
        Entry(b"x", EntryKind.FILE, sha256=DIGEST, mode=-1),
        Entry(b"x", EntryKind.FILE, sha256=DIGEST, mode=0o20644),  # a character device's
    ],
    ids=repr,
)
def test_what_leads_out_or_makes_no_sense_is_refused(bad: Entry) -> None:
    manifest = Manifest((*GOOD.entries, bad))
    with pytest.raises(WireError):
        files.decode_manifest(files.encode_manifest(manifest))


def test_a_refusal_shows_no_control_characters() -> None:
    with pytest.raises(WireError) as refused:
        files.check_manifest(Manifest((file(b"\x1b[31m/../x"),)))
    assert "\x1b" not in str(refused.value)


def test_too_many_entries_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_ENTRIES", 4)
    with pytest.raises(WireError, match="more than 4"):
        files.check_manifest(GOOD)


@given(st.binary(max_size=200), st.integers(0, 300), st.integers(0, 255))
def test_hostile_bytes_raise_nothing_but_wire_error(junk: bytes, position: int, byte: int) -> None:
    damaged = bytearray(files.encode_manifest(GOOD))
    damaged[position % len(damaged)] = byte
    for content in (junk, bytes(damaged), bytes(damaged[: position % len(damaged)])):
        with contextlib.suppress(WireError):
            files.decode_manifest(content)
