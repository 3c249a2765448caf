"""Ends what a job has started on the other side, at once or as soon as it can be reached."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as WaitedEnough
from twisted.internet.task import deferLater
from twisted.logger import Logger

from ...home import HomeError, read_json, write_json
from ..executors import ExecutorError
from ..workspace import WORK, is_kept
from .commands import Ended, run
from .connection import Connections, Program
from .scripts import END, FOLDER, REMOVE

_AGAIN_S = (1.0, 3.0, 6.0)
"""Seconds between attempts; after the last one it is left for later."""
WITHIN_S = 20.0
"""Beyond the grace, for all attempts: a client waits for it."""
_MORE_S = 30.0
MAX_LEFT = 10_000
LEFT_FILE = "left.json"


class Left(msgspec.Struct):
    """``left.json``: jobs of which something may still be there, by uuid."""

    jobs: list[str] = []


class SshEnder:
    """Ends jobs of *machine*, whose folder is *folder*; *grace* is the seconds between TERM and KILL."""

    _log = Logger()

    def __init__(self, program: Program, connections: Connections, folder: Path, machine: str, grace: float) -> None:
        self._program = program
        self._connections = connections
        self._path = folder / LEFT_FILE
        self._machine = machine
        self._grace = grace
        self._left = self._read()
        self._busy = False
        self._ending: set[Deferred[None]] = set()

    async def end(self, uuid: str) -> bool:
        """End all of the job there. False where that can't be now: then it is done later, and its files go too."""
        ending = Deferred.fromCoroutine(self._try_to_end(uuid))
        ending.addTimeout(self._grace + WITHIN_S, self._program.reactor)
        self._ending.add(ending)
        try:
            await ending
        except (ExecutorError, Ended) as error:
            self.later(uuid, str(error))
        except (WaitedEnough, CancelledError):
            self.later(uuid, "it can't be reached in time")
        else:
            return True
        finally:
            self._ending.discard(ending)
        return False

    def close(self) -> None:
        """Try no longer: what is not ended is left for later."""
        for ending in list(self._ending):
            ending.cancel()

    async def _try_to_end(self, uuid: str) -> None:
        for pause in _AGAIN_S:
            try:
                await self._end(uuid)
                return
            except (ExecutorError, Ended) as error:
                if self._connections.closed or (isinstance(error, Ended) and error.status == 1):
                    raise
            await deferLater(self._program.reactor, pause)
        await self._end(uuid)

    def has_left(self, uuid: str) -> bool:
        """Whether something of the job *uuid* is to be ended and removed later."""
        return uuid in self._left

    def later(self, uuid: str, reason: str) -> None:
        """Something of the job *uuid* is still there, for that *reason*: it is ended when there is a connection."""
        self._log.warn("job {uuid}: not ended there yet: {reason}", uuid=uuid, reason=reason)
        if len(self._left) < MAX_LEFT:
            self._left[uuid] = None
            self._write()

    def reached(self) -> None:
        """There is a connection: what was left is ended now."""
        if self._left and not self._busy:
            self._busy = True
            Deferred.fromCoroutine(self._end_left()).addErrback(
                lambda failure: self._log.failure("what was left can't be ended", failure)
            )

    async def _end_left(self) -> None:
        try:
            for uuid in list(self._left):
                try:
                    await self._end(uuid)
                    if not is_kept(self._path.parent / WORK, uuid):
                        await run(self._program, self._connections, REMOVE, folder_of(uuid, self._machine), _MORE_S)
                except (ExecutorError, Ended) as error:
                    self._log.warn("job {uuid}: not ended there yet: {reason}", uuid=uuid, reason=str(error))
                    if not (isinstance(error, Ended) and error.status == 1):
                        return
                self._left.pop(uuid, None)
                self._write()
        finally:
            self._busy = False

    async def _end(self, uuid: str) -> None:
        words = f"{uuid} {self._machine} {round(self._grace * 10)}"
        await run(self._program, self._connections, END, words, self._grace + _MORE_S)

    def _read(self) -> dict[str, Any]:
        try:
            found = read_json(self._path, Left)
        except HomeError:
            found = None
        return dict.fromkeys(found.jobs if found else ())

    def _write(self) -> None:
        try:
            write_json(self._path, Left(list(self._left)))
        except OSError as error:
            self._log.warn("can't note what is left there: {reason}", reason=error.strerror)


def folder_of(uuid: str, machine: str) -> str:
    """Return where the job's files are there, as words of shell."""
    return f"{FOLDER}{uuid}-{machine}"
