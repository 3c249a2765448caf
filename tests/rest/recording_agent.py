"""A real agent that runs none of the commands it is sent: it records them, and prints something fixed instead.

Started with the agent's home in CLUSTERSH_HOME and the file to record into in RECORD.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
from zope.interface import implementer

from clustersh.agent import service
from clustersh.agent.executors import IExecutor, Task
from clustersh.agent.main import main

INSTEAD = b"printf 'recorded\\n'; printf 'as well\\n' >&2"


@implementer(IExecutor)
class Recording:
    """Adds each command to the file *record*, a JSON document a line."""

    def __init__(self, record: Path) -> None:
        self._record = record

    def writes(self, task: Task) -> bool:
        return True

    def argv(self, task: Task) -> list[bytes]:
        with self._record.open("ab") as file:
            file.write(msgspec.json.encode(task.command) + b"\n")
        return [b"/bin/sh", b"-c", INSTEAD]


if __name__ == "__main__":
    service.choose = lambda name, environ, *_: Recording(Path(environ["RECORD"]))  # type: ignore[attr-defined]
    sys.argv = ["clusteragent"]
    main()
