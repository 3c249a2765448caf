"""The journal: what it said survives torn tails, failing disks and its own shortening."""

import errno

import msgspec
import pytest

from clustersh.agent.disk import Disk
from clustersh.agent.journal import KEPT_TORN, Item, Journal, entry_uuid
from clustersh.agent.records import (
    AcknowledgedEntry,
    EndedEntry,
    JobEnd,
    JobRecord,
    RefusedEntry,
    RunningEntry,
    StoreError,
)
from clustersh.wire.jobs import Command, Outcome
from clustersh.wire.link import NEVER_SEEN, Witness


class FailingDisk(Disk):
    """Fails its writes after some bytes, or its syncs; counts the syncs."""

    def __init__(self):
        self.write_fails_after = None
        self.sync_fails = False
        self.syncs = 0

    def write(self, file, data):
        if self.write_fails_after is not None:
            super().write(file, data[: self.write_fails_after])
            raise OSError(errno.ENOSPC, "No space left on device")
        super().write(file, data)

    def sync(self, file):
        self.syncs += 1
        if self.sync_fails:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(file)


def running(uuid):
    return RunningEntry(JobRecord(uuid, "me@here", Command(shell="true"), 1.0))


def ended(uuid):
    return EndedEntry(uuid, JobEnd(Outcome.exited(0), 2.0))


def item(entry, durable=True):
    return Item(entry_uuid(entry), msgspec.json.encode(entry) + b"\n", durable)


def journal(folder, disk=None, rotate_at=4 << 20):
    rotated = []
    made = Journal(folder, disk or Disk(), rotated.append, rotate_at)
    made.rotated = rotated
    return made


def reopened(folder):
    again = journal(folder)
    entries = again.open()
    again.close()
    return entries


def test_what_was_appended_is_there_again(tmp_path):
    entries = [running("a"), ended("a"), RefusedEntry("b", JobEnd(NEVER_SEEN, 1.0), Witness(3, "ff"))]
    first = journal(tmp_path)
    assert first.open() == []
    first.append([item(entry) for entry in entries])
    first.close()
    assert reopened(tmp_path) == entries
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_a_batch_is_synced_once_and_only_where_it_must_be_durable(tmp_path):
    disk = FailingDisk()
    made = journal(tmp_path, disk)
    made.open()
    disk.syncs = 0
    made.append([item(running("a"), durable=False)])
    assert disk.syncs == 0
    made.append([item(running(name), durable=name == "c") for name in "bcd"])
    assert disk.syncs == 1
    made.close()


@pytest.mark.parametrize("tail", [b'{"is":"ended","uu', b"\0" * 5000, b'{"is":"new-kind"}\n', b"\n", b"\xff\xfe\n\0\0"])
def test_a_torn_tail_is_set_aside(tmp_path, tail):
    made = journal(tmp_path)
    made.open()
    made.append([item(running("a"))])
    made.close()
    good = (tmp_path / "journal").read_bytes()
    (tmp_path / "journal").write_bytes(good + tail)
    assert reopened(tmp_path) == [running("a")]
    assert (tmp_path / "journal").read_bytes() == good
    assert (tmp_path / "journal.torn-1").read_bytes() == tail


def test_a_cut_anywhere_loses_only_what_was_cut(tmp_path):
    made = journal(tmp_path)
    made.open()
    made.append([item(running("a")), item(ended("a"))])
    made.close()
    whole = (tmp_path / "journal").read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(0, len(whole) + 1, 7):
        (tmp_path / "journal").write_bytes(whole[:length])
        expected = [running("a")] * (length >= first) + [ended("a")] * (length == len(whole))
        assert reopened(tmp_path) == expected
    assert len(list(tmp_path.glob("journal.torn-*"))) == KEPT_TORN


def test_a_damaged_line_in_the_middle_costs_no_other(tmp_path):
    made = journal(tmp_path)
    made.open()
    made.append([item(running(name)) for name in "abc"])
    made.close()
    lines = (tmp_path / "journal").read_bytes().splitlines(keepends=True)
    (tmp_path / "journal").write_bytes(lines[0] + b"\0" * 20 + b"\n" + lines[2])
    assert reopened(tmp_path) == [running("a"), running("c")]


@pytest.mark.parametrize("fault", ["write", "sync"])
def test_a_failed_append_counts_for_nothing_and_the_next_one_works(tmp_path, fault):
    disk = FailingDisk()
    made = journal(tmp_path, disk)
    made.open()
    made.append([item(running("a"))])
    disk.write_fails_after, disk.sync_fails = (10, False) if fault == "write" else (None, True)
    with pytest.raises(StoreError, match="job store can't be written"):
        made.append([item(running("b"))])
    disk.write_fails_after, disk.sync_fails = None, False
    made.append([item(running("c"))])
    made.close()
    assert reopened(tmp_path) == [running("a"), running("c")]
    assert not list(tmp_path.glob("journal.torn-*"))


