"""Filling the wheelhouse: everything is fetched beside it first, and takes effect in one step."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from ..home import private_folder, sync_folder
from ..wire.units import timestamp
from .wheel_fetch import CONSTRAINTS, FetchError, RunPip, Wheel, fetch
from .wheel_targets import Target
from .wheelhouse import Contents, Fill, HeldWheel, Wheelhouse

_PREFIX = ".fill-"
_ATTEMPTS, _PAUSE_S = 40, 0.05


def fill(
    wheelhouse: Wheelhouse, targets: Iterable[Target], requires: Iterable[str], run_pip: RunPip, now: float
) -> Contents:
    """Fetch what *requires* needs on each of *targets*, and return what there is then.

    Blocks. Raises FetchError, HomeError, or OSError where the disk refuses; the wheelhouse is as it was then.
    """
    folder = private_folder(wheelhouse.folder)
    lock = FileLock(folder / "lock", mode=0o600)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FetchError("the wheelhouse is being filled already", "wait until that ends") from None
    try:
        _remove_leftovers(folder)
        return _fill(wheelhouse, targets, tuple(requires), run_pip, now)
    finally:
        lock.release()


def _fill(
    wheelhouse: Wheelhouse, targets: Iterable[Target], requires: tuple[str, ...], run_pip: RunPip, now: float
) -> Contents:
    contents, targets = wheelhouse.read(), list(targets)
    for target in targets:
        contents = contents.without(target.platform, target.python)
    work = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=wheelhouse.folder))
    try:
        for number, target in enumerate(targets):
            into = work / str(number)
            into.mkdir()
            (into / CONSTRAINTS).write_text("".join(_settled(contents, target)))
            wheels = [_keep(wheelhouse, wheel) for wheel in fetch(target, requires, into, run_pip)]
            filled = Fill(target.platform, target.python, target.system, target.machine, timestamp(now), tuple(wheels))
            contents = Contents((*contents.fills, filled))
        sync_folder(wheelhouse.folder)
        wheelhouse.replace(contents)
    finally:
        _remove(work)
    return contents


def _settled(contents: Contents, target: Target) -> Iterator[str]:
    """Yield the versions that *target* must have: those of machines that no requirement can tell from it."""
    for fill in contents.fills:
        if fill.kind == (target.system, target.machine, target.python):
            yield from (f"{wheel.project}=={wheel.version}\n" for wheel in fill.wheels)


def _keep(wheelhouse: Wheelhouse, wheel: Wheel) -> HeldWheel:
    """Move *wheel* to its place; nothing hands it out before the list has it."""
    with wheel.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    held = HeldWheel(wheel.path.name, digest, wheel.path.stat().st_size, wheel.requires_python)
    wheel.path.chmod(0o600)
    wheel.path.replace(wheelhouse.path(held))
    return held


def _remove_leftovers(folder: Path) -> None:
    """Remove what a fill that was killed left; the lock says that none runs."""
    for path in folder.glob(f"{_PREFIX}*"):
        _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder that the pip of a fill that was killed may still be writing to: it fails once that is gone."""
    for _ in range(_ATTEMPTS):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(_PAUSE_S)
