"""A machine to run jobs on, of which nothing is left afterwards."""

from __future__ import annotations

import os
import signal

import pytest

from clustersh.agent.tree import take_snapshot

from .jobs_support import Host


@pytest.fixture
def host(tmp_path):
    machine = f"test-{os.getpid()}-{tmp_path.name}"[:60]
    yield Host(tmp_path, machine)
    for process in take_snapshot().values():
        if process.machine == machine:
            os.kill(process.pid, signal.SIGKILL)
