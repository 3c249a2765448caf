"""All checks of one probe, at once, each within its time; and what is told of them."""

from __future__ import annotations

import importlib
import json
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

from .failed import Failed, no_answer
from .grammar import read

MAX_SAID = 200
"""Bytes of what is told of one check."""
_GRACE_S = 2.0
"""What a check may take to notice that its time is over; then it isn't waited for: a dead file server never answers."""
_WHERE = {
    "http": "network:check_http",
    "tcp": "network:check_tcp",
    "service": "services:check_service",
    "disk": "disk:check_disk",
    "command": "commands:check_command",
}


class Found(NamedTuple):
    """What came of one check."""

    ok: bool
    said: str


def probe(checks: Sequence[tuple[str, str]], timeout_s: float) -> list[Found]:
    """Make *checks*, pairs of a kind and its text (see grammar.py), and return what came of each, in their order."""
    deadline = monotonic() + timeout_s + _GRACE_S
    pending = [_Check(_load(kind), read(kind, text), timeout_s) for kind, text in checks]
    for check in pending:
        check.start()
    for check in pending:
        check.join(max(0.0, deadline - monotonic()))
    return [check.found or Found(False, str(no_answer(timeout_s))) for check in pending]


def as_line(found: Sequence[Found]) -> str:
    """Return *found* as the one line that the probe prints."""
    checks = [{"ok": one.ok, "said": _bounded(one.said)} for one in found]
    return json.dumps({"checks": checks}, ensure_ascii=False) + "\n"


def _bounded(said: str) -> str:
    """Return *said* as any JSON can hold it, in few bytes."""
    plain = "".join(char if char.isprintable() else " " for char in said)
    return plain.encode()[:MAX_SAID].decode("utf-8", "ignore")


class _Check(threading.Thread):
    def __init__(self, check: Callable[[Any, float], str], subject: Any, timeout_s: float) -> None:
        super().__init__(daemon=True)
        self._check = check
        self._subject = subject
        self._timeout_s = timeout_s
        self.found: Found | None = None

    def run(self) -> None:
        try:
            self.found = Found(True, self._check(self._subject, self._timeout_s))
        except Failed as failed:
            self.found = Found(False, str(failed))
        except Exception as error:
            self.found = Found(False, f"the check itself failed: {type(error).__name__}: {error}")


def _load(kind: str) -> Callable[[Any, float], str]:
    """Import what checks that *kind*; here, for imports in several threads at once wait for each other."""
    module, _, function = _WHERE[kind].partition(":")
    check: Callable[[Any, float], str] = getattr(importlib.import_module(f".{module}", __package__), function)
    return check
