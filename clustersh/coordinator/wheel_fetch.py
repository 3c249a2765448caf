"""All wheels that one kind of machine needs, fetched by pip.

pip picks files for another platform, but reads the conditions in requirements (``sys_platform == "win32"``) as of the
machine it runs on. So what it fetched is looked through, and asked for again with what is missing there.
"""

from __future__ import annotations

import email.parser
import importlib.util
import re
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from .wheel_targets import Target

RunPip = Callable[[Sequence[str], Path], "PipRun"]
"""Runs a command in a folder to its end."""
_METADATA = re.compile(r"[^/]+\.dist-info/METADATA")
CONSTRAINTS = "constraints.txt"
MAX_METADATA = 4 << 20
_MAX_ROUNDS = 10


class FetchError(Exception):
    """The wheels can't be had; the message says why, *hints* what to do."""

    def __init__(self, message: str, *hints: str) -> None:
        super().__init__(message)
        self.hints = hints


class PipRun(NamedTuple):
    """How pip ended, and what it said."""

    status: int
    said: str


class Wheel(NamedTuple):
    """A wheel file and what it says of itself."""

    path: Path
    project: str
    requires: tuple[Requirement, ...]
    requires_python: str


def check_pip() -> None:
    """Raise FetchError where this installation has no pip."""
    if importlib.util.find_spec("pip") is None:
        raise FetchError(
            f"this installation has no pip ({sys.executable} -m pip)",
            "installed with uv: uv tool install --with pip clustersh",
            "installed with pipx: pipx inject clustersh pip",
            f"elsewhere: {sys.executable} -m ensurepip",
        )


def fetch(target: Target, requires: Iterable[str], folder: Path, run_pip: RunPip) -> list[Wheel]:
    """Fetch into *folder* what *requires* needs on *target*, and return it. Blocks; raises FetchError.

    CONSTRAINTS in *folder* limits the versions, in pip's way.
    """
    wanted = [Requirement(text) for text in requires]
    asked = {_plain(each) for each in wanted if _applies(each, target, ())}
    for number in range(_MAX_ROUNDS):
        into = folder / str(number)
        into.mkdir()
        done = run_pip([*_download(target, into), *sorted(asked)], folder)
        if done.status:
            raise FetchError(_reason(done, target))
        wheels = {wheel.project: wheel for wheel in map(read_wheel, sorted(into.glob("*.whl")))}
        reached, missing = _reach(wanted, wheels, target)
        if not missing:
            return [wheels[project] for project in sorted(reached)]
        asked |= missing
    raise FetchError(f"pip fetches something else each time for {target.platform}")


def read_wheel(path: Path) -> Wheel:
    """Return what the wheel *path* says of itself. Raises FetchError."""
    try:
        project = str(parse_wheel_filename(path.name)[0])
        with zipfile.ZipFile(path) as archive:
            (entry,) = (each for each in archive.infolist() if _METADATA.fullmatch(each.filename))
            if entry.file_size > MAX_METADATA:
                raise ValueError("its METADATA is too large")
            about = email.parser.Parser().parsestr(archive.read(entry).decode(errors="replace"))
        requires = tuple(Requirement(text) for text in about.get_all("Requires-Dist", []))
    except (ValueError, OSError, zipfile.BadZipFile, InvalidRequirement) as error:
        raise FetchError(f"{path.name} is no wheel that can be read: {error}") from error
    return Wheel(path, project, requires, about.get("Requires-Python", ""))


def _download(target: Target, into: Path) -> Iterator[str]:
    yield from (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input")
    yield from ("--only-binary", ":all:", "--dest", str(into))
    yield from ("--constraint", str(into.parent / CONSTRAINTS))
    yield from ("--implementation", "cp", "--python-version", target.python)
    for tag in target.tags:
        yield from ("--platform", tag)


def _reach(wanted: Iterable[Requirement], wheels: dict[str, Wheel], target: Target) -> tuple[set[str], set[str]]:
    """Return the projects that *wanted* leads to on *target*, and the requirements on the way that no wheel is for."""
    reached, missing = set[str](), set[str]()
    todo = [each for each in wanted if _applies(each, target, ())]
    seen = set[str]()
    while todo:
        requirement = todo.pop()
        if str(requirement) in seen:
            continue
        seen.add(str(requirement))
        wheel = wheels.get(canonicalize_name(requirement.name))
        if wheel is None:
            missing.add(_plain(requirement))
            continue
        reached.add(wheel.project)
        todo += [each for each in wheel.requires if _applies(each, target, requirement.extras)]
    return reached, missing


def _applies(requirement: Requirement, target: Target, extras: Iterable[str]) -> bool:
    """Whether *requirement*, of something that is wanted with *extras*, is one on *target*."""
    if requirement.marker is None:
        return True
    marker = requirement.marker
    return any(marker.evaluate({**target.environment, "extra": extra}) for extra in ("", *extras))


def _plain(requirement: Requirement) -> str:
    """Return *requirement* without its condition, for pip."""
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _reason(done: PipRun, target: Target) -> str:
    """Return the one line of what pip said that tells most."""
    lines = [line.removeprefix("ERROR:").strip() for line in done.said.splitlines() if line.startswith("ERROR:")]
    said = lines[-1] if lines else f"exit status {done.status}"
    return f"pip can't fetch the wheels for {target.platform}, Python {target.python}: {said}"
