"""The standby's log never gets large."""

from __future__ import annotations

import os
from pathlib import Path

from clustersh.frontend.standby.log import Log


def test_a_log_that_would_get_too_large_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    log = Log(descriptor, largest=10)
    for text in ("12345", "67890"):
        log.write(text)
    assert path.read_text() == "1234567890"
    log.write("ünd")
    assert path.read_text() == "ünd"
    log.write("x" * 30)
    assert path.read_text() == "x" * 10
    os.close(descriptor)
    log.write("a disk that takes nothing is no trouble")
