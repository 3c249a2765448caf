"""The blob store: verified, private, within its quota."""

import errno
import hashlib
import os
import shutil

import pytest

from clustersh import blobs
from clustersh.blobs import BlobError, BlobStore
from clustersh.wire.problems import Kind


def digest(content):
    return hashlib.sha256(content).hexdigest()


def put(store, content):
    with store.writer(digest(content), len(content)) as writer:
        for start in range(0, len(content), 7):
            writer.write(content[start : start + 7])
        return writer.commit()


def left_over(folder):
    return list((folder / "incoming").iterdir())


def test_a_blob_is_kept_under_its_name_and_private(tmp_path):
    store = BlobStore(tmp_path / "blobs", 100)
    path = put(store, b"some content")
    assert path == store.path(digest(b"some content"))
    assert path.read_bytes() == b"some content"
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.has(digest(b"some content"))
    assert not store.has(digest(b"other"))
    assert (store.used, left_over(tmp_path / "blobs")) == (12, [])


def test_the_empty_blob_is_one_too(tmp_path):
    store = BlobStore(tmp_path / "blobs", 0)
    assert put(store, b"").read_bytes() == b""


@pytest.mark.parametrize(
    ("announced", "size", "content", "kind"),
    [
        (b"right", 5, b"wrong", Kind.BAD_REQUEST),
        (b"right", 5, b"righ", Kind.BAD_REQUEST),
        (b"right", 5, b"rightly", Kind.TOO_LARGE),
    ],
)
def test_what_is_not_as_announced_is_not_kept(tmp_path, announced, size, content, kind):
    store = BlobStore(tmp_path / "blobs", 100)
    with pytest.raises(BlobError) as raised, store.writer(digest(announced), size) as writer:
        writer.write(content)
        writer.commit()
    assert raised.value.problem.kind is kind
    assert not store.has(digest(announced))
    assert left_over(tmp_path / "blobs") == []
    put(store, b"x" * 100)


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_only_a_sha256_is_a_name(tmp_path, name):
    store = BlobStore(tmp_path / "blobs", 100)
    with pytest.raises(BlobError) as raised:
        store.writer(name, 1)
    assert raised.value.problem.kind is Kind.BAD_REQUEST
    with pytest.raises(BlobError) as raised:
        store.path(name)
    assert raised.value.problem.kind is Kind.UNKNOWN_BLOB


def test_the_least_recently_used_goes_first_and_a_pinned_one_never(tmp_path):
    store = BlobStore(tmp_path / "blobs", 30)
    names = [digest(content) for content in (b"a" * 10, b"b" * 10, b"c" * 10)]
    for letter in (b"a", b"b", b"c"):
        put(store, letter * 10)
    store.pin(names[1])
    store.has(names[0])
    put(store, b"d" * 10)
    assert [store.has(name) for name in names] == [True, True, False]
    put(store, b"e" * 20)
    assert [store.has(name) for name in names] == [False, True, False]
    store.pin(digest(b"e" * 20))
    with pytest.raises(BlobError) as raised:
        store.writer(digest(b"f"), 1)
    assert raised.value.problem.kind is Kind.STORAGE
    store.unpin(names[1])
    put(store, b"f")
    assert not store.has(names[1])
    assert store.used == 21


def test_pins_are_counted(tmp_path):
    store = BlobStore(tmp_path / "blobs", 10)
    put(store, b"a" * 10)
    store.pin(digest(b"a" * 10))
    store.pin(digest(b"a" * 10))
    store.unpin(digest(b"a" * 10))
    with pytest.raises(BlobError):
        store.writer(digest(b"b"), 1)
    store.unpin(digest(b"a" * 10))
    put(store, b"b")


def test_the_number_of_pins_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(blobs, "MAX_PINS", 1)
    store = BlobStore(tmp_path / "blobs", 10)
    store.pin("a" * 64)
    store.pin("a" * 64)
    with pytest.raises(BlobError):
        store.pin("b" * 64)


def test_what_is_being_written_counts_against_the_quota(tmp_path):
    store = BlobStore(tmp_path / "blobs", 10)
    with store.writer(digest(b"a"), 8), pytest.raises(BlobError):
        store.writer(digest(b"b"), 8)
    put(store, b"b" * 8)
    with pytest.raises(BlobError) as raised:
        store.writer(digest(b"c"), 11)
    assert raised.value.problem.kind is Kind.TOO_LARGE


def test_a_second_writer_of_one_blob_is_counted_once(tmp_path):
    store = BlobStore(tmp_path / "blobs", 100)
    put(store, b"content")
    put(store, b"content")
    assert store.used == 7


def test_a_restart_keeps_the_blobs_their_order_and_no_half_written_one(tmp_path):
    store = BlobStore(tmp_path / "blobs", 40)
    paths = [put(store, letter * 10) for letter in (b"a", b"b", b"c")]
    for age, path in zip((1, 3, 2), paths, strict=True):
        os.utime(path, (1000 - age, 1000 - age))
    store.writer(digest(b"half"), 4).write(b"ha")
    store = BlobStore(tmp_path / "blobs", 30)
    assert (store.used, left_over(tmp_path / "blobs")) == (30, [])
    put(store, b"d" * 10)
    assert [path.exists() for path in paths] == [True, False, True]


def test_a_blob_that_someone_removed_is_not_there(tmp_path):
    store = BlobStore(tmp_path / "blobs", 30)
    put(store, b"content").unlink()
    assert not store.has(digest(b"content"))
    assert store.used == 0


def test_a_full_disk_is_a_storage_error_and_leaves_nothing(tmp_path, monkeypatch):
    store = BlobStore(tmp_path / "blobs", 30)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(blobs.os, "fsync", full)
    with pytest.raises(BlobError, match="the disk is full") as raised:
        put(store, b"content")
    assert raised.value.problem.kind is Kind.STORAGE
    assert left_over(tmp_path / "blobs") == []


def test_the_reserve_of_the_disk_is_left_alone(tmp_path, monkeypatch):
    free = 1000
    monkeypatch.setattr(blobs.shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(0, 0, free))
    store = BlobStore(tmp_path / "blobs", 10_000, reserve=900)
    with pytest.raises(BlobError) as caught:
        store.writer(digest(b"x" * 200), 200)
    assert caught.value.problem.kind is Kind.STORAGE
    with store.writer(digest(b"x" * 100), 100) as writer:
        free = 950
        with pytest.raises(BlobError):
            writer.write(b"x" * 100)
    assert left_over(tmp_path / "blobs") == []
