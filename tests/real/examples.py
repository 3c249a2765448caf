"""What the documentation shows of the command line, typed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from ..conftest import ROOT
from .many import Fleet
from .programs import BIN, PATIENCE_S, Cluster

UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def examples_of(page: str) -> list[str]:
    """Return the examples on a page of the documentation, in order."""
    return re.findall(r"```console\n(.*?)```", (ROOT / "docs" / page).read_text("utf-8"), re.DOTALL)


def check_example(fleet: Fleet | Cluster, example: str, folder: Path) -> None:
    """Type the commands of *example* and compare what comes."""
    lines = example.splitlines()
    marked = "\n".join(
        f"{line[2:]}\nstatus=$?\necho '@'" + "\n(exit $status)" for line in lines if line.startswith("$ ")
    )
    shown = [line if not line.startswith("$ ") else "@" for line in lines]
    found = shell(fleet, marked, folder)
    came, expected = _answers(found, first=False), _answers(shown, first=True)
    assert came == expected, f"{came}\n{expected}"


def shell(fleet: Fleet | Cluster, text: str, folder: Path) -> list[str]:
    """Return what bash prints for *text*, stderr too, with what differs from run to run made the same."""
    environ = {**fleet.client.environment(), "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/bash", "-c", text],
        env=environ,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE_S,
        check=False,
    )
    return re.sub(r"last seen \S+ ago", "last seen TIME ago", UUID.sub("UUID", done.stdout.decode())).splitlines()


def _answers(lines: list[str], *, first: bool) -> list[list[str]]:
    """Return the lines of each command: the mark stands before them (*first*) or after."""
    answers: list[list[str]] = [[]]
    for line in lines:
        if line == "@":
            answers.append([])
        else:
            answers[-1].append(line)
    return answers[1:] if first else answers[:-1]
