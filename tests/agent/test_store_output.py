"""Output on the disk: what is read back is what came, whatever is asked for and wherever a crash cut it off."""

import errno
import hashlib
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clustersh.agent.disk import Disk, Free, SpaceWatch
from clustersh.agent.output_file import GrowingOutput, OutputCutError
from clustersh.agent.output_index import CHECKPOINT, Sizes
from clustersh.agent.output_read import FileOutput, InlineOutput, read_head, tail_window
from clustersh.agent.output_recovery import recover
from clustersh.agent.records import StoreError
from clustersh.wire.jobs import HEAD_LIMIT
from clustersh.wire.output import Stream, encode_runs, pieces

STREAMS = st.sampled_from([Stream.STDOUT, Stream.STDERR])
PIECES = st.lists(st.tuples(STREAMS, st.binary(max_size=300)), max_size=30)
BATCHES = st.lists(PIECES, max_size=6)


class BrokenDisk(Disk):
    """Fails as it is told to; a full one still takes *room* bytes."""

    def __init__(self):
        self.room = None
        self.sync_error = None
        self.free_now = Free(1 << 40, 1 << 20)

    def write(self, file, data):
        if self.room is not None and len(data) > self.room:
            file.write(data[: self.room])
            self.room = 0
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.room is not None:
            self.room -= len(data)
        super().write(file, data)

    def sync(self, file):
        if self.sync_error is not None:
            raise OSError(self.sync_error, "Input/output error")
        super().sync(file)

    def free(self, folder):
        return self.free_now


def growing(folder: Path, disk=None, reserve=0):
    disk = disk or Disk()
    return GrowingOutput(folder / "day" / "job", disk, SpaceWatch(disk, folder, reserve))


def expected(batches, stream):
    return b"".join(data for batch in batches for owner, data in batch if stream in (Stream.BOTH, owner))


def owners(data, runs):
    return [owner for owner, piece in pieces(data, runs) for _ in piece]


def read_all(output, stream):
    content, position = b"", 0
    while position < output.sizes.of(stream):
        part = output.read(stream, position, 1 << 20)
        assert part.data
        content += part.data
        position += len(part.data)
    return content


def test_a_stream_of_which_nothing_came_has_no_hash(tmp_path):
    output = growing(tmp_path)
    output.append([(Stream.STDOUT, b""), (Stream.STDERR, b"a")])
    summary = output.close("")
    assert (summary.stdout_sha256, summary.stderr_sha256) == ("", hashlib.sha256(b"a").hexdigest())


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.sampled_from(Stream), st.integers(0, 4000), st.integers(0, 4000))
def test_any_read_of_any_stream_equals_what_came(batches, stream, offset, length):
    with tempfile.TemporaryDirectory() as folder:
        output = growing(Path(folder))
        for batch in batches:
            if batch:
                output.append(batch)
        if not output.sizes.of(stream):
            return
        whole = expected(batches, stream)
        part = output.read(stream, offset, length)
        assert whole[offset : offset + length].startswith(part.data)
        assert part.data or not whole[offset : offset + length]
        assert read_all(output, stream) == whole
        if stream is Stream.BOTH:
            flags = [owner for batch in batches for owner, data in batch for _ in data]
            assert owners(part.data, part.runs) == flags[offset : offset + len(part.data)]
        summary = output.close("")
        assert summary.total_bytes == len(expected(batches, Stream.BOTH))
        for side, found in ((Stream.STDOUT, summary.stdout_sha256), (Stream.STDERR, summary.stderr_sha256)):
            content = expected(batches, side)
            assert found == (hashlib.sha256(content).hexdigest() if content else "")


@settings(max_examples=60, deadline=None)
@given(PIECES, st.sampled_from(Stream), st.integers(0, 4000), st.integers(0, 4000))
def test_an_inline_output_reads_like_one_in_files(came, stream, offset, length):
    runs = encode_runs((owner, len(data)) for owner, data in came)
    output = InlineOutput(expected([came], Stream.BOTH), runs)
    part = output.read(stream, offset, length)
    assert part.data == expected([came], stream)[offset : offset + length]


