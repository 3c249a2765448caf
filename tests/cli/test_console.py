from __future__ import annotations

import fcntl
import os
import pty
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from clustersh.cli.console import Console
from clustersh.cli.errors import CliError, OutputClosed


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def console(out: int, err: int | None = None, environ: dict[str, str] | None = None) -> Console:
    return Console.on(out, out if err is None else err, environ or {}, deferToThread)


@pytest_twisted.ensureDeferred
async def test_small_writes_need_no_thread(pipe: tuple[int, int]) -> None:
    def no_thread(function: object) -> Deferred[None]:
        raise AssertionError("a thread")

    await Console.on(pipe[1], pipe[1], {}, no_thread).out(b"x" * 4096)
    assert os.read(pipe[0], 10_000) == b"x" * 4096


@pytest_twisted.ensureDeferred
async def test_a_slow_reader_does_not_block_the_reactor_and_order_is_kept(pipe: tuple[int, int]) -> None:
    flags = fcntl.fcntl(pipe[1], fcntl.F_GETFL)
    shown = console(pipe[1])
    data = os.urandom(1 << 20)
    writes = [Deferred.fromCoroutine(shown.out(part)) for part in (data, b"second", b"third" * 2000, b"")]
    small = Deferred.fromCoroutine(shown.error("last"))
    await deferLater(reactor, 0.05, lambda: None)  # type: ignore[arg-type]
    assert not writes[0].called and not writes[1].called and not small.called
    expected = data + b"second" + b"third" * 2000 + b"ERROR: last\n"

    def read_all() -> bytes:
        received = b""
        while len(received) < len(expected):
            received += os.read(pipe[0], 65536)
        return received

    assert await deferToThread(read_all) == expected
    await gatherResults([*writes, small])
    assert fcntl.fcntl(pipe[1], fcntl.F_GETFL) == flags


@pytest_twisted.ensureDeferred
async def test_a_write_that_is_given_up_before_its_turn_holds_up_no_other(pipe: tuple[int, int]) -> None:
    shown = console(pipe[1])
    first = Deferred.fromCoroutine(shown.out(bytes(1 << 20)))
    second = Deferred.fromCoroutine(shown.out(b"given up"))
    second.addErrback(lambda failure: failure.trap(CancelledError))
    second.cancel()

    def read_all() -> None:
        size = 0
        while size < 1 << 20:
            size += len(os.read(pipe[0], 65536))

    await deferToThread(read_all)
    await first
    assert Deferred.fromCoroutine(shown.err("last")).called
    assert os.read(pipe[0], 65536) == b"last"


@pytest_twisted.ensureDeferred
async def test_a_pipe_that_its_owner_made_non_blocking(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    data = os.urandom(1 << 20)
    written = Deferred.fromCoroutine(console(pipe[1]).out(data))

    def read_all() -> bytes:
        received = b""
        while len(received) < len(data):
            received += os.read(pipe[0], 65536)
        return received

    assert await deferToThread(read_all) == data
    await written
    assert not os.get_blocking(pipe[1])


@pytest.mark.parametrize("size", [10, 1 << 20])
@pytest_twisted.ensureDeferred
async def test_a_reader_that_left(pipe: tuple[int, int], size: int) -> None:
    os.close(pipe[0])
    shown = console(pipe[1])
    for _ in range(2):
        with pytest.raises(OutputClosed):
            await shown.out(b"x" * size)


@pytest_twisted.ensureDeferred
async def test_a_full_disk_is_told() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(CliError, match="can't write the output: No space left") as caught:
            await console(full).out(b"x")
        assert caught.value.status == 123
    finally:
        os.close(full)


@pytest_twisted.ensureDeferred
async def test_what_it_knows_of_a_terminal(pipe: tuple[int, int]) -> None:
    master, slave = pty.openpty()
    try:
        shown = console(slave)
        assert shown.is_terminal and shown.width and shown.same_destination
        await shown.error("red")
        assert os.read(master, 100) == b"\x1b[31mERROR:\x1b[0m red\r\n"
        plain = console(slave, environ={"NO_COLOR": "1"})
        await plain.error("plain", ("do\x1bthis",))
        assert os.read(master, 100) == b"ERROR: plain\r\nhint: do\\x1bthis\r\n"
        piped = console(pipe[1], slave)
        assert piped.width is None and piped.errors_to_terminal and not piped.same_destination
    finally:
        os.close(master)
        os.close(slave)


@pytest_twisted.ensureDeferred
async def test_files_take_everything_and_streams_stay_apart(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        shown = console(out.fileno(), err.fileno())
        await shown.out("é\udc80")
        await shown.err(b"\xff")
        await shown.out(b"x" * 100_000)
    assert (tmp_path / "out").read_bytes() == "é\\udc80".encode() + b"x" * 100_000
    assert (tmp_path / "err").read_bytes() == b"\xff"


@pytest.mark.parametrize(("term", "can_draw"), [("xterm", True), ("dumb", False), ("", False)])
def test_a_terminals_size_and_whether_it_can_be_drawn_on(term: str, can_draw: bool) -> None:
    master, slave = pty.openpty()
    try:
        shown = console(slave, environ={"TERM": term} if term else {})
        assert shown.can_draw is can_draw
        assert shown.size == (80, 24), "a terminal that doesn't know its size"
        termios.tcsetwinsize(slave, (7, 33))
        assert (shown.size, shown.width) == ((33, 7), 33)
    finally:
        os.close(master)
        os.close(slave)


def test_what_is_no_terminal_has_no_width_and_is_not_drawn_on(pipe: tuple[int, int]) -> None:
    shown = console(pipe[1], environ={"TERM": "xterm"})
    assert (shown.width, shown.can_draw) == (None, False)