def test_it_is_shortened_to_the_jobs_that_matter(tmp_path):
    made = journal(tmp_path, rotate_at=2000)
    made.open()
    made.append([item(running("open"))])
    for number in range(30):
        made.append([item(running(f"{number}")), item(ended(f"{number}"))])
        made.append(
            [item(AcknowledgedEntry(f"{number}", Witness(1, "")), durable=False), Item(f"{number}", forget=True)]
        )
        if made.rotated:
            break
    assert made.rotated == [[str(past) for past in range(number)]]
    assert (tmp_path / "journal.old").exists()
    assert (tmp_path / "journal").stat().st_size < 500
    made.settled(True)
    made.close()
    assert not (tmp_path / "journal.old").exists()
    assert running("open") in reopened(tmp_path)


def test_the_old_file_is_kept_and_none_begun_until_its_jobs_are_durable(tmp_path):
    made = journal(tmp_path, rotate_at=1)
    made.open()
    made.append([item(running("a")), item(ended("a")), Item("a", forget=True)])
    assert made.rotated == [["a"]]
    made.append([item(running("b")), Item("b", forget=True)])
    assert len(made.rotated) == 1
    made.settled(False)
    made.rotate()
    assert made.rotated[1:] == [["a", "b"]]
    made.close()
    assert reopened(tmp_path) == [running("a"), ended("a"), running("b")]


def test_a_crash_between_the_renames_loses_nothing_and_repeats_do_not_pile_up(tmp_path):
    made = journal(tmp_path)
    made.open()
    made.append([item(running("a"))])
    made.close()
    (tmp_path / "journal").rename(tmp_path / "journal.old")
    (tmp_path / "journal.new").write_bytes(b"half")
    assert reopened(tmp_path) == [running("a")]
    for _ in range(4):
        content = (tmp_path / "journal").read_bytes()
        (tmp_path / "journal.old").write_bytes(content)
        made = journal(tmp_path)
        made.open()
        (tmp_path / "journal.old").unlink()
        made.rotate()
        made.close()
        assert (tmp_path / "journal").read_bytes() == content


def test_a_disk_that_refuses_the_new_file_leaves_the_old_one_in_use(tmp_path):
    disk = FailingDisk()
    made = journal(tmp_path, disk)
    made.open()
    made.append([item(running("a"))])
    disk.sync_fails = True
    made.rotate()
    disk.sync_fails = False
    made.append([item(running("b"))])
    made.close()
    assert made.rotated == []
    assert reopened(tmp_path) == [running("a"), running("b")]


def test_a_new_file_whose_name_is_not_synced_yet_makes_nothing_durable(tmp_path, monkeypatch):
    made = journal(tmp_path)
    made.open()
    made.append([item(running("a")), item(running("b"))])
    made.append([Item("a", forget=True)])
    broken = [True]

    def sync(folder):
        if broken[0]:
            raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("clustersh.agent.journal.sync_folder", sync)
    made.rotate()
    with pytest.raises(StoreError, match="Input/output error"):
        made.append([item(running("c"))])
    broken[0] = False
    made.append([item(running("d"))])
    made.close()
    entries = reopened(tmp_path)
    assert running("d") in entries and running("c") not in entries
    assert b"\0" not in (tmp_path / "journal").read_bytes()
    assert list(tmp_path.glob("journal.torn-*")) == []


@pytest.mark.parametrize("how", ["removed", "replaced", "moved away"])
def test_a_journal_that_somebody_took_away_is_made_again(tmp_path, how):
    made = journal(tmp_path)
    made.open()
    made.append([item(running("a"))])
    if how == "removed":
        (tmp_path / "journal").unlink()
    elif how == "replaced":
        (tmp_path / "other").write_bytes(b"")
        (tmp_path / "other").replace(tmp_path / "journal")
    else:
        (tmp_path / "journal").rename(tmp_path / "backup")
    made.append([item(running("b"))])
    made.close()
    assert reopened(tmp_path) == [running("a"), running("b")]


def test_on_a_full_disk_a_new_file_that_was_begun_gives_its_space_back(tmp_path):
    disk = FailingDisk()
    made = journal(tmp_path, disk)
    made.open()
    made.append([item(running("a"))])
    disk.write_fails_after = 3
    made.rotate()
    assert not (tmp_path / "journal.new").exists()
    disk.write_fails_after = None
    made.close()
    assert reopened(tmp_path) == [running("a")]
