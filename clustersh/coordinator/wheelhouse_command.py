"""``clusterd wheelhouse``: the wheels of the dependencies, for machines that reach no package index."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..cli.commands import Start
from ..cli.dry_run import add_dry_run, tell
from ..cli.errors import CliError, UsageError
from ..cli.invocation import Invocation
from ..cli.parser import Parser
from ..cli.tables import render_table
from ..wire.units import format_size
from .admin_client import check_readable
from .own_wheel import OwnWheelError, pack_installed
from .wheel_fetch import FetchError, PipRun, check_pip
from .wheel_targets import Target, own_platform, target_of
from .wheelhouse import Contents, Wheelhouse
from .wheelhouse_fill import fill

_SAID_BYTES = 64 << 10
"""What is read of what pip said."""


def prepare(invocation: Invocation, arguments: tuple[str, ...]) -> Start:
    """Read the arguments of ``wheelhouse``."""
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser = Parser(
        "clusterd wheelhouse",
        "Wheels of what clustersh needs, which the coordinator hands to machines that it installs.\n"
        "fill fetches them from this user's package index; list shows what there is.",
        (
            "clusterd wheelhouse fill",
            "clusterd wheelhouse fill --platform manylinux_2_28_x86_64 --python 3.11 --python 3.13",
            "clusterd wheelhouse fill --platform macosx_14_0_arm64 --platform win_amd64",
            "clusterd wheelhouse list",
        ),
    )
    parser.add_argument("action", choices=("fill", "list"))
    parser.add_argument(
        "--platform", action="append", metavar="TAG", help=f"fill: for these machines (default {own_platform()})"
    )
    parser.add_argument("--python", action="append", metavar="X.Y", help=f"fill: for this Python (default {here})")
    add_dry_run(parser)
    options = parser.read(invocation, arguments)
    if options.action == "list":
        if options.platform or options.python:
            raise UsageError("--platform and --python go with fill")
        return lambda reactor: show(invocation)
    try:
        targets = [
            target_of(platform, python)
            for platform in options.platform or [own_platform()]
            for python in options.python or [here]
        ]
    except ValueError as error:
        raise UsageError(str(error)) from error
    return lambda reactor: (would_fill if options.dry_run else fill_for)(invocation, targets)


async def show(invocation: Invocation) -> int:
    """Print what each fill holds."""
    wheelhouse = _wheelhouse(invocation)
    await _print(invocation, await invocation.in_thread(wheelhouse.read))
    return 0


async def would_fill(invocation: Invocation, targets: Sequence[Target]) -> int:
    """Say for which machines wheels would be fetched, where that can be done."""
    _wheelhouse(invocation)
    try:
        check_pip()
    except FetchError as error:
        raise CliError(str(error), error.hints, kind="unavailable") from error
    wanted = [{"platform": target.platform, "python": target.python} for target in targets]
    kinds = ", ".join(f"{target.platform} (Python {target.python})" for target in targets)
    return await tell(invocation, f"fetch the wheels for {kinds}", would_fill=wanted)


async def fill_for(invocation: Invocation, targets: Sequence[Target]) -> int:
    """Fill the wheelhouse for *targets*, and print what it holds then."""
    wheelhouse, pip = _wheelhouse(invocation), _Pip()
    invocation.signals.handler = pip.end
    try:
        check_pip()
        requires = (await invocation.in_thread(pack_installed)).requires
        contents = await invocation.in_thread(lambda: fill(wheelhouse, targets, requires, pip.run, invocation.now()))
    except (FetchError, OwnWheelError) as error:
        pip.leave_if_ended()
        hints = error.hints if isinstance(error, FetchError) else ()
        raise CliError(str(error), (*hints, "the wheelhouse is as it was"), kind="unavailable") from error
    except OSError as error:
        raise CliError(
            f"can't write to {wheelhouse.folder}: {error.strerror}", ("the wheelhouse is as it was",), kind="storage"
        ) from error
    await _print(invocation, contents)
    return 0


class _Pip:
    """Runs pip, and ends it when this program is to end."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._ended_by = 0

    def run(self, words: Sequence[str], folder: Path) -> PipRun:
        """Run *words* in *folder* to their end."""
        with tempfile.TemporaryFile(dir=folder) as said:
            self._running = subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
            if self._ended_by:  # before there was anything to end
                self._running.terminate()
            status = self._running.wait()
            said.seek(max(0, said.seek(0, 2) - _SAID_BYTES))
            return PipRun(status, said.read().decode(errors="replace"))

    def end(self, number: int) -> None:
        """End pip, and so the fill."""
        self._ended_by = number
        if self._running is not None:
            self._running.terminate()

    def leave_if_ended(self) -> None:
        """Raise CliError where a signal is why pip failed."""
        if self._ended_by:
            raise CliError("interrupted", ("the wheelhouse is as it was",), status=128 + self._ended_by)


def _wheelhouse(invocation: Invocation) -> Wheelhouse:
    folder = invocation.home / "coordinator"
    check_readable(folder, invocation)
    return Wheelhouse(folder)


async def _print(invocation: Invocation, contents: Contents) -> None:
    if invocation.json:
        await invocation.console.out(msgspec.json.encode(contents) + b"\n")
        return
    rows = [
        (each.platform, each.python, each.filled[:10], str(len(each.wheels)), _size(each.wheels))
        for each in contents.fills
    ]
    headers = ("platform", "python", "filled", "wheels", "size")
    await invocation.console.out(render_table(headers, rows, invocation.console.width))


def _size(wheels: Sequence[Any]) -> str:
    return format_size(sum(wheel.size for wheel in wheels))
