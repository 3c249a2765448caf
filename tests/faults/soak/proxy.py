"""A TCP proxy, as a process of its own: `python proxy.py FRONT:BACK ...`, told on stdin what to do to which front.

Lines: `cut FRONT`, `refuse FRONT`, `stall FRONT`, `delay FRONT SECONDS`, `well FRONT`; each is answered by a line.
FRONT is a listening port of 127.0.0.1 and BACK the coordinator's. A stalled connection loses nothing: what was sent
comes when it is well again, as on a real network.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

BLOCK = 64 << 10


class Front:
    """One listening port, its connections, and what is wrong with it."""

    def __init__(self, back: int) -> None:
        self._back = back
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._refusing = False
        self._delay = 0.0

    def tell(self, what: str, seconds: float) -> None:
        """Do *what* to every connection."""
        self._refusing = what == "refuse"
        self._delay = seconds if what == "delay" else 0.0
        if what == "stall":
            self._flowing.clear()
        else:
            self._flowing.set()
        if what in ("cut", "refuse"):
            for writer in list(self._open):
                writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refusing:
            writer.transport.abort()
            return
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._back)
        except OSError:
            writer.transport.abort()
            return
        self._open |= {writer, back_writer}
        try:
            await asyncio.gather(self._pass(reader, back_writer), self._pass(back_reader, writer))
        finally:
            for end in (writer, back_writer):
                self._open.discard(end)
                end.transport.abort()

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while block := await source.read(BLOCK):
                await self._flowing.wait()
                if self._delay:
                    await asyncio.sleep(self._delay)
                sink.write(block)
                await sink.drain()
        with contextlib.suppress(OSError, RuntimeError):
            sink.write_eof()


async def main(pairs: list[str]) -> None:
    fronts = {}
    for pair in pairs:
        port, _, back = pair.partition(":")
        front = fronts[port] = Front(int(back))
        await asyncio.start_server(front.serve, "127.0.0.1", int(port))
    print("ready", flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := (await commands.readline()).decode().split():
        fronts[line[1]].tell(line[0], float(line[2]) if line[2:] else 0.0)
        print("done", flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
