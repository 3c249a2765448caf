"""A manifest unpacked into a working directory, and the directory's removal."""

import hashlib
import os
import stat
from pathlib import Path

import pytest

from clustersh.agent.files import FilesError, remove_tree, unpack
from clustersh.wire.codec import WireError
from clustersh.wire.files import Entry, EntryKind, Manifest

FOLDER, FILE, SYMLINK = EntryKind.FOLDER, EntryKind.FILE, EntryKind.SYMLINK


@pytest.fixture
def blobs(tmp_path):
    folder = tmp_path / "blobs"
    folder.mkdir()

    def path(sha256):
        return folder / sha256

    def add(content):
        digest = hashlib.sha256(content).hexdigest()
        path(digest).write_bytes(content)
        return digest, len(content)

    path.add = add
    return path


def file(blobs, path, content, mode=0o600):
    sha256, size = blobs.add(content)
    return Entry(path, FILE, mode, sha256, size)


def mode(path):
    return stat.S_IMODE(os.lstat(path).st_mode)


@pytest.fixture
def work(tmp_path):
    folder = tmp_path / "work"
    folder.mkdir(mode=0o700)
    yield folder
    remove_tree(folder)


def test_a_tree_keeps_modes_empty_folders_symlinks_and_odd_names(blobs, work):
    entries = (
        Entry(b"tree", FOLDER, 0o555),
        file(blobs, b"tree/run.sh", b"#!/bin/sh\n", 0o6755),
        file(blobs, b"tree/odd \xff\n", b"\0odd"),
        Entry(b"tree/empty", FOLDER, 0o1770),
        Entry(b"tree/link", SYMLINK, 0o777, target=b"run.sh"),
        file(blobs, b"tree/none", b"", 0o400),
    )
    unpack(Manifest(entries), work, blobs)
    root = os.fsencode(work)
    assert mode(root + b"/tree") == 0o555
    assert mode(root + b"/tree/run.sh") == 0o755
    assert mode(root + b"/tree/empty") == 0o770
    assert mode(root + b"/tree/none") == 0o400
    assert (work / "tree" / "link").readlink() == Path("run.sh")
    assert Path(os.fsdecode(root + b"/tree/odd \xff\n")).read_bytes() == b"\0odd"
    assert list((work / "tree" / "empty").iterdir()) == []


def test_a_changed_copy_leaves_the_blob_as_it_was(blobs, work):
    entry = file(blobs, b"a", b"content", 0o644)
    unpack(Manifest((entry,)), work, blobs)
    (work / "a").write_bytes(b"changed")
    assert blobs(entry.sha256).read_bytes() == b"content"


def test_what_leads_out_is_refused_before_anything_is_made(blobs, work):
    for entry in (
        file(blobs, b"../out", b"x"),
        Entry(b"link", SYMLINK, target=b"/etc"),
        Entry(b"link", SYMLINK, target=b"../out"),
    ):
        with pytest.raises(WireError):
            unpack(Manifest((Entry(b"first", FOLDER), entry)), work, blobs)
    assert list(work.iterdir()) == []


def test_a_link_that_is_in_the_way_is_not_followed(blobs, work, tmp_path):
    (work / "a").symlink_to(tmp_path / "outside")
    with pytest.raises(FilesError, match="'a' can't be made"):
        unpack(Manifest((file(blobs, b"a", b"x"),)), work, blobs)
    assert not (tmp_path / "outside").exists()


def test_a_blob_that_is_missing_or_too_short_names_the_entry(blobs, work):
    entry = file(blobs, b"a", b"content")
    blobs(entry.sha256).write_bytes(b"con")
    with pytest.raises(FilesError, match="'a' can't be made: its content has 3 bytes, not 7"):
        unpack(Manifest((entry,)), work, blobs)
    blobs(entry.sha256).unlink()
    with pytest.raises(FilesError, match="'b' can't be made"):
        unpack(Manifest((Entry(b"b", FILE, sha256=entry.sha256, size=7),)), work, blobs)


def test_a_tree_with_closed_folders_is_removed_and_no_link_followed(tmp_path):
    work, kept = tmp_path / "work", tmp_path / "kept"
    kept.mkdir()
    (kept / "file").write_text("x")
    (work / "a" / "b").mkdir(parents=True)
    (work / "a" / "b" / "file").write_text("x")
    (work / "a" / "link").symlink_to(kept)
    (work / "a" / "b").chmod(0o500)
    (work / "a").chmod(0)
    kept.chmod(0o755)
    remove_tree(work)
    assert not work.exists()
    assert (kept / "file").exists()
    assert mode(kept) == 0o755
    remove_tree(work)


def test_a_link_in_the_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "kept")
    with pytest.raises(FilesError):
        remove_tree(tmp_path / "work")
    assert (tmp_path / "kept").exists()
