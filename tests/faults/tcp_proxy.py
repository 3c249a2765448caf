"""A TCP proxy, as a process of its own: `python tcp_proxy.py FRONT:BACK ...`, told on stdin what to do to which front.

FRONT is a listening port of 127.0.0.1 and BACK the coordinator's. Each line is answered by the number of connections:

    cut FRONT           its connections are reset
    refuse FRONT        ... and so is each new one
    stall FRONT         nothing gets through, and nobody is told
    stall-up FRONT      ... to the coordinator; stall-down: ... from it
    lose FRONT          nothing gets through on the connections that there are, for good; new ones are well
    lose-down FRONT     ... from the coordinator
    delay FRONT SECONDS everything comes so much later
    slow FRONT RATE     so many bytes a second get through each way, on each connection
    well FRONT          as it was in the beginning
    count FRONT         nothing is done

What a stall holds back comes when it is over, as on a real network.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from typing import TypeAlias

BLOCK = 16 << 10
IN_FLIGHT = 1024
"""Blocks under way each way of a connection, beyond which no more are read."""
UP, DOWN = 0, 1
LOSES = {"lose": (UP, DOWN), "lose-down": (DOWN,)}
UnderWay: TypeAlias = asyncio.Queue[tuple[float, bytes]]
"""Blocks and when they are due; the last is empty."""


class Connection:
    """One connection; *lost* are the ways on which what comes goes nowhere any more."""

    def __init__(self, *writers: asyncio.StreamWriter) -> None:
        self._writers = writers
        self.lost = set[int]()

    def reset(self) -> None:
        for writer in self._writers:
            writer.transport.abort()


class Front:
    """One listening port, its connections, and what is wrong with it."""

    def __init__(self, back: int) -> None:
        self._back = back
        self._open: set[Connection] = set()
        self._flowing = (asyncio.Event(), asyncio.Event())
        self.tell("well", 0.0)

    def __len__(self) -> int:
        return len(self._open)

    def tell(self, what: str, number: float) -> None:
        """Do *what* to every connection."""
        self._refusing = what == "refuse"
        self._delay = number if what == "delay" else 0.0
        self._rate = number if what == "slow" else 0.0
        for flowing, stalls in zip(self._flowing, (("stall", "stall-up"), ("stall", "stall-down")), strict=True):
            if what in stalls:
                flowing.clear()
            else:
                flowing.set()
        for connection in list(self._open):
            connection.lost.update(LOSES.get(what, ()))
            if what in ("cut", "refuse"):
                connection.reset()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._back)
        except OSError:
            writer.transport.abort()
            return
        connection = Connection(writer, back_writer)
        self._open.add(connection)
        try:
            await asyncio.gather(
                self._pass(connection, UP, reader, back_writer), self._pass(connection, DOWN, back_reader, writer)
            )
        finally:
            self._open.discard(connection)
            connection.reset()

    async def _pass(
        self, connection: Connection, way: int, source: asyncio.StreamReader, sink: asyncio.StreamWriter
    ) -> None:
        under_way: UnderWay = asyncio.Queue(IN_FLIGHT)
        await asyncio.gather(self._take(source, under_way), self._give(connection, way, under_way, sink))

    async def _take(self, source: asyncio.StreamReader, under_way: UnderWay) -> None:
        block = b"-"
        while block:
            try:
                block = await source.read(BLOCK)
            except OSError:
                block = b""
            await under_way.put((time.monotonic() + self._delay, block))

    async def _give(
        self,
        connection: Connection,
        way: int,
        under_way: UnderWay,
        sink: asyncio.StreamWriter,
    ) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                due, block = await under_way.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                await self._flowing[way].wait()
                if way in connection.lost:
                    if not block:
                        return
                elif block:
                    sink.write(block)
                    await sink.drain()
                    await asyncio.sleep(len(block) / self._rate if self._rate else 0.0)
                else:
                    sink.write_eof()
                    return
        # The sink is gone: let the source go on to its end.
        while block:
            _, block = await under_way.get()


async def main(pairs: list[str]) -> None:
    fronts = {}
    for pair in pairs:
        port, _, back = pair.partition(":")
        front = fronts[port] = Front(int(back))
        await asyncio.start_server(front.serve, "127.0.0.1", int(port), limit=BLOCK)
    print("ready", flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode().split():
        front = fronts[line[1]]
        if line[0] != "count":
            front.tell(line[0], float(line[2]) if line[2:] else 0.0)
        print(len(front), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