def test_alternating_single_bytes_are_read_from_anywhere_with_a_small_index(tmp_path):
    output = growing(tmp_path)
    count = 60_000
    for start in range(0, count, 5000):
        output.append(
            [
                (Stream.STDERR if number % 2 else Stream.STDOUT, bytes([number % 251]))
                for number in range(start, start + 5000)
            ]
        )
    output.close("")
    folder = tmp_path / "day" / "job"
    assert (folder / "index").stat().st_size <= (folder / "output").stat().st_size
    assert (folder / "checkpoints").stat().st_size >= 10 * CHECKPOINT.size
    whole = bytes(number % 251 for number in range(count))
    reader = FileOutput(folder, output.sizes)
    for offset in (0, 1, 4095, 4097, 29_000, 29_999):
        assert reader.read(Stream.STDERR, offset, 100).data == whole[1::2][offset : offset + 100]
        part = reader.read(Stream.BOTH, offset, 100)
        assert part.data == whole[offset : offset + 100]
        assert owners(*part) == [Stream.STDERR if place % 2 else Stream.STDOUT for place in range(offset, offset + 100)]
    assert read_all(reader, Stream.STDOUT) == whole[::2]


def test_a_rare_stream_is_found_without_looking_at_all_of_the_other(tmp_path):
    output = growing(tmp_path)
    for number in range(200):
        output.append([(Stream.STDOUT, b"x" * 10_000), (Stream.STDERR, b"%03d" % number)])
    assert output.read(Stream.STDERR, 300, 30).data == b"100101102103104105106107108109"


def test_the_index_of_a_growing_run_covers_all_of_it_after_each_write(tmp_path):
    output = growing(tmp_path)
    for _ in range(300):
        output.append([(Stream.STDERR, b"e")])
    folder = tmp_path / "day" / "job"
    assert (folder / "index").read_bytes() == encode_runs([(Stream.STDERR, 300)])
    summary = recover(folder, Disk())
    assert (summary.stderr_bytes, summary.unindexed) == (300, 0)


@settings(max_examples=60, deadline=None)
@given(PIECES, st.data())
def test_after_a_crash_what_the_index_does_not_cover_is_stdout(came, data):
    with tempfile.TemporaryDirectory() as name:
        output = growing(Path(name))
        output.append([*came, (Stream.STDERR, b"end")])
        folder = Path(name) / "day" / "job"
        whole = (folder / "output").read_bytes()
        index = (folder / "index").read_bytes()
        kept = whole[: data.draw(st.integers(0, len(whole)))]
        (folder / "output").write_bytes(kept)
        (folder / "index").write_bytes(index[: data.draw(st.integers(0, len(index)))])
        summary = recover(folder, Disk())
        assert summary.total_bytes == len(kept)
        reader = FileOutput(folder, Sizes(summary.stdout_bytes, summary.stderr_bytes))
        assert read_all(reader, Stream.BOTH) == kept
        flags = [owner for owner, piece in [*came, (Stream.STDERR, b"end")] for _ in piece]
        indexed = len(kept) - summary.unindexed
        if kept:
            found = owners(*reader.read(Stream.BOTH, 0, len(kept)))
            assert found == flags[:indexed] + [Stream.STDOUT] * summary.unindexed
        for side, digest in ((Stream.STDOUT, summary.stdout_sha256), (Stream.STDERR, summary.stderr_sha256)):
            content = read_all(reader, side)
            assert digest == (hashlib.sha256(content).hexdigest() if content else "")


def test_recovering_a_large_output_rebuilds_its_checkpoints(tmp_path):
    output = growing(tmp_path)
    batch = [(Stream.STDERR if number % 2 else Stream.STDOUT, b"ab") for number in range(20_000)]
    output.append([*batch, (Stream.STDOUT, b"z" * (3 << 20))])
    folder = tmp_path / "day" / "job"
    before = [(folder / name).read_bytes() for name in ("index", "checkpoints")]
    (folder / "checkpoints").unlink()
    assert recover(folder, Disk()) == output.close("")
    assert [(folder / name).read_bytes() for name in ("index", "checkpoints")] == before


def test_there_is_nothing_to_recover_of_a_job_that_wrote_nothing(tmp_path):
    assert recover(tmp_path / "none", Disk()).total_bytes == 0


