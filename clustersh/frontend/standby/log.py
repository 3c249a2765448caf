"""The standby's log: the last that went wrong, in a file of its own."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)

LARGEST = 256 << 10


class Log:
    """The text file *descriptor*, which begins anew before it gets larger than *largest* bytes."""

    def __init__(self, descriptor: int, largest: int = LARGEST) -> None:
        self._descriptor = descriptor
        self._largest = largest
        self._size = 0

    def write(self, text: str) -> None:
        """Write *text*, or as much as the file may hold; a full disk loses it."""
        data = text.encode(errors="replace")[: self._largest]
        with contextlib.suppress(OSError):
            if self._size + len(data) > self._largest:
                os.ftruncate(self._descriptor, 0)
                self._size = 0
            self._size += os.write(self._descriptor, data)

    def flush(self) -> None:
        """Nothing waits."""


def keep_log(path: str) -> None:
    """Keep what goes wrong in the file *path*, anew each time."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    file: Any = Log(os.open(path, flags, 0o600))
    level = LogLevelFilterPredicate(defaultLogLevel=LogLevel.warn)
    globalLogBeginner.beginLoggingTo(
        [FilteringLogObserver(textFileLogObserver(file), [level])], discardBuffer=True, redirectStandardIO=False
    )