@pytest.mark.parametrize("room", [0, 3, 100, 103])
def test_a_full_disk_cuts_the_output_and_leaves_what_came_before_whole(tmp_path, room):
    disk = BrokenDisk()
    output = growing(tmp_path, disk)
    output.append([(Stream.STDOUT, b"one"), (Stream.STDERR, b"two")])
    disk.room = room
    with pytest.raises(OutputCutError, match="disk full on the machine"):
        output.append([(Stream.STDERR, b"x" * 100), (Stream.STDOUT, b"y"), (Stream.STDERR, b"z" * 200)])
    disk.room = None
    summary = output.close("disk full on the machine")
    assert (summary.stdout_bytes, summary.stderr_bytes) == (3, 3)
    assert summary.cut == "disk full on the machine"
    part = output.read(Stream.BOTH, 0, 100)
    assert (part.data, owners(*part)) == (b"onetwo", [Stream.STDOUT] * 3 + [Stream.STDERR] * 3)


def test_output_stops_at_the_reserve_and_when_inodes_run_out(tmp_path):
    disk = BrokenDisk()
    disk.free_now = Free(99, 1 << 20)
    with pytest.raises(OutputCutError, match="disk full"):
        growing(tmp_path, disk, reserve=100).append([(Stream.STDOUT, b"x")])
    disk.free_now = Free(100, 10)
    with pytest.raises(OutputCutError, match="inodes"):
        growing(tmp_path, disk, reserve=100).append([(Stream.STDOUT, b"x")])
    disk.free_now = Free(100, None)
    growing(tmp_path, disk, reserve=100).append([(Stream.STDOUT, b"x")])


def test_free_space_is_looked_at_once_a_second_or_once_in_8_mib(tmp_path):
    disk = BrokenDisk()
    now = [0.0]
    watch = SpaceWatch(disk, tmp_path, 100, lambda: now[0])
    assert watch.problem() == ""
    disk.free_now = Free(0, None)
    assert watch.problem(8 << 20) == ""
    assert watch.problem(1) == "disk full on the machine"
    now[0] = 0.5
    disk.free_now = Free(100, None)
    assert watch.problem() == "", "room that was made counts at once"
    disk.free_now = Free(0, None)
    assert watch.problem() == ""
    now[0] = 1.5
    assert watch.problem() == "disk full on the machine"


def test_output_that_can_not_be_synced_says_so(tmp_path):
    disk = BrokenDisk()
    output = growing(tmp_path, disk)
    output.append([(Stream.STDOUT, b"x")])
    disk.sync_error = errno.EIO
    assert "disk error" in output.close("").cut


def test_damaged_files_are_an_error_not_an_endless_read(tmp_path):
    output = growing(tmp_path)
    output.append([(Stream.STDOUT, b"hello")])
    output.close("")
    (tmp_path / "day" / "job" / "output").write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        output.read(Stream.STDOUT, 0, 5)


def test_the_head_is_the_first_128_kib_of_both_streams(tmp_path):
    output = growing(tmp_path)
    output.append([(Stream.STDERR if number % 2 else Stream.STDOUT, b"ab") for number in range(50_000)])
    output.append([(Stream.STDERR, b"c" * HEAD_LIMIT)])
    head = read_head(output)
    assert head.data == b"ab" * 50_000 + b"c" * (HEAD_LIMIT - 100_000)
    assert len(owners(*head)) == HEAD_LIMIT


@given(st.text("a\n", max_size=40).map(str.encode), st.integers(1, 10))
def test_the_tail_begins_where_the_last_lines_do(data, lines):
    output = InlineOutput(data, encode_runs([(Stream.STDOUT, len(data))]))
    start, missing = tail_window(output, Stream.STDOUT, len(data), len(data), lines)
    assert data[start:] == b"".join(data.splitlines(keepends=True)[-lines:])
    assert start == 0 or not missing


def test_file_modes_are_private(tmp_path):
    output = growing(tmp_path)
    output.append([(Stream.STDERR if number % 2 else Stream.STDOUT, b"a") for number in range(10_000)])
    folder = tmp_path / "day" / "job"
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()} == {
        "output": 0o600,
        "index": 0o600,
        "checkpoints": 0o600,
    }
    assert folder.stat().st_mode & 0o777 == 0o700
